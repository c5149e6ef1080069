package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

type offboardOptions struct {
	site
	original bool
}

func offboardCommand(c *console) *cobra.Command {
	var o offboardOptions
	cmd := &cobra.Command{
		Use:   "offboard",
		Short: "takes away what onboard has made for a cluster, and nothing else",
		Long: "offboard takes away the IAM user of the cluster with its access keys, the function's role, their secrets, and what\n" +
			"the cluster knows of them. What another cluster of the account needs, and what somebody else has made, it leaves, and\n" +
			"says so. It shows what it would change and asks. Broken off, it is run again.\n\n" +
			"With --original it takes away, instead, the function cast-ai-ec2-events-handler that kops-spot replaces",
		Example: "  kops-spot offboard\n  kops-spot offboard --original",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return toldWhoMay(c.offboard(cmd.Context(), o)) },
	}
	o.site.flags(cmd.Flags())
	c.yesFlag(cmd.Flags())
	cmd.Flags().BoolVar(&o.original, "original", false, "take away the function cast-ai-ec2-events-handler, its rules and its role, and nothing of kops-spot's")
	return cmd
}

func (c *console) offboard(ctx context.Context, o offboardOptions) error {
	at, err := c.stand(ctx, o.site)
	if err != nil {
		return err
	}
	r := &onboard.Onboarding{AWS: at.account, Cluster: at.cluster, Spec: onboard.Spec{
		Environment: at.env, Permissions: onboard.Least, Store: onboard.InSecretsManager{Cluster: at.env.Cluster}}}
	plan, done := r.PlanRemoval, fmt.Sprintf("%s is offboarded", at.env.Cluster)
	if o.original {
		plan, done = r.PlanOriginal, "nothing of the original is left in "+at.env.Region+" but what is said above"
	}
	told, err := c.carryOutInAccount(ctx, r, "take this away?", plan)
	if err != nil {
		return err
	}
	if !o.original {
		f, err := originalIsThere(ctx, r.AWS)
		if err != nil {
			return err
		}
		for _, one := range f {
			c.say(term.Mind, "%s is there too: kops-spot offboard --original takes it away", one.Name)
		}
	}
	return c.conclude(told, told.Findings, done, errUnfinished)
}
