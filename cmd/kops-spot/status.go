package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/install"
	"github.com/castai/kops-spot/internal/rehearse"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type statusOptions struct {
	awsFlags
	since lookback
	last  int
}

func statusCommand(c *console) *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the deployed function and the outcomes of recent interruptions",
		Long: `Show the stack, the function, the result of the last self-check and the outcomes of recent
interruptions from the function's log. Use kops-spot check to test the installation.`,
		Example: "  kops-spot status --since 7d",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.register(f)
	o.since.register(f, 24*time.Hour)
	f.IntVar(&o.last, "last", 20, "The maximum `number` of interruptions")
	return cmd
}

// statusResult is the output of status.
type statusResult struct {
	Cluster  string         `json:"cluster"`
	Account  string         `json:"account"`
	Region   string         `json:"region"`
	Function string         `json:"function"`
	CLI      string         `json:"cli"`             // the version of this program
	Stack    string         `json:"stack,omitempty"` // its status; empty if there is no stack
	Since    time.Time      `json:"since,omitzero"`  // the time of the stack's last change
	State    string         `json:"state"`           // of the function
	Mode     string         `json:"mode"`
	Program  string         `json:"program,omitempty"` // the function's version, according to its last self-check
	Ready    string         `json:"ready,omitempty"`   // the result of the last self-check
	Checked  time.Time      `json:"checked,omitzero"`  // the time of the last self-check
	Outcomes []spot.Outcome `json:"outcomes"`          // newest first

	// Detached are the running instances that were detached from their groups: until EC2 reclaims them, they cost money.
	Detached            []detachedInstance `json:"detached,omitempty"`
	ReplacementFailures map[string]int     `json:"replacement_failures,omitempty"` // by group

	Overdue  []spot.OverdueInstance `json:"overdue,omitempty"`  // according to the last self-check
	Warnings []string               `json:"warnings,omitempty"` // of the last self-check

	Lookback spot.Seconds `json:"lookback"` // the outcomes are at most this old
}

type detachedInstance struct {
	Instance    string `json:"instance"`
	Group       string `json:"group"` // that it was detached from
	Interrupted string `json:"interrupted,omitempty"`
}

func (c *console) status(ctx context.Context, o statusOptions) error {
	since, err := o.since.start(time.Now())
	if err != nil {
		return err
	}
	if o.last < 1 {
		return fmt.Errorf("invalid --last %d: use a positive number", o.last)
	}
	at, err := c.openSession(ctx, o.awsFlags)
	if err != nil {
		return err
	}
	s := statusResult{Cluster: at.env.Cluster, Account: at.env.Account, Region: at.env.Region, CLI: version,
		Function: iam.FunctionName(at.env.Cluster), Lookback: spot.ToSeconds(time.Duration(o.since))}
	stack, err := at.account.Stack(ctx, install.StackName(s.Cluster))
	if err != nil {
		return err
	}
	if stack != nil {
		s.Stack, s.Since = stack.Status, cmp.Or(stack.Change, stack.Created)
	}
	f, err := at.account.Function(ctx, s.Function)
	if err != nil {
		return err
	}
	if f == nil {
		return fmt.Errorf("function %s does not exist in account %s, region %s: create it with kops-spot install",
			s.Function, s.Account, s.Region)
	}
	s.State, s.Mode = f.State, f.Environment["KOPS_SPOT_MODE"]
	log, err := rehearse.New(at.aws).Summarize(ctx, iam.LogGroup(s.Cluster), since)
	if err != nil {
		return err
	}
	if log.SelfCheck != nil {
		s.Program, s.Ready, s.Checked = log.SelfCheck.Program, log.SelfCheck.Result, log.Checked
		s.Overdue, s.Warnings = log.SelfCheck.Overdue, log.SelfCheck.Warnings
	}
	s.Outcomes = log.Last(o.last)
	for _, out := range log.Last(math.MaxInt) {
		if out.Result == spot.ReplacementFailed {
			if s.ReplacementFailures == nil {
				s.ReplacementFailures = map[string]int{}
			}
			s.ReplacementFailures[out.Event.Group]++
		}
	}
	instances, err := at.account.Tagged(ctx, spot.TagCluster, s.Cluster)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if group, ok := i.Tags[spot.TagDetached]; ok && i.Running {
			s.Detached = append(s.Detached, detachedInstance{i.ID, group, i.Tags[spot.TagInterruptedAt]})
		}
	}
	return c.printResult(s, func(w io.Writer, o term.Options) error {
		return term.Status(w, s.facts(), s.Outcomes, since, o)
	})
}

// facts returns the rows of the text output.
func (s statusResult) facts() [][]string {
	version, selfCheck := "unknown", "none in the log"
	stack := "none: the function was not created by kops-spot install or sam deploy"
	if s.Stack != "" {
		stack = s.Stack + " since " + term.Stamp(s.Since)
	}
	if s.Ready != "" {
		version, selfCheck = cmp.Or(s.Program, version), s.Ready+" at "+term.Stamp(s.Checked)
	}
	if version != s.CLI {
		version += " (this kops-spot: " + s.CLI + ")"
	}
	facts := [][]string{
		{"cluster", fmt.Sprintf("%s in account %s, region %s", s.Cluster, s.Account, s.Region)},
		{"function", fmt.Sprintf("%s, %s, mode %s", s.Function, s.State, s.Mode)},
		{"version", version}, {"stack", stack}, {"self-check", selfCheck}}
	for _, o := range s.Overdue {
		facts = append(facts, []string{"overdue", fmt.Sprintf("instance %s of node %s, deadline %s", o.Instance, o.Node,
			term.Stamp(o.Since))})
	}
	for _, d := range s.Detached {
		facts = append(facts, []string{"detached", fmt.Sprintf("instance %s of group %s still runs (interrupted: %s)",
			d.Instance, d.Group, cmp.Or(d.Interrupted, "unknown"))})
	}
	for _, group := range slices.Sorted(maps.Keys(s.ReplacementFailures)) {
		facts = append(facts, []string{"failures", fmt.Sprintf("group %s could not launch a replacement (%d×)", group,
			s.ReplacementFailures[group])})
	}
	for _, w := range s.Warnings {
		facts = append(facts, []string{"warning", w})
	}
	return facts
}
