package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	kopsspot "github.com/castai/kops-spot"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/check"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

func checkCommand(c *console) *cobra.Command {
	var o installOptions
	var pre bool
	var conditions func() error
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check every link between an interruption notice and a drained node",
		Long: `Check every link: rule, state, target, permission, function, role, network, authentication and RBAC,
and let the function plan its response to a test warning. Nothing is changed. Fix the first failure first:
later failures may be its consequences.

With --pre, check before an installation what install would find and do.`,
		Example: "  kops-spot check\n  kops-spot check --pre --set Mode=observe",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := conditions(); err != nil {
				return err
			}
			if pre {
				return c.checkBefore(cmd.Context(), o)
			}
			return c.check(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	o.register(f)
	f.BoolVar(&pre, "pre", false, "Check before an installation whether it can succeed")
	conditions = requires(f, "pre", "code", "karpenter", "refresh", "set", "tag")
	return cmd
}

// checkResult is the output of check.
type checkResult struct {
	Cluster  string          `json:"cluster"`
	Account  string          `json:"account"`
	Region   string          `json:"region"`
	OK       bool            `json:"ok"`
	First    string          `json:"first,omitempty"` // the first link that failed
	Findings change.Findings `json:"findings"`
}

func (c *console) check(ctx context.Context, o installOptions) error {
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	template, err := install.ParseTemplate(kopsspot.Template)
	if err != nil {
		return err
	}
	found, err := at.checks(template).Check(ctx)
	if err != nil { // the findings so far are still valid
		return errors.Join(term.Findings(c.stderr, found, c.options(c.stderr)), err)
	}
	found = append(found, routerFinding(ctx, at.objects)...)
	return c.printChecks(at.env, found, "all checks passed")
}

func (c *console) checkBefore(ctx context.Context, o installOptions) error {
	d, err := c.prepare(ctx, o)
	if err != nil {
		return err
	}
	env := d.env
	found := slices.Concat(change.Findings{{Level: change.OK, Name: "cluster", Detail: fmt.Sprintf(
		"%s in account %s, region %s, VPC %s, as %s", env.Cluster, env.Account, env.Region, env.VPC, env.Caller)}}, d.found,
		change.Findings{{Level: change.OK, Name: check.Authentication,
			Detail: "login " + d.access.Login.Login + ", as the role " + d.access.State.RoleName}})
	if d.noCode != nil {
		found = append(found, change.Finding{Level: change.Fail, Name: "code", Detail: d.noCode.Error(),
			Advice: "build it, or set its path with --code"})
	}
	taken, err := d.CheckNames(ctx)
	if err != nil {
		return err
	}
	limits, err := d.checks(d.Template).CheckConcurrency(ctx)
	if err != nil {
		return err
	}
	original, err := findOriginal(ctx, d.account)
	if err != nil {
		return err
	}
	return c.printChecks(env, slices.Concat(found, taken, limits, original), "ready to install")
}

// printChecks prints the findings and fails if one of them is a failure.
func (c *console) printChecks(env onboard.Environment, found change.Findings, good string) error {
	result := checkResult{Cluster: env.Cluster, Account: env.Account, Region: env.Region,
		OK: !found.Failed(), First: found.First(), Findings: found}
	return c.conclude(result, found, good,
		fmt.Errorf("check %s failed: fix it first, as described above, and check again", result.First))
}
