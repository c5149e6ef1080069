package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/check"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// deployment holds the flags of install and check --pre.
type deployment struct {
	awsFlags
	set       []string
	code      string
	karpenter bool
	refresh   bool

	export string // install's only
	pre    bool   // check's only
}

func (d *deployment) register(f *pflag.FlagSet) {
	d.awsFlags.register(f)
	f.StringArrayVar(&d.set, "set", nil, "Set a stack parameter as `NAME=VALUE` (repeatable); docs/stack.md lists the parameters")
	f.StringVar(&d.code, "code", "", "The zip `file` with the function's code, as built by make dist (default: the embedded one)")
	f.BoolVar(&d.refresh, "refresh", false, "Replace the stack's endpoint, certificates and authentication with the discovered ones")
	f.BoolVar(&d.karpenter, "karpenter", false, "Allow the function to delete Karpenter NodeClaims (deploy/rbac-karpenter.yaml)")
}

func installCommand(c *console) *cobra.Command {
	var o deployment
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Deploy the function to the cluster's account and check it",
		Long: "Discover how the function can reach the cluster, grant it access, and deploy it with CloudFormation, using the same\n" +
			"template as sam deploy. The plan is shown before you confirm it. Existing resources are left unchanged. Safe to run\n" +
			"again after an interruption. At the end, every link is checked.\n\n" +
			"A stack keeps its parameters until you change them with --set or --refresh.",
		Example: "  kops-spot install --set Mode=observe\n" +
			"  kops-spot install --set NotifyEmail=people@example.com --yes",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.install(cmd.Context(), o) },
	}
	o.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	exportFlag(cmd.Flags(), &o.export)
	return cmd
}

// deploying is the state of one deployment.
type deploying struct {
	session
	runner *install.Deployment
	letIn  *onboard.Onboarding
	role   string // the function's, by name
	noCode error  // why there is no code; nil if there is

	before map[string]string // the stack's parameters; nil if there is none
	found  install.Discovery

	access onboard.Plan
	how    onboard.FunctionLogin
	stack  install.Plan
}

// prepare discovers all that a deployment needs. It changes nothing.
func (c *console) prepare(ctx context.Context, d deployment) (*deploying, error) {
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return nil, err
	}
	given, err := install.ParseSet(template, d.set)
	if err != nil {
		return nil, err
	}
	at, err := c.openSession(ctx, d.awsFlags)
	if err != nil {
		return nil, err
	}
	g := at.env
	on := &deploying{session: at,
		letIn: &onboard.Onboarding{AWS: at.account, Cluster: at.cluster, Spec: onboard.Spec{Environment: g, Permissions: onboard.Least, Karpenter: d.karpenter}},
		runner: &install.Deployment{AWS: at.account, Template: template, Say: c.sayStep,
			Spec: install.Spec{Values: g.Values, Overrides: given, Refresh: d.refresh}}}
	if on.found, err = install.Discover(ctx, install.Site{Cluster: at.cluster, Login: at.login, AWS: at.account, Name: g.Cluster, VPC: g.VPC, Store: install.Store(at.store)}); err != nil {
		return nil, err
	}
	on.runner.Spec.Discovered = on.found.Parameters
	if on.before, err = on.runner.Parameters(ctx); err != nil {
		return nil, err
	}
	if err := onboard.CheckVPC(ctx, at.account, g, listOf(given["SubnetIds"]), listOf(given["SecurityGroupIds"])); err != nil {
		return nil, err
	}
	if err := on.chooseRole(ctx); err != nil {
		return nil, err
	}
	architecture := cmp.Or(given["Architecture"], on.before["Architecture"], *template.Defaults["Architecture"])
	on.runner.Spec.Code, on.noCode = d.functionZip(architecture)
	return on, on.planClusterAccess(ctx)
}

// listOf splits the value of a list parameter.
func listOf(value string) []string {
	return slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == "" })
}

// chooseRole sets the function's role: the one from --set, else the stack's, else the one that onboard created, else one
// that the stack creates.
func (on *deploying) chooseRole(ctx context.Context) error {
	said := map[string]string{}
	maps.Copy(said, on.before)
	maps.Copy(said, on.runner.Spec.Overrides)
	if on.before != nil || said["FunctionRoleArn"] != "" || said["FunctionRoleName"] != "" {
		on.role = install.RoleOf(said)
		return nil
	}
	name, made, err := onboard.FunctionRole(ctx, on.account, on.env.Cluster)
	if err != nil {
		return err
	}
	on.role = name
	v := on.env.Values
	v.FunctionRole = name
	if made {
		on.runner.Spec.Discovered["FunctionRoleArn"] = v.FunctionRoleARN()
	} else {
		on.runner.Spec.Discovered["FunctionRoleName"] = name
	}
	return nil
}

// planClusterAccess plans the changes that let the function authenticate to the cluster. If the user has set Login, only
// RBAC is planned.
func (on *deploying) planClusterAccess(ctx context.Context) (err error) {
	w := &on.runner.Spec
	own := onboard.TokenSecret(on.env.Cluster)
	said, given := w.Overrides["Login"]
	if !given && !w.Refresh {
		said = on.before["Login"]
	}
	if said != "" && said != "iam" && !strings.HasPrefix(said, "iam:") && said != "secretsmanager:"+own {
		on.how = onboard.FunctionLogin{Login: said, Settled: true}
		on.access, err = on.letIn.PlanRBAC(ctx)
		return err
	}
	if on.access, on.how, err = on.letIn.PlanAccess(ctx, on.role); err != nil {
		return err
	}
	w.Discovered["Login"] = on.how.Login
	delete(w.Discovered, "SecretArns")
	arn := on.how.SecretARN
	if arn == "" {
		return nil
	}
	// Keep other secrets, such as the CAST AI key.
	with := func(others string) string {
		list := slices.DeleteFunc(listOf(others), func(s string) bool { return strings.Contains(s, ":secret:"+own+"-") })
		return strings.Join(append(list, arn), ",")
	}
	w.Discovered["SecretArns"] = with(on.before["SecretArns"])
	if others := w.Overrides["SecretArns"]; others != "" && !given {
		w.Overrides["SecretArns"] = with(others)
	}
	return nil
}

// functionZip returns the zip that Lambda runs.
func (d deployment) functionZip(architecture string) ([]byte, error) {
	code := deploy.Code(architecture)
	if d.code != "" {
		var err error
		if code, err = os.ReadFile(d.code); err != nil {
			return nil, fmt.Errorf("reading the function's code: %w", err)
		}
	}
	if len(code) == 0 {
		return nil, fmt.Errorf("this binary does not contain the function's code for %s: build one that does with make cli, "+
			"or set --code to a zip built by make dist", architecture)
	}
	return code, install.CheckCode(code, architecture)
}

func (c *console) install(ctx context.Context, o deployment) error {
	on, err := c.prepare(ctx, o)
	if err == nil {
		err = on.noCode
	}
	if err != nil {
		return err
	}
	if o.export != "" {
		files, err := on.runner.Export()
		if err != nil {
			return err
		}
		maps.Copy(files, on.access.Files)
		unmade := ""
		if !on.how.Settled {
			unmade = onboard.TokenSecret(on.env.Cluster)
		}
		return c.export(o.export, files, unmade)
	}
	if !on.how.Settled { // AWS chooses the end of the secret's ARN
		on.runner.ResolvePending = on.planClusterAccess
	}
	if on.stack, err = on.runner.Plan(ctx); err != nil {
		return err
	}
	if err := c.printDiscovery(on); err != nil {
		return errors.Join(err, on.discard(context.WithoutCancel(ctx)))
	}
	result, err := c.planAndApply(ctx, on.env, proposal{question: "Apply these changes?",
		plan:  slices.Concat(on.access.Changes, on.stack.Changes),
		apply: on.apply, discard: on.discard,
		check: func(ctx context.Context, _ bool) (change.Findings, error) {
			return on.chain(on.runner.Template).Check(ctx)
		}})
	if err != nil {
		return err
	}
	mode := "it handles the next interruption"
	if on.stack.Parameters["Mode"] == "observe" {
		mode = "it observes and changes nothing until you set --set Mode=act"
	}
	return c.conclude(result, result.Findings, install.StackName(result.Cluster)+" is installed: "+mode, errUnfinished)
}

// printDiscovery prints what was discovered.
func (c *console) printDiscovery(on *deploying) error {
	c.printTarget(on.env)
	if err := term.Findings(c.stderr, on.found.Findings, options(c.environ, c.stderr)); err != nil {
		return err
	}
	for _, name := range on.stack.KeptParameters {
		c.say(term.Mind, "%s keeps the stack's value, which differs from the discovered one: --refresh uses the discovered one, --set %s=VALUE yours", name, name)
	}
	return nil
}

// forget takes back what was proposed to CloudFormation.
func (on *deploying) discard(ctx context.Context) error { return on.runner.Discard(ctx, on.stack) }

// apply grants access to the cluster first: the function needs it from its first invocation.
func (on *deploying) apply(ctx context.Context) error {
	if err := on.letIn.Apply(ctx, on.access); err != nil {
		return errors.Join(err, on.discard(context.WithoutCancel(ctx)))
	}
	return on.runner.Apply(ctx, on.stack)
}

func (at session) chain(template *install.Template) check.Checks {
	ch := check.Checks{AWS: at.account, Template: template, Values: at.env.Values, Instances: at.instances}
	// Of the instances with a node, prefer a Spot instance.
	all := slices.DeleteFunc(slices.Clone(at.instances), func(i awsadmin.Instance) bool {
		return i.Ended || !slices.ContainsFunc(at.nodes, func(m onboard.NodeInstance) bool { return m.ID == i.ID })
	})
	if len(all) > 0 {
		rank := func(i awsadmin.Instance) string { return strconv.FormatBool(!i.Spot) + i.ID }
		ch.Node = slices.MinFunc(all, func(a, b awsadmin.Instance) int { return cmp.Compare(rank(a), rank(b)) }).ID
	}
	return ch
}

// sayStep prints a stack event of a resource that CloudFormation has finished.
func (c *console) sayStep(e awsadmin.StackEvent) {
	if !e.Ended() {
		return
	}
	m := term.Good
	what := strings.ToLower(strings.ReplaceAll(e.Status, "_", " "))
	if strings.HasSuffix(e.Status, "_FAILED") {
		m = term.Bad
		what += ": " + e.Reason
	}
	c.say(m, "%s  %s", e.LogicalID, what)
}
