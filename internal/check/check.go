// Package check looks at all that has to hold between an event and a drained node: rule, state, target, permission, function,
// role, network, log-in, rights in the cluster, and a plan for a made-up event. It changes nothing.
package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
)

// Checks is a cluster's.
type Checks struct {
	AWS      *awsadmin.Account
	Template *install.Template
	Values   iam.Values // where

	Instances []awsadmin.Instance // the cluster's
	Node      string              // an instance of the cluster that has a node, for the made-up event; empty if there is none
}

// The links, in the order in which an event goes through them.
const (
	Rule        = "rule"
	State       = "state"
	Target      = "target"
	Permission  = "permission"
	Function    = "function"
	Role        = "role"
	Network     = "network"
	LogIn       = "log-in"
	RBAC        = "rbac"
	Preview     = "preview"
	Outcomes    = "outcomes"
	Concurrency = "concurrency"
)

// checker is a check under way.
type checker struct {
	Checks
	name       string            // the function's
	parameters map[string]string // the stack's; the template's defaults where there is none
	function   *awsadmin.Function
	findings   change.Findings
	self       *selfCheckResult
}

func (c *checker) ok(link, format string, args ...any) {
	c.findings = append(c.findings, change.Finding{Level: change.OK, Name: link, Detail: fmt.Sprintf(format, args...)})
}

func (c *checker) warn(link, advice, format string, args ...any) {
	c.findings = append(c.findings, change.Finding{Level: change.Warn, Name: link, Detail: fmt.Sprintf(format, args...), Advice: advice})
}

func (c *checker) fail(link, advice, format string, args ...any) {
	c.findings = append(c.findings, change.Finding{Level: change.Fail, Name: link, Detail: fmt.Sprintf(format, args...), Advice: advice})
}

// fine tells that all is well with a link, unless something else has been said of it.
func (c *checker) pass(link, format string, args ...any) {
	if !slices.ContainsFunc(c.findings, func(f change.Finding) bool { return f.Name == link }) {
		c.ok(link, format, args...)
	}
}

// skipped tells of a link of which nothing can be known before another is mended.
func (c *checker) skipped(link, needs string) {
	c.warn(link, "", "not asked: it needs %q", needs)
}

// Check looks at every link. That one cannot be looked at is an error.
func (c Checks) Check(ctx context.Context) (change.Findings, error) {
	now := &checker{Checks: c, name: iam.FunctionName(c.Values.Cluster), parameters: map[string]string{}}
	for name, value := range c.Template.Defaults {
		if value != nil {
			now.parameters[name] = *value
		}
	}
	stack, err := c.AWS.Stack(ctx, now.name)
	if err != nil {
		return nil, err
	}
	if stack != nil {
		maps.Copy(now.parameters, stack.Parameters)
	}
	if now.function, err = c.AWS.Function(ctx, now.name); err != nil {
		return nil, err
	}
	for _, link := range []func(context.Context) error{now.rules, now.checkFunction, now.selfCheckLinks, now.preview, now.outcomes, now.concurrency} {
		if err := link(ctx); err != nil {
			return now.findings, err
		}
	}
	return now.findings, nil
}

// ruleStatus is a rule of the template, and as it is.
type ruleStatus struct {
	install.Event
	name string
	is   *awsadmin.Rule
}

// pattern is the template's, as EventBridge has it.
func (w ruleStatus) pattern() string {
	text, _ := json.Marshal(w.Pattern) // it has been read from YAML, in JSON's terms
	return string(text)
}

// rules looks at the rules, each one's state and target, and whether it may invoke the function.
func (c *checker) rules(ctx context.Context) error {
	var all []ruleStatus
	for _, e := range c.Template.Events {
		w := ruleStatus{Event: e, name: iam.RuleName(c.Values.Cluster, e.Name)}
		var err error
		if w.is, err = c.AWS.Rule(ctx, w.name); err != nil {
			return err
		}
		all = append(all, w)
	}
	c.present(all)
	c.states(all)
	c.targets(all)
	return c.permissions(ctx, all)
}

// reinstall is what puts a whole thing back.
const reinstall = "kops-spot install"

// present looks at the rules themselves. The advice puts them back as the template has them: CloudFormation does not look whether
// somebody has changed what it has made.
func (c *checker) present(all []ruleStatus) {
	for _, w := range all {
		switch {
		case w.is == nil && c.on(w):
			c.fail(Rule, reinstall+" makes it", "there is no rule %s", w.name)
		case w.is == nil || w.Schedule:
		case !awsadmin.SameDocument(w.is.Pattern, w.pattern()):
			c.fail(Rule, fmt.Sprintf("aws events put-rule --name %s --region %s --state %s --event-pattern '%s'",
				w.name, c.Values.Region, c.state(w), w.pattern()),
				"the pattern of rule %s is not the template's: %s", w.name, w.is.Pattern)
		}
	}
	c.pass(Rule, "all %d are there, with the template's patterns", len(all))
}

// state is what the stack says of a rule.
func (c *checker) state(w ruleStatus) string {
	if c.on(w) {
		return "ENABLED"
	}
	return "DISABLED"
}

// on reports whether the stack has the rule enabled.
func (c *checker) on(w ruleStatus) bool { return c.parameters[w.Switch] != "DISABLED" }

func (c *checker) states(all []ruleStatus) {
	var off []string
	for _, w := range all {
		switch {
		case w.is == nil:
		case !w.is.Enabled && c.on(w):
			c.fail(State, "aws events enable-rule --name "+w.name+" --region "+c.Values.Region, "rule %s is disabled", w.name)
		case !w.is.Enabled:
			off = append(off, w.Event.Name)
		}
	}
	switch {
	case slices.Contains(off, "spot-warning"):
		c.warn(State, reinstall+" --set SpotWarningRule=ENABLED", "the function is not told of Spot interruption warnings: SpotWarningRule is DISABLED")
	case len(off) > 0:
		c.pass(State, "enabled, but for those that are switched off: %s", strings.Join(off, ", "))
	default:
		c.pass(State, "enabled")
	}
}

func (c *checker) targets(all []ruleStatus) {
	arn := c.Values.FunctionARN()
	for _, w := range all {
		if w.is != nil && !slices.ContainsFunc(w.is.Targets, func(t awsadmin.Target) bool { return t.ARN == arn }) {
			c.fail(Target, fmt.Sprintf(`aws events put-targets --rule %s --region %s --targets '[{"Id": "%s", "Arn": "%s", "RetryPolicy": {"MaximumEventAgeInSeconds": %d}, `+
				`"DeadLetterConfig": {"Arn": "%s"}}]'`, w.name, c.Values.Region, w.TargetID, arn, w.Age, c.Values.QueueARN("undelivered")),
				"rule %s does not send its events to the function", w.name)
		}
	}
	c.pass(Target, "they send to %s", arn)
}

func (c *checker) permissions(ctx context.Context, all []ruleStatus) error {
	if c.function == nil {
		c.skipped(Permission, Function)
		return nil
	}
	text, err := c.AWS.FunctionPolicy(ctx, c.name)
	if err != nil {
		return err
	}
	for _, w := range all {
		if w.is != nil && !allows(text, w.is.ARN) {
			c.fail(Permission, "aws lambda add-permission --function-name "+c.name+" --statement-id "+w.Event.Name+
				" --action lambda:InvokeFunction --principal events.amazonaws.com --source-arn "+w.is.ARN+" --region "+c.Values.Region,
				"the function does not let rule %s invoke it", w.name)
		}
	}
	c.pass(Permission, "the function lets them invoke it")
	return nil
}

// allows reports whether a function's policy lets EventBridge invoke it for a rule.
func allows(policy, rule string) bool {
	var document struct {
		Statement []struct {
			Effect    string
			Action    any
			Principal any
			Condition map[string]map[string]string
		}
	}
	if json.Unmarshal([]byte(policy), &document) != nil {
		return false
	}
	for _, s := range document.Statement {
		principal, _ := s.Principal.(map[string]any)
		if s.Effect != "Allow" || s.Action != "lambda:InvokeFunction" || principal["Service"] != "events.amazonaws.com" {
			continue
		}
		if len(s.Condition) == 0 {
			return true
		}
		for _, values := range s.Condition {
			for key, value := range values {
				if strings.EqualFold(key, "AWS:SourceArn") && value == rule {
					return true
				}
			}
		}
	}
	return false
}

// checkFunction looks whether it is there and could run.
func (c *checker) checkFunction(ctx context.Context) error {
	f := c.function
	switch {
	case f == nil:
		c.fail(Function, reinstall+" makes it", "there is no function %s", c.name)
	case f.State != "" && f.State != "Active":
		c.fail(Function, "mend what the reason says; a function that was idle for weeks becomes active again when it is invoked", "it is %s: %s", f.State, f.Reason)
	case f.Update == "Failed":
		c.fail(Function, "mend what the reason says, and deploy again", "its last change has failed: %s", f.Problem)
	case f.Environment["KOPS_SPOT_CLUSTER"] != c.Values.Cluster:
		c.fail(Function, reinstall+" deploys it for this one", "it works for the cluster %q", f.Environment["KOPS_SPOT_CLUSTER"])
	case f.Reserved != nil && *f.Reserved == 0:
		c.fail(Function, "aws lambda delete-function-concurrency --function-name "+c.name+" --region "+c.Values.Region, "its reserved concurrency is 0: it is never invoked")
	default:
		taken, err := c.checkRole(ctx, f)
		if err != nil {
			return err
		}
		if !taken {
			c.ok(Function, "it is there, and works for this cluster")
			return nil
		}
		return c.selfCheck(ctx, f)
	}
	c.skipped(Role, Function)
	return nil
}

// role looks whether the function can be its role.
func (c *checker) checkRole(ctx context.Context, f *awsadmin.Function) (taken bool, err error) {
	services, err := c.AWS.Trusted(ctx, f.Role)
	switch {
	case errors.Is(err, awsadmin.ErrNotFound):
		c.fail(Role, "kops-spot onboard, or "+reinstall+" without FunctionRoleArn, makes one",
			"there is no role %s, with which it is to run", f.Role)
		return false, nil
	case err != nil:
		return false, err
	case !slices.Contains(services, "lambda.amazonaws.com"):
		c.fail(Role, "let lambda.amazonaws.com take it, as iam/trust.json does", "Lambda may not take the role %s", f.Role)
		return false, nil
	}
	return true, nil
}
