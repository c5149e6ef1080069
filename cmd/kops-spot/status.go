package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/rehearse"
	"github.com/castai/kops-spot/internal/term"
)

type statusOptions struct {
	awsFlags
	since time.Duration
	last  int
}

func statusCommand(c *console) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the deployed function and the outcomes of recent interruptions",
		Long: "Show the stack, the function, the result of the last self-check and the outcomes of recent interruptions from the\n" +
			"function's log. Use kops-spot check to test the installation.",
		Example: "  kops-spot status --since 168h",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.awsFlags.register(f)
	f.DurationVar(&o.since, "since", 24*time.Hour, "How `far` to look back")
	f.IntVar(&o.last, "last", 20, "The maximum `number` of interruptions")
	return cmd
}

func (c *console) status(ctx context.Context, o statusOptions) error {
	if o.since <= 0 || o.last < 1 {
		return fmt.Errorf("invalid --since %s or --last %d: both must be positive", o.since, o.last)
	}
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	s := term.Status{Cluster: at.env.Cluster, Account: at.env.Account, Region: at.env.Region, Function: iam.FunctionName(at.env.Cluster), CLI: version}
	stack, err := at.account.Stack(ctx, install.StackName(s.Cluster))
	if err != nil {
		return err
	}
	if stack != nil {
		s.Stack, s.Since = stack.Status, stack.Created
		if !stack.Change.IsZero() {
			s.Since = stack.Change
		}
	}
	f, err := at.account.Function(ctx, s.Function)
	if err != nil {
		return err
	}
	if f == nil {
		return fmt.Errorf("function %s does not exist in account %s, region %s: create it with kops-spot install", s.Function, s.Account, s.Region)
	}
	s.State, s.Mode = f.State, f.Environment["KOPS_SPOT_MODE"]
	heard, err := rehearse.New(at.aws).Summarize(ctx, iam.LogGroup(s.Cluster), time.Now().Add(-o.since))
	if err != nil {
		return err
	}
	s.Looked.Back = o.since
	if heard.SelfCheck != nil {
		s.Program, s.Ready, s.Checked = heard.SelfCheck.Program, heard.SelfCheck.Result, &heard.SelfCheck.At
	}
	s.Outcomes = heard.Last(o.last)
	return c.printResult(s, func(w io.Writer, o term.Options) error { return term.ShowStatus(w, s, o) })
}
