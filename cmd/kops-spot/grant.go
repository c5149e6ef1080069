package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/term"
)

// asSAM is the format of grant's result for sam deploy --parameter-overrides.
const asSAM = "sam"

// grantResult is the output of grant.
type grantResult struct {
	applyResult
	Stack      string            `json:"stack"`
	Parameters map[string]string `json:"parameters"` // of the stack, without those that have their default
}

func grantCommand(c *console) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "grant",
		Short: "Give the function access to the cluster before sam deploy",
		Long: `Apply the function's RBAC, and map its role in the cluster's authenticator or store a token in Secrets Manager.
The role need not exist yet. The plan is shown before you confirm it. Then print the parameters of the stack: as a
table, as JSON, or with --output sam as arguments of sam deploy. kops-spot install does all of this by itself.`,
		Example: "  kops-spot grant\n" +
			"  sam deploy --parameter-overrides $(kops-spot grant --output sam)",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.grant(cmd.Context(), o) },
	}
	o.registerAccess(cmd.Flags())
	c.applyFlags(cmd.Flags())
	return cmd
}

func (c *console) grant(ctx context.Context, o installOptions) error {
	d, err := c.prepare(ctx, o)
	if err != nil {
		return err
	}
	if err := c.printFound(d); err != nil {
		return err
	}
	result := grantResult{Stack: install.StackName(d.env.Cluster)}
	plan := func(ctx context.Context) (onboard.Plan, error) { // it also finds the secret's ARN, which AWS chooses
		err := d.planAccess(ctx)
		return d.access, err
	}
	result.applyResult, err = c.planAndApply(ctx, d.env, proposal{question: "Apply these changes?", plan: d.access.Changes,
		apply: func(ctx context.Context) error { return d.onboarding.Apply(ctx, d.access) },
		check: func(ctx context.Context) (change.Findings, error) { return d.onboarding.Check(ctx, plan) }})
	if err != nil {
		return err
	}
	if result.Findings.Failed() {
		return c.conclude(result, result.Findings, "", errUnfinished)
	}
	if result.Parameters, err = d.Spec.PublicParameters(d.Template, d.before); err != nil {
		return err
	}
	return c.printResult(result, func(w io.Writer, _ term.Options) error {
		format := "%s=%s\n"
		if c.output != asSAM {
			format = "%-18s %s\n"
			fmt.Fprintf(w, "The parameters of the stack %s:\n", result.Stack)
		}
		for _, name := range slices.Sorted(maps.Keys(result.Parameters)) {
			fmt.Fprintf(w, format, name, result.Parameters[name])
		}
		return nil
	})
}
