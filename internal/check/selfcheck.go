package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// selfCheck lets the function check what only it can see.
func (c *checker) selfCheck(ctx context.Context) error {
	event, err := eventbridge.EncodeSelfCheck(eventbridge.SyntheticEventID, c.Values.Account, c.Values.Region, time.Now())
	if err != nil {
		return err
	}
	response, err := c.invoke(ctx, Function, event)
	if err != nil || response == nil {
		return err
	}
	var result app.SelfCheck
	if json.Unmarshal(response, &result) != nil || result.Result == "" {
		c.fail(Function, "deploy it again with "+reinstall,
			"it does not support the self-check: it is another program or an old version")
		return nil
	}
	c.self = &result
	c.ok(Function, "running: version %s, mode %s, %s", cmp.Or(result.Program, "unknown"),
		cmp.Or(c.function.Environment["KOPS_SPOT_MODE"], "unknown"), c.function.Architecture)
	return nil
}

// invoke returns the function's response to an event. If the function fails or Lambda cannot invoke it, for example
// because of its role, network or concurrency, invoke reports a failure of the link and returns nil.
func (c *checker) invoke(ctx context.Context, link string, event []byte) ([]byte, error) {
	response, failed, err := c.AWS.Invoke(ctx, c.name, event)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		c.fail(link, "if the error is about your own permissions, allow lambda:InvokeFunction; otherwise, check the "+
			"function's role, subnets and concurrency", "%v", err)
		return nil, nil
	case failed:
		var why struct{ ErrorMessage string }
		_ = json.Unmarshal(response, &why) // without JSON, there is no message
		c.fail(link, "see its log: aws logs tail "+iam.LogGroup(c.Values.Cluster)+" --since 10m --region "+c.Values.Region,
			"it fails: %s", why.ErrorMessage)
		return nil, nil
	}
	return response, nil
}

// linkOf returns the link that a check of the function is about; empty if none.
func linkOf(check string) string {
	switch {
	case check == "aws":
		return Role
	case check == "network":
		return Network
	case slices.Contains([]string{"authentication", "token", "ca", "castai key"}, check):
		return Authentication
	case strings.HasPrefix(check, "rbac"):
		return RBAC
	}
	return ""
}

// checkInside reports the links that only the function can check.
func (c *checker) checkInside(context.Context) error {
	for _, l := range []struct{ name, good string }{
		{Role, "Lambda can assume the role; EC2 and Auto Scaling are readable"},
		{Network, "the function can connect to the API server"},
		{Authentication, "the API server accepts the function's credentials"},
		{RBAC, "the function has the required permissions in the cluster"},
	} {
		if c.self == nil {
			if l.name != Role {
				c.skipped(l.name, c.findings.First())
			}
			continue
		}
		for _, check := range c.self.Checks {
			switch {
			case check.OK || linkOf(check.Name) != l.name:
			case check.Skipped, check.Name == "authentication" && c.findings.First() == Network:
				c.skipped(l.name, c.findings.First())
			default:
				c.fail(l.name, check.Advice, "%s: %s", check.Name, check.Detail)
			}
		}
		c.pass(l.name, "%s", l.good)
	}
	return nil
}

// preview lets the function plan its response to a test warning. It is skipped if the function would drain the node.
func (c *checker) preview(ctx context.Context) error {
	switch {
	case c.findings.First() != "":
		c.skipped(Preview, c.findings.First())
		return nil
	case c.Node == "":
		c.warn(Preview, "", "skipped: no instance of the cluster has a node")
		return nil
	case c.function.Environment["KOPS_SPOT_REHEARSALS"] == "act" && c.function.Environment["KOPS_SPOT_MODE"] != "observe":
		c.warn(Preview, "use kops-spot rehearse NODE", "skipped: with Rehearsals=act, the function would drain the node")
		return nil
	}
	event, err := eventbridge.Encode(spot.Interruption{Kind: spot.SpotTerminate, Instance: c.Node, Region: c.Values.Region,
		Rehearsal: true, EventID: eventbridge.SyntheticEventID, Time: time.Now()})
	if err != nil {
		return err
	}
	response, err := c.invoke(ctx, Preview, event)
	if err != nil || response == nil {
		return err
	}
	var out spot.Outcome
	switch {
	case json.Unmarshal(response, &out) != nil:
		c.fail(Preview, "deploy it again with "+reinstall, "this version cannot read the function's outcome")
	case out.Result != spot.Planned:
		c.fail(Preview, "kops-spot explain "+c.Node+" shows the plan and its reasons",
			"a test warning for %s: %s: %s", c.Node, out.Result, out.Reason)
	default:
		plan := cmp.Or(out.Plan, &spot.PlanResult{})
		c.ok(Preview, "a test warning for %s would drain node %s with %d pods", c.Node, out.Node, len(plan.Pods))
	}
	return nil
}

// outcomes checks whether the function's outcomes have destinations.
func (c *checker) outcomes(ctx context.Context) error {
	if c.function == nil {
		c.skipped(Outcomes, Function)
		return nil
	}
	success, failure, err := c.AWS.Destinations(ctx, c.name)
	switch {
	case err != nil:
		return err
	case success == "" || failure == "":
		c.warn(Outcomes, "the template sets both; aws lambda get-function-event-invoke-config --function-name "+c.name+
			" shows the current ones", "outcomes or failures have no destination: they are only in the log")
	default:
		c.ok(Outcomes, "sent to %s, failures to %s", success, failure)
	}
	return nil
}

// CheckConcurrency checks the account's concurrency before the function exists.
func (c Checks) CheckConcurrency(ctx context.Context) (change.Findings, error) {
	now := &checker{Checks: c}
	err := now.concurrency(ctx)
	return now.findings, err
}

// concurrency compares the number of Spot instances, which EC2 can reclaim all at once, with the concurrency limit.
func (c *checker) concurrency(ctx context.Context) error {
	instances := 0
	for _, i := range c.Instances {
		if i.Spot && !i.Ended {
			instances++
		}
	}
	if c.function != nil && c.function.Reserved != nil {
		c.compare(*c.function.Reserved, instances, "reserved concurrency of the function")
		return nil
	}
	limit, err := c.AWS.Concurrency(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		c.warn(Concurrency, "", "%v", err)
	default:
		c.compare(limit, instances, "unreserved concurrency of the account")
	}
	return nil
}

func (c *checker) compare(limit, instances int, what string) {
	if limit < instances {
		c.warn(Concurrency, "request more in Service Quotas (Lambda, concurrent executions), or reserve some with "+
			"--set ReservedConcurrency=…", "%s: %d, less than the number of Spot instances: %d", what, limit, instances)
		return
	}
	c.ok(Concurrency, "%s: %d, for %d Spot instances", what, limit, instances)
}
