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
	site
	since time.Duration
	last  int
}

func statusCommand(c *console) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "says what runs, and what has come of the last interruptions",
		Long: "status tells of the stack and the function, what the last self-check has found, and what came of the last interruptions,\n" +
			"as they stand in the function's log. It asks nobody to do anything; kops-spot check does",
		Example: "  kops-spot status --since 168h",
		Args:    nothing,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.site.flags(f)
	f.DurationVar(&o.since, "since", 24*time.Hour, "how `far` to look back")
	f.IntVar(&o.last, "last", 20, "how `many` interruptions at most")
	return cmd
}

func (c *console) status(ctx context.Context, o statusOptions) error {
	if o.since <= 0 || o.last < 1 {
		return fmt.Errorf("--since %s, --last %d: both are to be more than nothing", o.since, o.last)
	}
	at, err := c.stand(ctx, o.site)
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
		return fmt.Errorf("there is no function %s in account %s, region %s: kops-spot install makes it", s.Function, s.Account, s.Region)
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
	return c.tell(s, func(w io.Writer, o term.Options) error { return term.ShowStatus(w, s, o) })
}
