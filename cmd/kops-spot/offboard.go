package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

type offboardOptions struct {
	awsFlags
	original bool
}

func offboardCommand(c *console) *cobra.Command {
	var o offboardOptions
	cmd := &cobra.Command{
		Use:   "offboard",
		Short: "Remove what onboard created for a cluster",
		Long: "Remove the cluster's IAM user with its access keys, the function's role, their secrets, and their mappings and RBAC\n" +
			"in the cluster. Resources that other clusters need or that somebody else created are kept and listed. The plan is\n" +
			"shown before you confirm it. Safe to run again after an interruption.\n\n" +
			"With --original, remove the function cast-ai-ec2-events-handler instead, which kops-spot replaces.",
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
	r := at.onboarding(onboard.Spec{Store: onboard.InSecretsManager{Cluster: at.env.Cluster}})
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
