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
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// selfCheck is what the function says of itself.
type selfCheckResult struct {
	Result  string
	Program string
	Checks  []struct {
		Name, Detail, Advice string
		OK                   bool
	}
}

// ask has the function check what only it can see.
func (c *checker) selfCheck(ctx context.Context, f *awsadmin.Function) error {
	event, err := eventbridge.EncodeSelfCheck(eventbridge.SyntheticEventID, c.Values.Account, c.Values.Region, time.Now())
	if err != nil {
		return err
	}
	said, err := c.invoke(ctx, Function, event)
	if err != nil || said == nil {
		return err
	}
	var told selfCheckResult
	if json.Unmarshal(said, &told) != nil || told.Result == "" {
		c.fail(Function, "deploy it again with "+reinstall, "it does not know the self-check: it is another program, or an old one")
		return nil
	}
	c.self = &told
	c.ok(Function, "it runs: version %s, mode %s, %s",
		cmp.Or(told.Program, "unknown"), cmp.Or(f.Environment["KOPS_SPOT_MODE"], "unknown"), f.Architecture)
	return nil
}

// invoke is what the function says to an event; nil if it fails, or Lambda cannot run it, such as for its role, its network or
// want of concurrency, or does not let us: then the link is broken.
func (c *checker) invoke(ctx context.Context, link string, event []byte) ([]byte, error) {
	said, failed, err := c.AWS.Invoke(ctx, c.name, event)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err
	case err != nil:
		c.fail(link, "the detail is Lambda's: if it is about your own rights, allow lambda:InvokeFunction; else about the role, the subnets or the concurrency of the function", "%v", err)
		return nil, nil
	case failed:
		var why struct{ ErrorMessage string }
		_ = json.Unmarshal(said, &why) // what is no JSON has no message
		c.fail(link, "its log says more: aws logs tail "+iam.LogGroup(c.Values.Cluster)+" --since 10m --region "+c.Values.Region, "it fails: %s", why.ErrorMessage)
		return nil, nil
	}
	return said, nil
}

// links are the links of which the function's own checks tell, by the checks' names.
var links = []struct {
	link, good string
	of         func(check string) bool
}{
	{Role, "Lambda takes it, and it may read EC2 and Auto Scaling", is("aws")},
	{Network, "the function reaches the API server", is("network")},
	{LogIn, "the API server accepts the function", is("authentication", "token", "ca", "castai key")},
	{RBAC, "the function may do in the cluster what it has to", func(check string) bool { return strings.HasPrefix(check, "rbac") }},
}

func is(names ...string) func(string) bool {
	return func(check string) bool { return slices.Contains(names, check) }
}

// inside tells what the function says of the links that only it can see.
func (c *checker) selfCheckLinks(context.Context) error {
	for _, l := range links {
		if c.self == nil {
			if l.link != Role {
				c.skipped(l.link, c.findings.First())
			}
			continue
		}
		for _, check := range c.self.Checks {
			if !l.of(check.Name) || check.OK {
				continue
			}
			if strings.HasPrefix(check.Detail, "skipped:") ||
				l.link == LogIn && c.findings.First() == Network && check.Name == "authentication" {
				c.skipped(l.link, c.findings.First())
				continue
			}
			c.fail(l.link, check.Advice, "%s: %s", check.Name, check.Detail)
		}
		c.pass(l.link, "%s", l.good)
	}
	return nil
}

// preview has the function plan what it would do about a warning that nobody has given. It is not asked where the function
// would act on that.
func (c *checker) preview(ctx context.Context) error {
	switch {
	case c.findings.First() != "":
		c.skipped(Preview, c.findings.First())
		return nil
	case c.Node == "":
		c.warn(Preview, "", "not asked: the cluster has no node that is an instance of it")
		return nil
	case c.function.Environment["KOPS_SPOT_REHEARSALS"] == "act" && c.function.Environment["KOPS_SPOT_MODE"] != "observe":
		c.warn(Preview, "kops-spot rehearse NODE does it", "not asked: with Rehearsals=act the function would drain the node")
		return nil
	}
	event, err := eventbridge.Encode(spot.Interruption{Kind: spot.SpotTerminate, Instance: c.Node, Region: c.Values.Region, Rehearsal: true,
		EventID: eventbridge.SyntheticEventID, Time: time.Now()})
	if err != nil {
		return err
	}
	said, err := c.invoke(ctx, Preview, event)
	if err != nil || said == nil {
		return err
	}
	var out spot.Outcome
	switch {
	case json.Unmarshal(said, &out) != nil:
		c.fail(Preview, "deploy it again with "+reinstall, "the outcome of a made-up warning is none that this version knows")
	case out.Result != spot.Planned:
		c.fail(Preview, "kops-spot explain "+c.Node+" says what it would do and why", "a made-up warning of %s ends %s: %s", c.Node, out.Result, out.Reason)
	default:
		pods := 0
		if out.Plan != nil {
			pods = len(out.Plan.Pods)
		}
		c.ok(Preview, "a made-up warning of %s: node %s with its %d pods would be drained", c.Node, out.Node, pods)
	}
	return nil
}

// outcomes looks whether anybody hears of what has happened.
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
		c.warn(Outcomes, "aws lambda get-function-event-invoke-config --function-name "+c.name+" shows what there is; the template sets both destinations",
			"what comes of an event goes to the log only: it has no destination")
	default:
		c.ok(Outcomes, "they go to %s, failures to %s", success, failure)
	}
	return nil
}

// CheckConcurrency says, before there is a function, whether the account has room for it.
func (c Checks) CheckConcurrency(ctx context.Context) (change.Findings, error) {
	now := &checker{Checks: c}
	err := now.concurrency(ctx)
	return now.findings, err
}

// concurrency compares how many machines can be interrupted at once with how many invocations there can be.
func (c *checker) concurrency(ctx context.Context) error {
	machines := 0
	for _, i := range c.Instances {
		if i.Spot && !i.Ended {
			machines++
		}
	}
	if c.function != nil && c.function.Reserved != nil {
		c.compare(*c.function.Reserved, machines, "reserved for the function")
		return nil
	}
	limit, err := c.AWS.Concurrency(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		c.warn(Concurrency, "", "%v", err)
	default:
		c.compare(limit, machines, "that the account allows at once to all functions for which none are reserved")
	}
	return nil
}

func (c *checker) compare(limit, machines int, of string) {
	if limit < machines {
		c.warn(Concurrency, "ask for more in Service Quotas (Lambda, concurrent executions), or reserve with --set ReservedConcurrency=…",
			"of the %d invocations %s, the %d Spot instances of the cluster could use more", limit, of, machines)
		return
	}
	c.ok(Concurrency, "%d invocations %s, for %d Spot instances", limit, of, machines)
}
