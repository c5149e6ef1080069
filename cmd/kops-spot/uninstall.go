package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

type uninstallOptions struct {
	site
	yes    bool
	output string
}

func uninstallCommand(c *console) *cobra.Command {
	var o uninstallOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "takes away all that install has made for a cluster, and nothing else",
		Long: "uninstall has CloudFormation delete the function and all that belongs to it, the queues and the log too, and takes\n" +
			"away its code, its log-in, and what the cluster knows of it. It shows what it would take away and asks. Broken off,\n" +
			"it is run again. Do it before kops delete cluster where the function is in the VPC",
		Example: "  kops-spot uninstall",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.uninstall(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.site.flags(f)
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask: for scripts")
	f.StringVarP(&o.output, "output", "o", asText, "the `form` of the result: "+asText+" or "+asJSON)
	return cmd
}

func (c *console) uninstall(ctx context.Context, o uninstallOptions) error {
	how := howToChange{yes: o.yes, output: o.output}
	if err := checkForm(o.output); err != nil {
		return err
	}
	at, err := c.stand(ctx, o.site)
	if err != nil {
		return err
	}
	g := at.ground
	r := &install.Run{AWS: at.account, Want: install.Want{Values: g.Values}, Say: c.sayStep}
	l := &onboard.Run{AWS: at.account, Cluster: at.cluster, Want: onboard.Want{Ground: g, Permissions: onboard.Least}}
	stack, access, err := planUninstall(ctx, r, l)
	if err != nil {
		return err
	}
	told := changed{Cluster: g.Cluster, Account: g.Account, Region: g.Region, Plan: slices.Concat(stack.Stack.Changes, access.Changes, stack.Code.Changes)}
	c.sayWhere(g)
	if err := term.Plan(c.stderr, told.Plan, options(c.environ, c.stderr)); err != nil {
		return err
	}
	if !told.Plan.Empty() {
		if err := c.ask(ctx, "take this away?", o.yes); err != nil {
			return err
		}
		full, err := takeAway(ctx, l, stack, access)
		if err != nil {
			return fmt.Errorf("%w; what was taken away is gone, and the next run goes on from there", err)
		}
		told.Applied = true
		if told.Findings, err = isGone(ctx, r, l, full); err != nil {
			return err
		}
	}
	return c.tell(how, told, fmt.Sprintf("nothing of the function for %s is left but what is said above", g.Cluster))
}

// takeAway takes the function away first, then the ways in, and the code last: nothing needs that to be gone. A bucket that is
// full of what others have put there stays, and full says so.
func takeAway(ctx context.Context, l *onboard.Run, stack install.Removal, access onboard.Planned) (full error, err error) {
	if err := stack.Stack.Apply(ctx); err != nil {
		return nil, err
	}
	if err := l.Apply(ctx, access); err != nil {
		return nil, err
	}
	err = stack.Code.Apply(ctx)
	if errors.Is(err, iamcloud.ErrNotEmpty) {
		return err, nil
	}
	return nil, err
}

func planUninstall(ctx context.Context, r *install.Run, l *onboard.Run) (stack install.Removal, access onboard.Planned, err error) {
	if stack, err = r.PlanRemoval(ctx); err != nil {
		return stack, access, err
	}
	access, err = l.PlanLogInRemoval(ctx, stack.Role)
	return stack, access, err
}

// isGone looks whether all of it is.
func isGone(ctx context.Context, r *install.Run, l *onboard.Run, full error) (change.Findings, error) {
	stack, access, err := planUninstall(ctx, r, l)
	if err != nil {
		return nil, err
	}
	var left change.Findings
	if full != nil {
		left = append(left, change.Finding{Level: change.Warn, Name: install.KindBucket, Detail: "it stays: " + full.Error(),
			Advice: "it has older versions of objects, or others' objects: empty it, and run this again"})
	}
	for _, one := range slices.Concat(stack.Stack.Changes, access.Changes, stack.Code.Changes) {
		if one.Changes() && (full == nil || one.Kind != install.KindBucket) {
			left = append(left, change.Finding{Level: change.Fail, Name: one.Kind + " " + one.Name, Detail: "is still there", Advice: "run this again"})
		}
	}
	return left, nil
}
