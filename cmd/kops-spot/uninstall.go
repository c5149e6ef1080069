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
	var where awsFlags
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what install created for a cluster",
		Long: "Delete the CloudFormation stack with its queues and log, the function's code and secret, and its mapping and RBAC in\n" +
			"the cluster. The plan is shown before you confirm it. Safe to run again after an interruption. If the function is in\n" +
			"the VPC, run this before kops delete cluster.",
		Example: "  kops-spot uninstall",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.uninstall(cmd.Context(), where) },
	}
	where.register(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

// leaving is the state of one removal.
type leaving struct {
	install *install.Deployment
	onboard *onboard.Onboarding

	stack  install.Removal
	access onboard.Plan
	full   error // why the bucket is kept: it contains objects of others
}

func (c *console) uninstall(ctx context.Context, where awsFlags) error {
	at, err := c.openSession(ctx, where)
	if err != nil {
		return err
	}
	l := &leaving{install: &install.Deployment{AWS: at.account, Spec: install.Spec{Values: at.env.Values}, Say: c.sayStep},
		onboard: &onboard.Onboarding{AWS: at.account, Cluster: at.cluster,
			Spec: onboard.Spec{Environment: at.env, Permissions: onboard.Least}}}
	plan, err := l.plan(ctx)
	if err != nil {
		return err
	}
	c.printTarget(at.env)
	result, err := c.planAndApply(ctx, at.env, proposal{question: "Delete these resources?", plan: plan, apply: l.apply,
		check: l.check})
	if err != nil {
		return err
	}
	done := fmt.Sprintf("uninstalled from %s; kept: the resources marked \"leave\" above", result.Cluster)
	return c.conclude(result, result.Findings, done, errUnfinished)
}

// plan lists what to delete: the function, then its access, then its code.
func (l *leaving) plan(ctx context.Context) (plan change.Plan, err error) {
	if l.stack, err = l.install.PlanRemoval(ctx); err != nil {
		return nil, err
	}
	l.access, err = l.onboard.PlanAccessRemoval(ctx, l.stack.Role)
	return slices.Concat(l.stack.Stack.Changes, l.access.Changes, l.stack.Code.Changes), err
}

// apply deletes everything except a bucket that contains objects of others.
func (l *leaving) apply(ctx context.Context) error {
	if err := l.install.Apply(ctx, l.stack.Stack); err != nil {
		return err
	}
	if err := l.onboard.Apply(ctx, l.access); err != nil {
		return err
	}
	err := l.install.Apply(ctx, l.stack.Code)
	if errors.Is(err, awsadmin.ErrNotEmpty) {
		l.full, err = err, nil
	}
	return err
}

// check reports what still exists.
func (l *leaving) check(ctx context.Context, applied bool) (left change.Findings, err error) {
	if !applied {
		return nil, nil
	}
	plan, err := l.plan(ctx)
	if err != nil {
		return nil, err
	}
	if l.full != nil {
		left = append(left, change.Finding{Level: change.Warn, Name: install.KindBucket,
			Detail: "kept: " + l.full.Error(),
			Advice: "it contains other objects or older versions: empty it and run this again"})
	}
	for _, one := range plan {
		if one.Changes() && (l.full == nil || one.Kind != install.KindBucket) {
			left = append(left, change.Finding{Level: change.Fail, Name: one.Kind + " " + one.Name, Detail: "still exists", Advice: "run this again"})
		}
	}
	return left, nil
}
