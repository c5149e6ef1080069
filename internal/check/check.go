// Package check tests every link between an event and a drained node: rule, state, target, permission, function, role,
// network, authentication, RBAC, and the plan for a test event. It changes nothing.
package check

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/spot"
)

// Checks are the checks of one cluster's installation.
type Checks struct {
	install.Site // Cluster is nil to skip what needs it; Given is not used

	Template *install.Template
	Values   iam.Values
	Code     []byte // the zip that the function must run; empty for any

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
	CASTAI         = "castai" // only if it is configured
	Preview        = "preview"
	Failures       = "failures"
	Concurrency    = "concurrency"
	Hooks          = install.HooksFinding // only if a group has some
)

const (
	reinstall = "kops-spot install" // restores resources of the stack
)

// checker is the state of one check.
type checker struct {
	Checks
	name       string            // of the function
	parameters map[string]string // of the stack
	function   *awsadmin.Function
	findings   change.Findings
	self       *app.SelfCheck
	lifecycle  bool // the function receives lifecycle actions
}

func (c *checker) add(level change.Level, link, advice, format string, args ...any) {
	c.findings = append(c.findings,
		change.Finding{Level: level, Name: link, Detail: fmt.Sprintf(format, args...), Advice: advice})
}

func (c *checker) fail(link, advice, format string, args ...any) {
	c.add(change.Fail, link, advice, format, args...)
}

// pass reports that a link is fine, unless there is a finding about it.
func (c *checker) pass(link, format string, args ...any) {
	if !slices.ContainsFunc(c.findings, func(f change.Finding) bool { return f.Name == link }) {
		c.add(change.OK, link, "", format, args...)
	}
}

// skipped reports a link that cannot be checked before another one is fixed.
func (c *checker) skipped(link, needs string) {
	c.add(change.Warn, link, "", "skipped: needs %s", needs)
}

// Check checks every link. It returns an error, with the findings so far, if a link cannot be checked.
func (c Checks) Check(ctx context.Context) (change.Findings, error) {
	now := &checker{Checks: c, name: iam.FunctionName(c.Values.Cluster)}
	stack, err := c.AWS.Stack(ctx, now.name)
	if err != nil {
		return nil, err
	}
	if stack != nil {
		now.parameters = stack.Parameters
	}
	if now.function, err = c.AWS.Function(ctx, now.name); err != nil {
		return nil, err
	}
	for _, check := range []func(context.Context) error{now.checkRules, now.checkFunction, now.checkInside, now.preview,
		now.failures, now.shutdown, now.concurrency, now.hooks} {
		if err := check(ctx); err != nil {
			return now.findings, err
		}
	}
	return now.findings, nil
}

// checkRules checks the rules and their states, targets and permissions. The advice restores the template's resources
// with the AWS CLI, because CloudFormation does not notice when somebody changes them.
func (c *checker) checkRules(ctx context.Context) error {
	policy, policyErr := "", error(nil)
	if c.function != nil {
		policy, policyErr = c.AWS.FunctionPolicy(ctx, c.name)
	}
	var off []string
	for _, e := range c.Template.Events {
		rule, err := c.AWS.Rule(ctx, iam.RuleName(c.Values.Cluster, e.Name))
		if err != nil {
			return err
		}
		if c.checkRule(e, rule) {
			off = append(off, e.Name)
		}
		if rule != nil && c.function != nil && policyErr == nil && !allows(policy, rule.ARN) {
			c.fail(Permission, "aws lambda add-permission --function-name "+c.name+" --statement-id "+e.Name+
				" --action lambda:InvokeFunction --principal events.amazonaws.com --source-arn "+rule.ARN+" --region "+
				c.Values.Region, "rule %s is not allowed to invoke the function", rule.Name)
		}
	}
	c.checkInvokers(policy)
	c.pass(Rule, "all %d rules exist and match the template", len(c.Template.Events))
	switch {
	case len(off) > 0:
		c.pass(State, "enabled, except for events that the settings ignore: %s", strings.Join(off, ", "))
	default:
		c.pass(State, "enabled")
	}
	c.pass(Target, "all rules target %s", c.Values.FunctionARN())
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

// checkRule checks one rule, which is nil if it does not exist. It reports whether the template disables it.
func (c *checker) checkRule(e install.Event, rule *awsadmin.Rule) (off bool) {
	name, enabled := iam.RuleName(c.Values.Cluster, e.Name), c.Template.Enabled(e, c.parameters)
	state := map[bool]string{true: "ENABLED", false: "DISABLED"}[enabled]
	function, region := c.Values.FunctionARN(), c.Values.Region
	if rule == nil {
		if enabled {
			c.fail(Rule, "create it with "+reinstall, "rule %s does not exist", name)
		}
		return false
	}
	if !e.Schedule && !awsadmin.SameDocument(rule.Pattern, pattern(e)) {
		c.fail(Rule, change.Command("aws", "events", "put-rule", "--name", name, "--region", region,
			"--state", state, "--event-pattern", pattern(e)),
			"the pattern of rule %s differs from the template's: %s", name, rule.Pattern)
	}
	if !rule.Enabled && enabled {
		c.fail(State, "aws events enable-rule --name "+name+" --region "+region, "rule %s is disabled", name)
	}
	targeted := slices.ContainsFunc(rule.Targets, func(t awsadmin.Target) bool { return t.ARN == function })
	if !targeted {
		c.fail(Target, change.Command("aws", "events", "put-targets", "--rule", name, "--region", region, "--targets",
			fmt.Sprintf(`[{"Id": "%s", "Arn": "%s", "RetryPolicy": {"MaximumEventAgeInSeconds": %d}, `+
				`"DeadLetterConfig": {"Arn": "%s"}}]`, e.TargetID, function, e.Age, c.Values.QueueARN("undelivered"))),
			"rule %s does not target the function", name)
	}
	if e.Name == "lifecycle" {
		c.lifecycle = rule.Enabled && targeted && c.function != nil
	}
	return !rule.Enabled && !enabled
}

// pattern returns the template's event pattern as JSON.
func pattern(e install.Event) string {
	text, _ := json.Marshal(e.Pattern) // it was parsed from YAML into JSON's types
	return string(text)
}

// permission is a statement of a function's policy that allows somebody to invoke it.
type permission struct {
	Sid    string
	who    string
	rule   string // the ARN of the rule for which EventBridge may; empty for any
	events bool   // who is EventBridge
}

// permissions parses a function's policy.
func permissions(policy string) (all []permission) {
	var document struct {
		Statement []struct {
			Sid, Effect string
			Action      any
			Principal   any
			Condition   map[string]map[string]string
		}
	}
	if json.Unmarshal([]byte(policy), &document) != nil {
		return nil
	}
	for _, s := range document.Statement {
		action, _ := s.Action.(string)
		if s.Effect != "Allow" || !slices.Contains([]string{"lambda:InvokeFunction", "lambda:*", "*"}, action) {
			continue
		}
		who, _ := json.Marshal(s.Principal) // it was parsed
		p := permission{Sid: s.Sid, who: string(who), events: string(who) == `{"Service":"events.amazonaws.com"}`}
		for _, values := range s.Condition {
			for key, value := range values {
				if strings.EqualFold(key, "AWS:SourceArn") {
					p.rule = value
				} else if p.rule == "" {
					p.rule = "unknown"
				}
			}
		}
		all = append(all, p)
	}
	return all
}

// allows reports whether a function's policy lets EventBridge invoke it for a rule.
func allows(policy, rule string) bool {
	return slices.ContainsFunc(permissions(policy), func(p permission) bool {
		return p.events && (p.rule == "" || p.rule == rule)
	})
}

// checkInvokers warns about everybody but the cluster's rules who may invoke the function: it believes a forged event.
func (c *checker) checkInvokers(policy string) {
	for _, p := range permissions(policy) {
		if !p.events || !strings.Contains(p.rule, ":rule/"+iam.RuleName(c.Values.Cluster, "")) {
			c.add(change.Warn, Permission, "unless you need it: "+change.Command("aws", "lambda", "remove-permission",
				"--function-name", c.name, "--statement-id", p.Sid, "--region", c.Values.Region),
				"the statement %s lets %s invoke the function, with forged events too", p.Sid, p.who)
		}
	}
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
	case len(c.Code) > 0 && f.CodeSHA256 != codeSHA256(c.Code):
		c.fail(Function, "find out who can write to the bucket of the code, delete the object there, and deploy it again "+
			"with "+reinstall, "it does not run the code that was uploaded: somebody has replaced it")
	case f.Reserved != nil && *f.Reserved == 0:
		c.fail(Function, "aws lambda delete-function-concurrency --function-name "+c.name+" --region "+c.Values.Region,
			"its reserved concurrency is 0, so it is never invoked")
	default:
		return c.checkRole(ctx, f.Role)
	}
	c.skipped(Role, Function)
	return nil
}

// codeSHA256 returns the hash of the code as Lambda does.
func codeSHA256(code []byte) string {
	sum := sha256.Sum256(code)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// checkRole checks whether Lambda can assume the function's role. If so, the function can check itself.
func (c *checker) checkRole(ctx context.Context, role string) error {
	services, err := c.AWS.Trusted(ctx, role)
	switch {
	case errors.Is(err, awsadmin.ErrNotFound):
		c.fail(Role, "create it with kops-spot onboard, or let the stack create one: set FunctionRole to a name with "+reinstall,
			"role %s does not exist", role)
	case err == nil && slices.Contains(services, "lambda.amazonaws.com"):
		return c.selfCheck(ctx)
	case err == nil:
		c.fail(Role, "trust lambda.amazonaws.com in the role's trust policy, as in iam/trust.json",
			"Lambda cannot assume the role %s", role)
	default:
		return err
	}
	c.pass(Function, "it exists and is configured for this cluster")
	return nil
}

// selfCheck lets the function check what only it can see.
func (c *checker) selfCheck(ctx context.Context) error {
	event, err := eventbridge.EncodeSelfCheck(eventbridge.SyntheticEventID, c.Values.Account, c.Values.Region, time.Now())
	if err != nil {
		return err
	}
	var result app.SelfCheck
	if ok, err := c.invoke(ctx, Function, event, &result); !ok {
		return err
	}
	if result.Result == "" {
		c.fail(Function, "deploy it again with "+reinstall,
			"it does not support the self-check: it is another program or an old version")
		return nil
	}
	c.self = &result
	c.pass(Function, "running: version %s, mode %s, %s", cmp.Or(result.Program, "unknown"),
		cmp.Or(c.function.Environment["KOPS_SPOT_MODE"], "unknown"), c.function.Architecture)
	return nil
}

// invoke decodes the function's response to an event. If the function fails or Lambda cannot invoke it, for example
// because of its role, network or concurrency, invoke reports a failure of the link and returns false.
func (c *checker) invoke(ctx context.Context, link string, event []byte, result any) (ok bool, err error) {
	response, failed, err := c.AWS.Invoke(ctx, c.name, event)
	switch {
	case err != nil && ctx.Err() != nil:
		return false, err
	case err != nil:
		c.fail(link, "if the error is about your own permissions, allow lambda:InvokeFunction; otherwise, check the "+
			"function's role, subnets and concurrency", "%v", err)
	case failed:
		var why struct{ ErrorMessage string }
		_ = json.Unmarshal(response, &why) // without JSON, there is no message
		c.fail(link, "see its log: aws logs tail "+iam.LogGroup(c.Values.Cluster)+" --since 10m --region "+c.Values.Region,
			"it fails: %s", why.ErrorMessage)
	case json.Unmarshal(response, result) != nil:
		c.fail(link, "deploy it again with "+reinstall, "its response is unknown: it is another program or another version")
	default:
		return true, nil
	}
	return false, nil
}

// linkOf returns the link that a check of the function is about; empty if none.
func linkOf(check string) string {
	switch {
	case check == "aws":
		return Role
	case check == "network":
		return Network
	case strings.HasPrefix(check, CASTAI):
		return CASTAI
	case slices.Contains([]string{"authentication", "token", "ca"}, check):
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
		{CASTAI, "CAST AI's API accepts the key"},
	} {
		isCASTAI := func(check app.Check) bool { return linkOf(check.Name) == CASTAI }
		if l.name == CASTAI && (c.self == nil || !slices.ContainsFunc(c.self.Checks, isCASTAI)) {
			continue
		}
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
		c.add(change.Warn, Preview, "", "skipped: no instance of the cluster has a node")
		return nil
	case c.function.Environment["KOPS_SPOT_REHEARSALS"] == "act" && c.function.Environment["KOPS_SPOT_MODE"] != "observe":
		c.add(change.Warn, Preview, "use kops-spot rehearse NODE",
			"skipped: with Rehearsals=act, the function would drain the node")
		return nil
	}
	event, err := eventbridge.Encode(spot.Interruption{Kind: spot.SpotTerminate, Instance: c.Node, Region: c.Values.Region,
		Rehearsal: true, EventID: eventbridge.SyntheticEventID, Time: time.Now()})
	if err != nil {
		return err
	}
	var out spot.Outcome
	if ok, err := c.invoke(ctx, Preview, event, &out); !ok {
		return err
	}
	if out.Result != spot.Planned {
		c.fail(Preview, "kops-spot explain "+c.Node+" shows the plan and its reasons",
			"a test warning for %s: %s: %s", c.Node, out.Result, out.Reason)
	}
	plan := cmp.Or(out.Plan, &spot.PlanResult{})
	c.pass(Preview, "a test warning for %s would drain node %s with %d pods", c.Node, out.Node, len(plan.Pods))
	return nil
}

// failures checks whether events that could not be handled have a destination.
func (c *checker) failures(ctx context.Context) error {
	if c.function == nil {
		c.skipped(Failures, Function)
		return nil
	}
	switch to, err := c.AWS.FailureDestination(ctx, c.name); {
	case err != nil:
		return err
	case to == "":
		c.add(change.Warn, Failures, "the template sets it; aws lambda get-function-event-invoke-config --function-name "+
			c.name+" shows the current one", "events that cannot be handled have no destination: they are only in the log")
	default:
		c.pass(Failures, "sent to %s", to)
	}
	return nil
}

// shutdown checks that the kubelets give pods the time that the function relies on.
func (c *checker) shutdown(ctx context.Context) error {
	if c.function == nil {
		return nil
	}
	c.Site.Given = map[string]string{"ShutdownGrace": c.function.Environment["KOPS_SPOT_SHUTDOWN_GRACE"]}
	found, err := install.CheckShutdown(ctx, c.Site)
	c.findings = append(c.findings, found...)
	return err
}

// CheckConcurrency checks the account's concurrency before the function exists.
func (c Checks) CheckConcurrency(ctx context.Context) (change.Findings, error) {
	now := &checker{Checks: c}
	err := now.concurrency(ctx)
	return now.findings, err
}

// leastUnreserved is how much of an account's concurrency Lambda keeps unreserved.
const leastUnreserved = 100

// concurrency compares the concurrency limit with the number of Spot instances, which EC2 can reclaim all at once. The
// unreserved concurrency is shared by the functions of all clusters.
func (c *checker) concurrency(ctx context.Context) error {
	instances, of := c.Instances, "the cluster"
	limit, what := 0, "reserved concurrency of the function"
	raise := "request more: aws service-quotas request-service-quota-increase --service-code lambda --quota-code " +
		"L-B99A9384 --region " + c.Values.Region + " --desired-value …"
	var err error
	reserved := c.function != nil && c.function.Reserved != nil
	if reserved {
		limit = *c.function.Reserved
	} else {
		of, what = "all kOps clusters in the region", "unreserved concurrency of the account"
		if limit, err = c.AWS.Concurrency(ctx); err == nil {
			instances, err = c.AWS.Tagged(ctx, spot.TagCluster, "*")
		}
	}
	spots := 0
	for _, i := range instances {
		if i.Spot && !i.Ended {
			spots++
		}
	}
	if reserved && limit < spots {
		if rest, err := c.AWS.Concurrency(ctx); err == nil && rest-(spots-limit) >= leastUnreserved {
			raise = fmt.Sprintf("%s --set ReservedConcurrency=%d", reinstall, spots)
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case err != nil:
		c.add(change.Warn, Concurrency, "", "could not check: %v", err)
	case limit < spots:
		c.add(change.Warn, Concurrency, raise, "%s: %d, less than the %d Spot instances of %s: if EC2 reclaims more than %d "+
			"at once, Lambda delays the other warnings, and their nodes may not be drained in time", what, limit, spots, of, limit)
	default:
		c.pass(Concurrency, "%s: %d, for %d Spot instances of %s", what, limit, spots, of)
	}
	return nil
}

// hooks checks who completes the lifecycle hooks of the cluster's groups, and whether groups risk a lack of capacity.
func (c *checker) hooks(ctx context.Context) error {
	if c.Cluster == nil {
		return nil
	}
	all := install.FindHooks(ctx, c.AWS, c.Cluster, c.Values.Cluster, c.parameters["Hooks"],
		c.lifecycle && c.function.Environment["KOPS_SPOT_MODE"] != "observe")
	c.findings = append(c.findings, all.Findings()...)
	c.findings = append(c.findings, install.CapacityRisks(all.Groups, c.Instances)...)
	return ctx.Err()
}
