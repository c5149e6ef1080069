// Package check tests every link between an event and a drained node: rule, state, target, permission, function, role,
// network, authentication, RBAC, and the plan for a test event. It changes nothing.
package check

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
)

// Checks are the checks of one cluster's installation.
type Checks struct {
	AWS      *awsadmin.Account
	Template *install.Template
	Values   iam.Values

	Instances []awsadmin.Instance // the cluster's
	Node      string              // the ID of an instance with a node, for the test event; empty if there is none
}

// The links, in the order in which an event passes them.
const (
	Rule           = "rule"
	State          = "state"
	Target         = "target"
	Permission     = "permission"
	Function       = "function"
	Role           = "role"
	Network        = "network"
	Authentication = "authentication"
	RBAC           = "rbac"
	Preview        = "preview"
	Outcomes       = "outcomes"
	Concurrency    = "concurrency"
)

// reinstall is the command that restores resources of the stack.
const reinstall = "kops-spot install"

// checker is the state of one check.
type checker struct {
	Checks
	name       string            // of the function
	parameters map[string]string // of the stack, or the template's defaults if there is no stack
	function   *awsadmin.Function
	findings   change.Findings
	self       *app.SelfCheck
}

func (c *checker) ok(link, format string, args ...any) { c.add(change.OK, link, "", format, args) }

func (c *checker) warn(link, advice, format string, args ...any) {
	c.add(change.Warn, link, advice, format, args)
}

func (c *checker) fail(link, advice, format string, args ...any) {
	c.add(change.Fail, link, advice, format, args)
}

func (c *checker) add(level change.Level, link, advice, format string, args []any) {
	c.findings = append(c.findings,
		change.Finding{Level: level, Name: link, Detail: fmt.Sprintf(format, args...), Advice: advice})
}

// pass reports that a link is fine, unless there is a finding about it.
func (c *checker) pass(link, format string, args ...any) {
	if !slices.ContainsFunc(c.findings, func(f change.Finding) bool { return f.Name == link }) {
		c.ok(link, format, args...)
	}
}

// skipped reports a link that cannot be checked before another one is fixed.
func (c *checker) skipped(link, needs string) { c.warn(link, "", "skipped: needs %s", needs) }

// Check checks every link. It returns an error, with the findings so far, if a link cannot be checked.
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
	for _, check := range []func(context.Context) error{now.checkRules, now.checkFunction, now.checkInside, now.preview,
		now.outcomes, now.concurrency} {
		if err := check(ctx); err != nil {
			return now.findings, err
		}
	}
	return now.findings, nil
}

// checkRules checks the rules and their states, targets and permissions. The advice restores the template's resources
// with the AWS CLI, because CloudFormation does not notice when somebody changes them.
func (c *checker) checkRules(ctx context.Context) error {
	var policy string
	var policyErr error
	if c.function != nil {
		policy, policyErr = c.AWS.FunctionPolicy(ctx, c.name)
	}
	var disabled []string
	function, region := c.Values.FunctionARN(), c.Values.Region
	for _, e := range c.Template.Events {
		name, state := iam.RuleName(c.Values.Cluster, e.Name), "ENABLED"
		if c.parameters[e.Switch] == "DISABLED" {
			state = "DISABLED"
		}
		rule, err := c.AWS.Rule(ctx, name)
		switch {
		case err != nil:
			return err
		case rule == nil && state == "ENABLED":
			c.fail(Rule, "create it with "+reinstall, "rule %s does not exist", name)
			continue
		case rule == nil:
			continue
		case !e.Schedule && !awsadmin.SameDocument(rule.Pattern, pattern(e)):
			c.fail(Rule, fmt.Sprintf("aws events put-rule --name %s --region %s --state %s --event-pattern '%s'",
				name, region, state, pattern(e)), "the pattern of rule %s differs from the template's: %s", name, rule.Pattern)
		}
		switch {
		case rule.Enabled:
		case state == "ENABLED":
			c.fail(State, "aws events enable-rule --name "+name+" --region "+region, "rule %s is disabled", name)
		default:
			disabled = append(disabled, e.Name)
		}
		if !slices.ContainsFunc(rule.Targets, func(t awsadmin.Target) bool { return t.ARN == function }) {
			c.fail(Target, fmt.Sprintf(`aws events put-targets --rule %s --region %s --targets '[{"Id": "%s", "Arn": "%s", `+
				`"RetryPolicy": {"MaximumEventAgeInSeconds": %d}, "DeadLetterConfig": {"Arn": "%s"}}]'`,
				name, region, e.TargetID, function, e.Age, c.Values.QueueARN("undelivered")),
				"rule %s does not target the function", name)
		}
		if c.function != nil && policyErr == nil && !allows(policy, rule.ARN) {
			c.fail(Permission, "aws lambda add-permission --function-name "+c.name+" --statement-id "+e.Name+
				" --action lambda:InvokeFunction --principal events.amazonaws.com --source-arn "+rule.ARN+" --region "+region,
				"rule %s is not allowed to invoke the function", name)
		}
	}
	c.pass(Rule, "all %d rules exist and match the template", len(c.Template.Events))
	switch {
	case slices.Contains(disabled, "spot-warning"):
		c.warn(State, reinstall+" --set SpotWarningRule=ENABLED",
			"SpotWarningRule is DISABLED: the function receives no Spot interruption warnings")
	case len(disabled) > 0:
		c.pass(State, "enabled, except those disabled by a parameter: %s", strings.Join(disabled, ", "))
	default:
		c.pass(State, "enabled")
	}
	c.pass(Target, "all rules target %s", function)
	switch {
	case c.function == nil:
		c.skipped(Permission, Function)
	case policyErr == nil:
		c.pass(Permission, "all rules are allowed to invoke the function")
	}
	order := []string{Rule, State, Target, Permission}
	slices.SortStableFunc(c.findings, func(a, b change.Finding) int {
		return cmp.Compare(slices.Index(order, a.Name), slices.Index(order, b.Name))
	})
	return policyErr
}

// pattern returns the template's event pattern as JSON.
func pattern(e install.Event) string {
	text, _ := json.Marshal(e.Pattern) // it was parsed from YAML into JSON's types
	return string(text)
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

// checkFunction checks whether the function exists and can run.
func (c *checker) checkFunction(ctx context.Context) error {
	f := c.function
	switch {
	case f == nil:
		c.fail(Function, "create it with "+reinstall, "function %s does not exist", c.name)
	case f.State != "" && f.State != "Active":
		c.fail(Function, "fix the cause above; a function that was idle for weeks becomes active when it is invoked",
			"its state is %s: %s", f.State, f.Reason)
	case f.Update == "Failed":
		c.fail(Function, "fix the cause above, and deploy again", "its last update failed: %s", f.Problem)
	case f.Environment["KOPS_SPOT_CLUSTER"] != c.Values.Cluster:
		c.fail(Function, "deploy it for this cluster with "+reinstall,
			"it is configured for cluster %q", f.Environment["KOPS_SPOT_CLUSTER"])
	case f.Reserved != nil && *f.Reserved == 0:
		c.fail(Function, "aws lambda delete-function-concurrency --function-name "+c.name+" --region "+c.Values.Region,
			"its reserved concurrency is 0, so it is never invoked")
	default:
		if assumable, err := c.checkRole(ctx, f.Role); err != nil || !assumable {
			c.ok(Function, "it exists and is configured for this cluster")
			return err
		}
		return c.selfCheck(ctx)
	}
	c.skipped(Role, Function)
	return nil
}

// checkRole reports whether Lambda can assume the function's role.
func (c *checker) checkRole(ctx context.Context, role string) (bool, error) {
	services, err := c.AWS.Trusted(ctx, role)
	switch {
	case errors.Is(err, awsadmin.ErrNotFound):
		c.fail(Role, "create it with kops-spot onboard, or use the stack's own with "+reinstall+" without FunctionRoleArn",
			"role %s does not exist", role)
	case err != nil:
		return false, err
	case !slices.Contains(services, "lambda.amazonaws.com"):
		c.fail(Role, "trust lambda.amazonaws.com in the role's trust policy, as in iam/trust.json",
			"Lambda cannot assume the role %s", role)
	default:
		return true, nil
	}
	return false, nil
}
