package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/castai"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

type onboardOptions struct {
	site
	onboard.Spec
	credentialsFile, export  string
	printCredentials, policy bool
}

func onboardCommand(c *console) *cobra.Command {
	var o onboardOptions
	cmd := &cobra.Command{
		Use:   "onboard",
		Short: "gives CAST AI and the function the rights that they need on one cluster",
		Long: "onboard makes what CAST AI needs to work on a kOps cluster, and the function to drain its nodes: an IAM user with\n" +
			"its policies and an access key, the role of the function, and what the role may do in the cluster.\n" +
			"It shows what it would change and asks; what is as it should be already, it leaves. Broken off, it is run again.\n\n" +
			"The access key's secret goes to Secrets Manager, to a file, or with CASTAI_API_TOKEN and CASTAI_API_URL set to\n" +
			"CAST AI's console, and is not shown",
		Example: "  kops-spot onboard\n" +
			"  kops-spot onboard --cluster prod.example.com --region eu-west-1 --yes --output json\n" +
			"  kops-spot onboard --export onboard/",
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return toldWhoMay(c.onboard(cmd.Context(), o)) },
	}
	f := cmd.Flags()
	o.site.flags(f)
	c.yesFlag(f)
	exportFlag(f, &o.export)
	f.StringVar(&o.Permissions, "permissions", onboard.Least,
		"of the function's role: "+onboard.Least+", or "+onboard.Guide+
			" for the policies of AWS' own that the guide lists too, which are not scoped to the cluster")
	f.StringVar(&o.credentialsFile, "credentials-file", "", "the `file` that the access key is put into, for its owner to read only")
	f.BoolVar(&o.printCredentials, "print-credentials", false, "print the access key too, if one is made")
	f.BoolVar(&o.RotateKey, "rotate-key", false, "make a new access key, store it, and then delete the old one")
	f.BoolVar(&o.UserIsMaster, "user-is-master", false,
		"let the user into the cluster, to do everything there (system:masters), as the guide implies")
	f.BoolVar(&o.ReplaceShared, "replace-shared-policy", false,
		"write the account's policy though users have it who lose rights by that")
	f.BoolVar(&o.Karpenter, "karpenter", false,
		"let the function delete Karpenter's NodeClaims: deploy/rbac-karpenter.yaml too")
	f.StringSliceVar(&o.Subnets, "subnets", nil,
		"the `ids` of the subnets of a function in the VPC, with commas between them")
	f.StringSliceVar(&o.SecurityGroups, "security-groups", nil, "the `ids` of its security groups")
	f.BoolVar(&o.policy, "export-installer-policy", false, "print the IAM policy that whoever runs this needs, and stop")
	return cmd
}

// nothing wants no arguments.
func nothing(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s: it takes flags only, and not %s: %s --help lists them", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

func (c *console) onboard(ctx context.Context, o onboardOptions) error {
	if o.Permissions != onboard.Least && o.Permissions != onboard.Guide {
		return fmt.Errorf("--permissions %s: it is %s or %s", o.Permissions, onboard.Least, onboard.Guide)
	}
	if err := o.Spec.Check(); err != nil {
		return err
	}
	if o.policy {
		return c.installerPolicy(ctx, o.site)
	}
	var err error
	if o.Store, err = c.keyStore(o); err != nil {
		return err
	}
	at, err := c.stand(ctx, o.site)
	if err != nil {
		return err
	}
	if o.Store == nil {
		o.Store = onboard.InSecretsManager{Cluster: at.env.Cluster}
	}
	o.Environment = at.env
	if err := onboard.CheckVPC(ctx, at.account, at.env, o.Subnets, o.SecurityGroups); err != nil {
		return err
	}
	r := &onboard.Onboarding{AWS: at.account, Cluster: at.cluster, Spec: o.Spec}
	if o.export != "" {
		p, err := r.Plan(ctx)
		if err != nil {
			return err
		}
		unmade := ""
		if p.Files["token.yaml"] != nil && p.State.TokenSecret == nil {
			unmade = onboard.TokenSecret(at.env.Cluster)
		}
		return c.export(o.export, p.Files, unmade)
	}
	if o.UserIsMaster {
		c.say(term.Mind, "the user is let into the cluster as system:masters: whoever has its access key may do everything there")
	}
	told, err := c.carryOutInAccount(ctx, r, "change this?", r.Plan)
	if err != nil {
		return err
	}
	return c.tellOnboarded(ctx, r, o, told)
}

func (c *console) tellOnboarded(ctx context.Context, r *onboard.Onboarding, o onboardOptions, told changed) error {
	done := fmt.Sprintf("%s is onboarded", told.Cluster)
	if r.Made != nil {
		told.AccessKeyID = r.Made.ID
		done += fmt.Sprintf("; the secret of access key %s is in %s", r.Made.ID, r.Spec.Store)
		if o.printCredentials {
			told.Credentials = r.Made
		}
	} else if o.printCredentials {
		c.say(term.Mind, "no access key was made, and the secret of one that is there can be had where it is stored only")
	}
	f, err := originalIsThere(ctx, r.AWS)
	if err != nil {
		return err
	}
	told.Findings = append(told.Findings, f...)
	if err := c.conclude(told, told.Findings, done, errUnfinished); err != nil {
		return err
	}
	if k := told.Credentials; k != nil && c.output == asText {
		_, err = fmt.Fprintf(c.stdout, "AccessKeyId=%s\nSecretAccessKey=%s\n", k.ID, k.Secret)
	}
	return err
}

// originalIsThere tells of the function that kops-spot replaces.
func originalIsThere(ctx context.Context, account *awsadmin.Account) (change.Findings, error) {
	f, err := onboard.Original(ctx, account)
	if err != nil || f == nil {
		return nil, err
	}
	return change.Findings{{Level: change.Warn, Name: "function " + f.Name, Detail: "the function that kops-spot replaces is still there, and handles the same events",
		Advice: "once kops-spot's own runs: kops-spot offboard --original"}}, nil
}

// keyStore is where the access key goes; nil is Secrets Manager.
func (c *console) keyStore(o onboardOptions) (onboard.KeyStore, error) {
	token, url := c.getenv("CASTAI_API_TOKEN"), c.getenv("CASTAI_API_URL")
	switch {
	case o.credentialsFile != "":
		return onboard.InFile{Path: o.credentialsFile}, nil
	case token == "" && url == "":
		return nil, nil
	case token == "" || url == "":
		return nil, errors.New("of CASTAI_API_TOKEN and CASTAI_API_URL one is set and the other is not: set both, or neither")
	}
	g := castai.Giving{URL: url, Token: token, UserAgent: "kops-spot/" + version}
	give := func(ctx context.Context, credentials []byte) error {
		err := g.Give(ctx, credentials)
		if errors.Is(err, castai.ErrRefused) {
			return fmt.Errorf("%w: %w", onboard.ErrNotStored, err)
		}
		return err
	}
	return onboard.InConsole{Give: give}, g.Check()
}

// installerPolicy prints what whoever onboards needs. It asks AWS nothing that needs a permission, except for the roles' names:
// without, it takes the first cluster's.
func (c *console) installerPolicy(ctx context.Context, s site) error {
	at, err := c.reach(ctx, s)
	if err != nil {
		return err
	}
	who, err := at.account.Caller(ctx)
	if err != nil {
		return err
	}
	v := iam.Values{Partition: who.Partition, Account: who.Account, Region: at.account.Region(), Cluster: at.ref.Cluster,
		FunctionRole: iam.FunctionRole, StateStore: at.store}
	if state, err := onboard.Inspect(ctx, at.account, at.ref.Cluster); err == nil {
		v.FunctionRole = state.RoleName
	} else {
		c.say(term.Mind, "which role the function would have cannot be seen (%v): this is for %s; if another cluster of the account has that, "+
			"replace it by %s", err, iam.FunctionRole, iam.FunctionRoleName(at.ref.Cluster))
	}
	text, err := iam.Render(iam.InstallerPolicy, v)
	if err != nil {
		return err
	}
	_, err = c.stdout.Write(text)
	return err
}
