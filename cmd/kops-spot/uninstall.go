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
	var where site
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "takes away all that install has made for a cluster, and nothing else",
		Long: "uninstall has CloudFormation delete the function and all that belongs to it, the queues and the log too, and takes\n" +
			"away its code, its log-in, and what the cluster knows of it. It shows what it would take away and asks. Broken off,\n" +
			"it is run again. Do it before kops delete cluster where the function is in the VPC",
		Example: "  kops-spot uninstall",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.uninstall(cmd.Context(), where) },
	}
	where.flags(cmd.Flags())
	c.yesFlag(cmd.Flags())
	return cmd
}

// leaving is a removal under way.
type leaving struct {
	install *install.Deployment
	onboard *onboard.Onboarding

	stack  install.Removal
	access onboard.Plan
	full   error // why the bucket stays: others have put something there
}

func (c *console) uninstall(ctx context.Context, where site) error {
	at, err := c.stand(ctx, where)
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
	c.sayWhere(at.env)
	told, err := c.carryOut(ctx, at.env, proposal{question: "take this away?", plan: plan, apply: l.apply,
		check: l.check})
	if err != nil {
		return err
	}
	done := fmt.Sprintf("nothing of the function for %s is left but what is said above", told.Cluster)
	return c.conclude(told, told.Findings, done, errUnfinished)
}

// plan is what is to go: the function first, then the ways in, and the code last. Nothing needs that to be gone.
func (l *leaving) plan(ctx context.Context) (plan change.Plan, err error) {
	if l.stack, err = l.install.PlanRemoval(ctx); err != nil {
		return nil, err
	}
	l.access, err = l.onboard.PlanAccessRemoval(ctx, l.stack.Role)
	return slices.Concat(l.stack.Stack.Changes, l.access.Changes, l.stack.Code.Changes), err
}

// apply takes all of it away, but for a bucket that is full of what others have put there.
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

// check looks whether all of it is gone.
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
			Detail: "it stays: " + l.full.Error(),
			Advice: "it has older versions of objects, or others' objects: empty it, and run this again"})
	}
	for _, one := range plan {
		if one.Changes() && (l.full == nil || one.Kind != install.KindBucket) {
			left = append(left, change.Finding{Level: change.Fail, Name: one.Kind + " " + one.Name, Detail: "is still there", Advice: "run this again"})
		}
	}
	return left, nil
}
