package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/castai"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// onboardFlags are the flags of onboard, and of install with --onboard.
type onboardFlags struct {
	onboard.Spec
	credentialsFile  string
	printCredentials bool
}

func (o *onboardFlags) register(f *pflag.FlagSet) {
	f.StringVar(&o.Permissions, "permissions", onboard.Least,
		"The `permissions` of the function's role: "+onboard.Least+", or "+onboard.Guide+
			" to also attach the AWS managed policies of the guide, which are not scoped to the cluster")
	f.StringVar(&o.credentialsFile, "credentials-file", "",
		"Store the access key in this `file`, readable only by its owner")
	f.BoolVar(&o.printCredentials, "print-credentials", false, "Also print the access key if one is created")
	f.BoolVar(&o.RotateKey, "rotate-key", false, "Create and store a new access key, then delete the old one")
	f.BoolVar(&o.UserIsMaster, "user-is-master", false,
		"Map the user to system:masters (full access to the cluster), as the guide implies")
	f.BoolVar(&o.ReplaceShared, "replace-shared-policy", false,
		"Update the account's shared policy even if other users lose permissions")
}

type onboardOptions struct {
	stackFlags
	onboardFlags
	export string
	policy bool
}

func onboardCommand(c *console) *cobra.Command {
	var o onboardOptions
	var conditions func() error
	cmd := &cobra.Command{
		Use:   "onboard",
		Short: "Grant CAST AI and the function access to a cluster",
		Long: `Create what CAST AI needs to manage a kOps cluster and what the function needs to drain its nodes: an
IAM user with policies and an access key, the function's role, and the role's RBAC in the cluster. The plan is
shown before you confirm it. Existing resources are left unchanged. Safe to run again after an interruption.

The role gets what the function's stack and --set require, such as SecretArns or SubnetIds. If the stack has
created the role, onboarding leaves it to the stack. To deploy the stack in the same plan, use kops-spot install
--onboard.

The secret access key is stored in Secrets Manager, in a file, or (with CASTAI_API_TOKEN and CASTAI_API_URL)
in the CAST AI console. It is not printed.`,
		Example: "  kops-spot onboard\n" +
			"  kops-spot onboard --cluster prod.example.com --region eu-west-1 --yes --output json\n" +
			"  kops-spot onboard --export onboard/",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := conditions(); err != nil {
				return err
			}
			return withPermissionHint(c.onboard(cmd.Context(), o))
		},
	}
	f := cmd.Flags()
	o.stackFlags.register(f)
	o.onboardFlags.register(f)
	c.applyFlags(f)
	exportFlag(f, &o.export)
	f.BoolVar(&o.policy, "export-installer-policy", false,
		"Print the IAM policy that you need to run the installer, and exit")
	conditions = requires(f, "export-installer-policy", "state")
	return cmd
}

// onboardSpec returns what to onboard by the flags. It connects to nothing.
func (c *console) onboardSpec(in stackFlags, o onboardFlags, set map[string]string) (spec onboard.Spec, err error) {
	spec = o.Spec
	spec.Karpenter, spec.Tags, spec.Set = in.karpenter, in.tags, maps.Clone(set)
	if spec.Permissions != onboard.Least && spec.Permissions != onboard.Guide {
		return spec, fmt.Errorf("invalid --permissions %q: use %s or %s", spec.Permissions, onboard.Least, onboard.Guide)
	}
	if spec.Store, err = c.keyStore(o.credentialsFile); err == nil && spec.UserIsMaster {
		c.say(term.Mind, "the user gets system:masters: its access key grants full access to the cluster")
	}
	return spec, err
}

func (c *console) onboard(ctx context.Context, o onboardOptions) error {
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return err
	}
	set, err := o.parse(template)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if !slices.Contains(onboard.Settings, name) {
			return fmt.Errorf("--set %s: onboarding does not depend on it: use it with kops-spot install; onboarding depends on %s",
				name, strings.Join(onboard.Settings, ", "))
		}
	}
	if o.policy {
		return c.installerPolicy(ctx, o.awsFlags)
	}
	spec, err := c.onboardSpec(o.stackFlags, o.onboardFlags, set)
	if err != nil {
		return err
	}
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	r := at.onboarding(spec)
	if err := onboard.CheckVPC(ctx, at.account, at.env, awsadmin.List(set["SubnetIds"]),
		awsadmin.List(set["SecurityGroupIds"])); err != nil {
		return err
	}
	if o.export != "" {
		p, err := r.Plan(ctx)
		if err != nil {
			return err
		}
		return c.export(o.export, p.Files, !p.Login.Settled, at.env.Cluster)
	}
	for _, f := range agentWarning(ctx, at.objects) {
		c.say(term.Mind, "%s: %s", f.Detail, f.Advice)
	}
	result, err := c.applyOnboarding(ctx, r, "Apply these changes?", r.Plan)
	if err != nil {
		return err
	}
	return c.finishOnboarding(ctx, r, o.printCredentials, result, result.Cluster+" is onboarded")
}

func (c *console) finishOnboarding(ctx context.Context, r *onboard.Onboarding, print bool, result applyResult,
	done string) error {
	if r.Made != nil {
		result.AccessKeyID = r.Made.ID
		done += fmt.Sprintf("; access key %s is stored in %s", r.Made.ID, r.Spec.Store)
	}
	if print {
		result.Credentials = r.Made
		if r.Made == nil {
			c.say(term.Mind, "no access key was created; read the secret of an existing key from its store")
		}
	}
	found, err := findOriginal(ctx, r.AWS)
	if err != nil {
		return err
	}
	result.Findings = append(result.Findings, found...)
	if err := c.conclude(result, result.Findings, done, errUnfinished); err != nil {
		return err
	}
	if k := result.Credentials; k != nil && c.output == asText {
		_, err = fmt.Fprintf(c.stdout, "AccessKeyId=%s\nSecretAccessKey=%s\n", k.ID, k.Secret)
	}
	return err
}

// findOriginal warns if the function that kops-spot replaces still exists.
func findOriginal(ctx context.Context, account *awsadmin.Account) (change.Findings, error) {
	f, err := onboard.Original(ctx, account)
	if err != nil || f == nil {
		return nil, err
	}
	return change.Findings{{Level: change.Warn, Name: "function " + f.Name,
		Detail: "the function that kops-spot replaces still exists and handles the same events",
		Advice: "once kops-spot runs, remove it with kops-spot offboard --original"}}, nil
}

// keyStore returns where to store the access key; nil means Secrets Manager.
func (c *console) keyStore(credentialsFile string) (onboard.KeyStore, error) {
	token, url := c.getenv("CASTAI_API_TOKEN"), c.getenv("CASTAI_API_URL")
	switch {
	case credentialsFile != "":
		return onboard.InFile{Path: credentialsFile}, nil
	case url == "": // the token may be for kops-spot connect
		return nil, nil
	case token == "":
		return nil, errors.New("CASTAI_API_URL is set, but not CASTAI_API_TOKEN: set both or neither")
	}
	g := castai.Giving{URL: url, Token: token, UserAgent: "kops-spot/" + version}
	return onboard.InConsole{Give: func(ctx context.Context, credentials []byte) error {
		err := g.Give(ctx, credentials)
		if errors.Is(err, castai.ErrRefused) {
			return fmt.Errorf("%w: %w", onboard.ErrNotStored, err)
		}
		return err
	}}, g.Check()
}

// installerPolicy prints the IAM policy that the installer needs. The only permission it uses is to list roles; without
// it, the policy names the role of the account's first cluster.
func (c *console) installerPolicy(ctx context.Context, s awsFlags) error {
	at, err := c.openUnverified(ctx, s)
	if err != nil {
		return err
	}
	who, err := at.account.Caller(ctx)
	if err != nil {
		return err
	}
	v := iam.Values{Partition: who.Partition, Account: who.Account, Region: at.account.Region(), Cluster: at.ref.Cluster,
		FunctionRole: iam.FunctionRole, StateStore: at.store}
	at.env.Values = v
	if name, err := at.onboarding(onboard.Spec{}).FunctionRole(ctx); err == nil {
		v.FunctionRole = name
	} else {
		c.say(term.Mind, "cannot determine the function's role (%v): the policy names %s; if another cluster of the account "+
			"uses that role, replace it with %s", err, iam.FunctionRole, iam.FunctionRoleName(at.ref.Cluster))
	}
	text, err := iam.Render(iam.InstallerPolicy, v)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(text)
	return err
}

type offboardOptions struct {
	awsFlags
	original bool
}

func offboardCommand(c *console) *cobra.Command {
	var o offboardOptions
	cmd := &cobra.Command{
		Use:   "offboard",
		Short: "Remove what onboard created for a cluster",
		Long: `Remove the cluster's IAM user with its access keys, the function's role, their secrets, and their
mappings and RBAC in the cluster. Resources that other clusters need or that somebody else created are kept
and listed. The plan is shown before you confirm it. Safe to run again after an interruption.

With --original, remove the function cast-ai-ec2-events-handler instead, which kops-spot replaces.`,
		Example: "  kops-spot offboard\n  kops-spot offboard --original",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return withPermissionHint(c.offboard(cmd.Context(), o)) },
	}
	o.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.original, "original", false,
		"Remove the function cast-ai-ec2-events-handler, its rules and its role, and nothing of kops-spot")
	return cmd
}

func (c *console) offboard(ctx context.Context, o offboardOptions) error {
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	r := at.onboarding(onboard.Spec{})
	plan, done := r.PlanRemoval, at.env.Cluster+" is offboarded"
	if o.original {
		plan = r.PlanOriginal
		done = "removed the original function from " + at.env.Region + "; kept: the resources marked \"leave\" above"
	}
	result, err := c.applyOnboarding(ctx, r, "Delete these resources?", plan)
	if err != nil {
		return err
	}
	if !o.original {
		found, err := findOriginal(ctx, r.AWS)
		if err != nil {
			return err
		}
		for _, f := range found {
			c.say(term.Mind, "%s still exists: remove it with kops-spot offboard --original", f.Name)
		}
	}
	return c.conclude(result, result.Findings, done, errUnfinished)
}
