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

// deployment is what install and check --pre are told of the stack.
type deployment struct {
	site
	set       []string
	code      string
	karpenter bool
	refresh   bool

	export string // install's only
	pre    bool   // check's only
}

func (d *deployment) flags(f *pflag.FlagSet) {
	d.site.flags(f)
	f.StringArrayVar(&d.set, "set", nil, "a parameter of the stack, as `NAME=VALUE`; may be given several times: docs/stack.md lists them")
	f.StringVar(&d.code, "code", "", "the `file` with the function's code, a zip as make dist makes it; else the one that this program carries")
	f.BoolVar(&d.refresh, "refresh", false, "take endpoint, certificates and log-in as they are found now, where the stack has others")
	f.BoolVar(&d.karpenter, "karpenter", false, "let the function delete Karpenter's NodeClaims: deploy/rbac-karpenter.yaml too")
}

func installCommand(c *console) *cobra.Command {
	var o deployment
	cmd := &cobra.Command{
		Use:   "install",
		Short: "deploys the function into the cluster's account, and checks it",
		Long: "install finds out how the function can reach the cluster, lets it in, and has CloudFormation make the function and all\n" +
			"that belongs to it: the same template that sam deploy takes. It shows what it would change and asks; what is as it\n" +
			"should be already, it leaves. Broken off, it is run again. In the end it checks every link of the chain.\n\n" +
			"A stack keeps the parameters that it has been given, until --set or --refresh gives it others",
		Example: "  kops-spot install --set Mode=observe\n" +
			"  kops-spot install --set NotifyEmail=people@example.com --yes",
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.install(cmd.Context(), o) },
	}
	o.flags(cmd.Flags())
	c.yesFlag(cmd.Flags())
	exportFlag(cmd.Flags(), &o.export)
	return cmd
}

// deploying is a deployment under way.
type deploying struct {
	session
	runner *install.Deployment
	letIn  *onboard.Onboarding
	role   string // the function's, by name
	noCode error  // why there is no code to deploy

	before map[string]string // the stack's parameters; nil if there is none
	found  install.Discovery

	access onboard.Plan
	how    onboard.FunctionLogin
	stack  install.Plan
}

// prepare finds out all that a deployment needs to know, and changes nothing.
func (c *console) prepare(ctx context.Context, d deployment) (*deploying, error) {
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return nil, err
	}
	given, err := install.ParseSet(template, d.set)
	if err != nil {
		return nil, err
	}
	at, err := c.stand(ctx, d.site)
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
	on.runner.Spec.Code, on.noCode = d.theCode(architecture)
	return on, on.letFunctionIn(ctx)
}

// listOf is a parameter that is a list.
func listOf(value string) []string {
	return slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == "" })
}

// chooseRole is the role that the function runs with: what was said, what the stack has, what onboarding has made, or one that
// the stack makes.
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

// letFunctionIn plans what the cluster and the secret need for the function to log in. Where somebody has said how it logs in,
// that is theirs to see to.
func (on *deploying) letFunctionIn(ctx context.Context) (err error) {
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
	// Other secrets, such as CAST AI's key, stay beside the log-in's.
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

// theCode is what Lambda is to run.
func (d deployment) theCode(architecture string) ([]byte, error) {
	code := deploy.Code(architecture)
	if d.code != "" {
		var err error
		if code, err = os.ReadFile(d.code); err != nil {
			return nil, fmt.Errorf("reading the function's code: %w", err)
		}
	}
	if len(code) == 0 {
		return nil, fmt.Errorf("this program was built without the function's code for %s: make cli builds one that carries it, "+
			"and --code takes it from a file that make dist makes", architecture)
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
	if !on.how.Settled { // AWS makes up the end of the secret's ARN when it makes the secret
		on.runner.ResolvePending = on.letFunctionIn
	}
	if on.stack, err = on.runner.Plan(ctx); err != nil {
		return err
	}
	if err := c.showFound(on); err != nil {
		return errors.Join(err, on.forget(context.WithoutCancel(ctx)))
	}
	told, err := c.carryOut(ctx, on.env, proposal{question: "change this?",
		plan:  slices.Concat(on.access.Changes, on.stack.Changes),
		apply: on.apply, forget: on.forget,
		check: func(ctx context.Context, _ bool) (change.Findings, error) {
			return on.chain(on.runner.Template).Check(ctx)
		}})
	if err != nil {
		return err
	}
	mode := "it acts on the next warning"
	if on.stack.Parameters["Mode"] == "observe" {
		mode = "it observes, and changes nothing until --set Mode=act"
	}
	return c.conclude(told, told.Findings, install.StackName(told.Cluster)+" is installed: "+mode, errUnfinished)
}

// showFound tells what was found out.
func (c *console) showFound(on *deploying) error {
	c.sayWhere(on.env)
	if err := term.Findings(c.stderr, on.found.Findings, options(c.environ, c.stderr)); err != nil {
		return err
	}
	for _, name := range on.stack.KeptParameters {
		c.say(term.Mind, "%s stays as the stack has it, and something else was found now: --refresh takes that, --set %s=VALUE what you say", name, name)
	}
	return nil
}

// forget takes back what was proposed to CloudFormation.
func (on *deploying) forget(ctx context.Context) error { return on.runner.Discard(ctx, on.stack) }

// apply lets the function in first: it could do nothing before that.
func (on *deploying) apply(ctx context.Context) error {
	if err := on.letIn.Apply(ctx, on.access); err != nil {
		return errors.Join(err, on.forget(context.WithoutCancel(ctx)))
	}
	return on.runner.Apply(ctx, on.stack)
}

func (at session) chain(template *install.Template) check.Checks {
	ch := check.Checks{AWS: at.account, Template: template, Values: at.env.Values, Instances: at.instances}
	// Of those that have a node, a Spot instance before others.
	all := slices.DeleteFunc(slices.Clone(at.instances), func(i awsadmin.Instance) bool {
		return i.Ended || !slices.ContainsFunc(at.nodes, func(m onboard.NodeInstance) bool { return m.ID == i.ID })
	})
	if len(all) > 0 {
		rank := func(i awsadmin.Instance) string { return strconv.FormatBool(!i.Spot) + i.ID }
		ch.Node = slices.MinFunc(all, func(a, b awsadmin.Instance) int { return cmp.Compare(rank(a), rank(b)) }).ID
	}
	return ch
}

// sayStep tells of a step of CloudFormation's that is over.
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
