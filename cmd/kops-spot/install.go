package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// stackFlags are the flags of every command that concerns the function's stack or its role.
type stackFlags struct {
	awsFlags
	set       []string
	tags      map[string]string
	karpenter bool
}

func (o *stackFlags) register(f *pflag.FlagSet) {
	o.awsFlags.register(f)
	o.registerState(f)
	f.StringArrayVar(&o.set, "set", nil,
		"Set a stack parameter as `NAME=VALUE` (repeatable); docs/stack.md lists the parameters")
	f.StringToStringVar(&o.tags, "tag", nil, "Add the tag `KEY=VALUE` to what is created (repeatable)")
	f.Lookup("tag").DefValue = "" // not shown
	f.BoolVar(&o.karpenter, "karpenter", false,
		"Allow the function to delete Karpenter NodeClaims (deploy/rbac-karpenter.yaml)")
}

// parse returns the parameters of --set.
func (o *stackFlags) parse(t *install.Template) (map[string]string, error) {
	for key := range o.tags {
		if slices.ContainsFunc([]string{"aws:", "cast:", "cast-"}, func(prefix string) bool {
			return strings.HasPrefix(strings.ToLower(key), prefix)
		}) {
			return nil, fmt.Errorf("--tag %s: use a key without the prefixes aws:, cast: and cast-, which are reserved", key)
		}
	}
	return install.ParseSet(t, o.set)
}

// installOptions are the flags of install, grant and check --pre.
type installOptions struct {
	stackFlags
	refresh bool
	code    string // not grant

	// install only
	onboardFlags
	onboard  bool
	takeOver bool // of kOps' node termination handler
	export   string
}

// registerAccess registers the flags of install that grant has, too.
func (o *installOptions) registerAccess(f *pflag.FlagSet) {
	o.stackFlags.register(f)
	f.BoolVar(&o.refresh, "refresh", false,
		"Replace the stack's endpoint, certificates and authentication with the discovered ones")
}

func (o *installOptions) register(f *pflag.FlagSet) {
	o.registerAccess(f)
	f.StringVar(&o.code, "code", "",
		"The zip `file` with the function's code, of a release or make dist (default: the embedded one)")
}

func installCommand(c *console) *cobra.Command {
	var o installOptions
	var conditions func() error
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Deploy the function to the cluster's account and check it",
		Long: `Discover how the function can reach the cluster, grant it access, and deploy it with CloudFormation,
using the same template as sam deploy. The plan is shown before you confirm it. Existing resources are left
unchanged. Safe to run again after an interruption. At the end, every link is checked.

With --onboard, the plan includes everything that kops-spot onboard does, with the same role.

A stack keeps its parameters until you change them with --set or --refresh. Secret parameters
(NotifyUrl) are read from a file: --set NotifyUrl=file:PATH.`,
		Example: "  kops-spot install --set Mode=observe\n" +
			"  kops-spot install --onboard\n" +
			"  kops-spot install --set NotifyEmail=people@example.com --yes",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			err = conditions()
			if o.takeOver && o.export != "" {
				err = errors.New("--take-over-nth and --export cannot be used together")
			}
			if err != nil {
				return err
			}
			if err = c.install(cmd.Context(), o); o.onboard {
				err = withPermissionHint(err)
			}
			return err
		},
	}
	o.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	exportFlag(cmd.Flags(), &o.export)
	cmd.Flags().BoolVar(&o.takeOver, "take-over-nth", false, "Replace kOps' node termination handler, which kOps must have "+
		"disabled: create lifecycle hooks for the function, then remove the handler's (docs/migrating-from-nth.md)")
	cmd.Flags().BoolVar(&o.onboard, "onboard", false, "Also do what kops-spot onboard does, in the same plan")
	forOnboarding := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.onboardFlags.register(forOnboarding)
	cmd.Flags().AddFlagSet(forOnboarding)
	var names []string
	forOnboarding.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	conditions = requires(cmd.Flags(), "onboard", names...)
	return cmd
}

// deployment is the state of one deployment.
type deployment struct {
	session
	*install.Deployment
	onboarding *onboard.Onboarding // of the cluster, or for the function's access only
	onboard    bool                // the cluster

	noCode error             // why there is no code; nil if there is
	now    *awsadmin.Stack   // nil if there is none
	before map[string]string // its parameters
	found  change.Findings   // by the discovery

	hooks install.Hooks

	access   onboard.Plan
	stack    install.Plan
	takeOver install.TakeOver
}

// prepare discovers what a deployment needs. It changes nothing.
func (c *console) prepare(ctx context.Context, o installOptions) (*deployment, error) {
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return nil, err
	}
	overrides, err := o.parse(template)
	if err != nil {
		return nil, err
	}
	spec := onboard.Spec{Karpenter: o.karpenter, Tags: o.tags, Set: maps.Clone(overrides)}
	if o.onboard {
		if spec, err = c.onboardSpec(o.stackFlags, o.onboardFlags, overrides); err != nil {
			return nil, err
		}
	}
	if _, given := overrides["Login"]; o.refresh && !given {
		spec.Set["Login"] = "" // not the stack's
	}
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return nil, err
	}
	d := &deployment{session: at, onboard: o.onboard, onboarding: at.onboarding(spec),
		Deployment: &install.Deployment{AWS: at.account, Template: template, Say: c.sayStep, Spec: install.Spec{Tags: o.tags,
			Values: at.env.Values, Overrides: overrides, Refresh: o.refresh}}}
	if d.now, err = d.Stack(ctx); err != nil {
		return nil, err
	}
	if d.now != nil {
		d.before = d.now.Parameters
	}
	given := map[string]string{}
	maps.Copy(given, d.before)
	if o.refresh {
		delete(given, "Server")
	}
	maps.Copy(given, overrides)
	site := at.site(given)
	if o.takeOver {
		if err := site.Store.CheckNTHDisabled(ctx, site); err != nil {
			return nil, err
		}
		if given["Mode"] == "observe" {
			return nil, errors.New("--take-over-nth: with Mode=observe, the function completes no lifecycle action: " +
				"add --set Mode=act")
		}
		overrides["Hooks"] = install.WithOurHook(given["Hooks"])
		given["Hooks"] = overrides["Hooks"]
	}
	found, err := install.Discover(ctx, site)
	if err != nil {
		return nil, err
	}
	d.hooks = install.FindHooks(ctx, at.account, at.objects, at.env.Cluster, given["Hooks"], given["Mode"] != "observe")
	if o.takeOver && d.hooks.Err != nil {
		return nil, d.hooks.Err
	}
	found.Findings = append(found.Findings, d.hooks.Findings()...)
	if o.takeOver { // the plan shows the rest
		found.Findings = slices.DeleteFunc(found.Findings, func(f change.Finding) bool {
			return f.Name == install.NTH || f.Name == check.Hooks && f.Level != change.Fail
		})
	}
	d.found = slices.Concat(found.Findings, agentWarning(ctx, at.objects), routerFinding(ctx, at.objects))
	d.Spec.Discovered = found.Parameters
	if err := onboard.CheckVPC(ctx, at.account, at.env, awsadmin.List(overrides["SubnetIds"]),
		awsadmin.List(overrides["SecurityGroupIds"])); err != nil {
		return nil, err
	}
	architecture := cmp.Or(overrides["Architecture"], d.before["Architecture"], *template.Defaults["Architecture"])
	d.Spec.Code, d.noCode = functionZip(o.code, architecture)
	if err := d.planAccess(ctx); err != nil {
		return nil, err
	}
	network, err := install.CheckNetwork(ctx, at.account, at.env.Values, d.Spec.StackParameters(template, d.before))
	if d.found = append(d.found, network...); err != nil || d.onboard {
		return d, err
	}
	lacks, err := d.onboarding.Spec.CheckRole(d.access.State, d.access.Login)
	d.found = append(d.found, lacks...)
	return d, err
}

// planAccess plans the onboarding, or the part of it that lets the function authenticate to the cluster, and sets the
// stack's parameters accordingly.
func (d *deployment) planAccess(ctx context.Context) (err error) {
	plan := d.onboarding.PlanAccess
	if d.onboard {
		plan = d.onboarding.Plan
	}
	if d.access, err = plan(ctx); err != nil {
		return err
	}
	w, s, login := &d.Spec, d.access.State, d.access.Login
	switch role := d.onboarding.Spec.RoleParameter(s, d.onboard); {
	case s.Settings[onboard.FunctionRole] == "":
		w.Discovered[onboard.FunctionRole] = role
	case role != "":
		w.Overrides[onboard.FunctionRole] = role
	}
	w.Discovered["Login"] = login.Login
	if login.SecretARN != "" { // also of a stack that has the ARN of an earlier secret
		arns := onboard.SecretARNs(s.Settings["SecretArns"], d.env.Cluster, login.SecretARN)
		w.Overrides["SecretArns"] = strings.Join(arns, ",")
	}
	return nil
}

// functionZip returns the zip that Lambda runs: a file, or the embedded one.
func functionZip(file, architecture string) (code []byte, err error) {
	if code = deploy.Code(architecture); file != "" {
		if code, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("reading the function's code: %w", err)
		}
	}
	if len(code) == 0 {
		return nil, fmt.Errorf("this binary does not contain the function's code for %s: use a released kops-spot, "+
			"build one with make cli, or set --code to the function's zip of a release", architecture)
	}
	return code, install.CheckCode(code, architecture)
}

func (c *console) install(ctx context.Context, o installOptions) error {
	d, err := c.prepare(ctx, o)
	if err == nil {
		err = d.noCode
	}
	if err != nil {
		return err
	}
	if o.export != "" {
		return c.exportInstall(o.export, d)
	}
	if !d.access.Login.Settled { // AWS chooses the end of the secret's ARN
		d.ResolvePending = d.planAccess
	}
	if err := c.printFound(d); err != nil {
		return err
	}
	if d.stack, err = d.Plan(ctx); err != nil {
		return err
	}
	if o.takeOver {
		if d.takeOver, err = d.PlanTakeOver(ctx, d.hooks, d.objects); err != nil {
			return errors.Join(err, d.discard(context.WithoutCancel(ctx)))
		}
	}
	for _, name := range d.stack.KeptParameters {
		c.say(term.Mind, "%s keeps the stack's value, which differs from the discovered one: --refresh uses the discovered "+
			"one, --set %s=VALUE yours", name, name)
	}
	result, err := c.planAndApply(ctx, d.env, proposal{question: "Apply these changes?",
		plan:  slices.Concat(d.access.Changes, d.stack.Changes, d.takeOver.Create.Changes, d.takeOver.Remove.Changes),
		apply: d.apply, discard: d.discard, check: d.check, always: true})
	if err != nil {
		return err
	}
	mode := "it handles the next interruption"
	if d.stack.Parameters["Mode"] == "observe" {
		mode = "it only observes; to let it act, run kops-spot install --set Mode=act"
	}
	done := install.StackName(result.Cluster) + " is installed: " + mode
	if d.onboard {
		return c.finishOnboarding(ctx, d.onboarding, o.printCredentials, result, result.Cluster+" is onboarded, and "+done)
	}
	return c.conclude(result, result.Findings, done, errUnfinished)
}

// exportInstall writes what another deployment tool needs, and prints how to deploy it.
func (c *console) exportInstall(dir string, d *deployment) error {
	e, err := d.Export(dir, d.now)
	if err != nil {
		return err
	}
	maps.Copy(e.Files, d.access.Files)
	pending := !d.access.Login.Settled
	if err := c.export(dir, e.Files, pending, d.env.Cluster); err != nil {
		return err
	}
	for _, name := range e.Omitted {
		condition := ""
		if _, given := d.Spec.Overrides[name]; !given { // CloudFormation does not show whether it has a value
			condition = ", if you had set it"
		}
		c.say(term.Mind, "parameters.json omits %s, which is secret: set it when you deploy%s", name, condition)
	}
	if e.Files[identitymap.FileEntries] != nil {
		c.say(term.Mind, "add the entry of %s by hand, as its first line says, or run kops-spot grant",
			filepath.Join(dir, identitymap.FileEntries))
	}
	if pending {
		return nil
	}
	c.say(term.Mind, "to deploy them, see docs/install.md for Terraform, Argo CD and Flux, or run:")
	fmt.Fprintln(c.stderr, "  "+change.Command("kubectl", "--context", d.ref.Context, "apply", "--kustomize", dir))
	for _, command := range e.Commands {
		fmt.Fprintln(c.stderr, "  "+command)
	}
	return nil
}

// printFound prints what the preparation has found. A failure ends the command before it changes anything.
func (c *console) printFound(d *deployment) error {
	c.printTarget(d.env)
	err := term.Findings(c.stderr, d.found, c.options(c.stderr))
	if err == nil && d.found.Failed() {
		err = errors.New("nothing was changed: fix what failed above, and run this again")
	}
	return err
}

// discard deletes the change set of the plan.
func (d *deployment) discard(ctx context.Context) error { return d.Discard(ctx, d.stack) }

// apply grants access to the cluster first: the function needs it from its first invocation. It removes kOps' node
// termination handler last, and only if every link of the function works.
func (d *deployment) apply(ctx context.Context) error {
	if err := d.onboarding.Apply(ctx, d.access); err != nil {
		return errors.Join(err, d.discard(context.WithoutCancel(ctx)))
	}
	if err := d.Apply(ctx, d.stack); err != nil {
		return err
	}
	if err := d.Apply(ctx, d.takeOver.Create); err != nil || d.takeOver.Remove.Changes.Empty() {
		return err
	}
	found, err := d.check(ctx)
	for _, f := range found {
		if f.Level == change.Fail {
			return fmt.Errorf("kOps' node termination handler was not removed, because the function is not ready: %s: %s: %s",
				f.Name, f.Detail, f.Advice)
		}
	}
	if err != nil {
		return err
	}
	return d.Apply(ctx, d.takeOver.Remove)
}

// check checks every link, and that the function runs the code that was uploaded.
func (d *deployment) check(ctx context.Context) (found change.Findings, err error) {
	if d.onboard {
		if found, err = d.onboarding.Check(ctx, d.onboarding.Plan); err != nil {
			return nil, err
		}
		found = append(found, d.access.Changes.Reviews()...)
	}
	checks := d.checks(d.Template)
	checks.Code = d.Spec.Code
	links, err := checks.Check(ctx)
	return append(found, links...), err
}

// checks returns the checks of the cluster. Their test event is about an instance with a node, a Spot instance if any.
func (at session) checks(template *install.Template) check.Checks {
	checks := check.Checks{Site: at.site(nil), Template: template, Values: at.env.Values, Instances: at.tagged}
	candidates := slices.DeleteFunc(slices.Clone(at.tagged), func(i awsadmin.Instance) bool {
		return i.Ended || !slices.ContainsFunc(at.nodes, func(n onboard.NodeInstance) bool { return n.ID == i.ID })
	})
	if len(candidates) > 0 {
		rank := func(i awsadmin.Instance) string { return strconv.FormatBool(!i.Spot) + i.ID }
		checks.Node = slices.MinFunc(candidates, func(a, b awsadmin.Instance) int {
			return cmp.Compare(rank(a), rank(b))
		}).ID
	}
	return checks
}

// sayStep prints a stack event of a resource that CloudFormation has finished.
func (c *console) sayStep(e awsadmin.StackEvent) {
	status := strings.ToLower(strings.ReplaceAll(e.Status, "_", " "))
	switch {
	case e.Status == "RETRY":
		c.say(term.Mind, "%s: %s", e.LogicalID, e.Reason)
	case !e.Ended():
	case strings.HasSuffix(e.Status, "_FAILED"):
		c.say(term.Bad, "%s  %s: %s", e.LogicalID, status, e.Reason)
	default:
		c.say(term.Good, "%s  %s", e.LogicalID, status)
	}
}

func uninstallCommand(c *console) *cobra.Command {
	var flags awsFlags
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what install created for a cluster",
		Long: `Delete the lifecycle hooks of install --take-over-nth, the CloudFormation stack with its queues and log,
the function's code and secret, and its mapping and RBAC in the cluster. The plan is shown before you
confirm it. Safe to run again after an interruption. If the function is in the VPC, run this before
kops delete cluster.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.uninstall(cmd.Context(), flags) },
	}
	flags.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

// removal is the state of one removal.
type removal struct {
	install *install.Deployment
	onboard *onboard.Onboarding

	stack    install.Removal
	access   onboard.Plan
	notEmpty error // why the bucket is kept
}

func (c *console) uninstall(ctx context.Context, flags awsFlags) error {
	at, err := c.openSession(ctx, flags)
	if err != nil {
		return err
	}
	r := &removal{onboard: at.onboarding(onboard.Spec{}),
		install: &install.Deployment{AWS: at.account, Spec: install.Spec{Values: at.env.Values}, Say: c.sayStep}}
	plan, err := r.plan(ctx)
	if err != nil {
		return err
	}
	c.printTarget(at.env)
	result, err := c.planAndApply(ctx, at.env,
		proposal{question: "Delete these resources?", plan: plan, apply: r.apply, check: r.check})
	if err != nil {
		return err
	}
	done := fmt.Sprintf("uninstalled from %s; kept: the resources marked \"leave\" above", result.Cluster)
	return c.conclude(result, result.Findings, done, errUnfinished)
}

// plan lists what to delete: the function, then its access, then its code.
func (r *removal) plan(ctx context.Context) (plan change.Plan, err error) {
	if r.stack, err = r.install.PlanRemoval(ctx); err != nil {
		return nil, err
	}
	r.access, err = r.onboard.PlanAccessRemoval(ctx)
	return slices.Concat(r.stack.Stack.Changes, r.access.Changes, r.stack.Code.Changes), err
}

// apply deletes everything except a bucket with other objects.
func (r *removal) apply(ctx context.Context) error {
	if err := r.install.Apply(ctx, r.stack.Stack); err != nil {
		return err
	}
	access, code := r.onboard.Apply(ctx, r.access), r.install.Apply(ctx, r.stack.Code)
	if errors.Is(code, awsadmin.ErrNotEmpty) {
		r.notEmpty, code = code, nil
	}
	return errors.Join(access, code)
}

// check reports what still exists.
func (r *removal) check(ctx context.Context) (found change.Findings, err error) {
	if r.notEmpty != nil {
		found = append(found, change.Finding{Level: change.Warn, Name: install.KindBucket,
			Detail: "kept: " + r.notEmpty.Error(),
			Advice: "it contains other objects or older versions: empty it and run this again"})
	}
	rest, err := change.Settle(ctx, func(ctx context.Context) (change.Plan, error) {
		plan, err := r.plan(ctx)
		return slices.DeleteFunc(plan, func(row change.Change) bool {
			return !row.Changes() || r.notEmpty != nil && row.Kind == install.KindBucket
		}), err
	})
	for _, row := range rest {
		found = append(found, change.Finding{Level: change.Fail, Name: row.Kind + " " + row.Name,
			Detail: "still exists", Advice: "run this again"})
	}
	return found, err
}
