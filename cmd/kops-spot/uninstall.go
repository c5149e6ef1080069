package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
)

func uninstallCommand(c *console) *cobra.Command {
	var flags awsFlags
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what install created for a cluster",
		Long: "Delete the CloudFormation stack with its queues and log, the function's code and secret, and its mapping and RBAC in\n" +
			"the cluster. The plan is shown before you confirm it. Safe to run again after an interruption. If the function is in\n" +
			"the VPC, run this before kops delete cluster.",
		Example: "  kops-spot uninstall",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.uninstall(cmd.Context(), flags) },
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
	r.access, err = r.onboard.PlanAccessRemoval(ctx, r.stack.Role)
	return slices.Concat(r.stack.Stack.Changes, r.access.Changes, r.stack.Code.Changes), err
}

// apply deletes everything except a bucket with other objects.
func (r *removal) apply(ctx context.Context) error {
	if err := r.install.Apply(ctx, r.stack.Stack); err != nil {
		return err
	}
	if err := r.onboard.Apply(ctx, r.access); err != nil {
		return err
	}
	err := r.install.Apply(ctx, r.stack.Code)
	if errors.Is(err, awsadmin.ErrNotEmpty) {
		r.notEmpty, err = err, nil
	}
	return err
}

// check reports what still exists.
func (r *removal) check(ctx context.Context, applied bool) (found change.Findings, err error) {
	if !applied {
		return nil, nil
	}
	plan, err := r.plan(ctx)
	if err != nil {
		return nil, err
	}
	if r.notEmpty != nil {
		found = append(found, change.Finding{Level: change.Warn, Name: install.KindBucket, Detail: "kept: " + r.notEmpty.Error(),
			Advice: "it contains other objects or older versions: empty it and run this again"})
	}
	for _, row := range plan {
		if row.Changes() && (r.notEmpty == nil || row.Kind != install.KindBucket) {
			found = append(found, change.Finding{Level: change.Fail, Name: row.Kind + " " + row.Name, Detail: "still exists",
				Advice: "run this again"})
		}
	}
	return found, nil
}
