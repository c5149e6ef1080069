package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/rehearse"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type rehearseOptions struct {
	kubeFlags
	event, bus, function, logGroup string

	wait time.Duration
}

// rehearsed are the event kinds that can be rehearsed.
var rehearsed = []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate, spot.Rebalance}

func rehearseCommand(c *console) *cobra.Command {
	var o rehearseOptions
	cmd := &cobra.Command{
		Use:   "rehearse NODE",
		Short: "Send a test interruption through EventBridge and show the outcome",
		Long: "Send a test interruption of the node's instance through EventBridge and follow it to its outcome. This exercises\n" +
			"every link: rule, permission, function, authentication and plan.\n\n" +
			"By default the function only plans. With KOPS_SPOT_REHEARSALS=act it drains the node, never overrides a\n" +
			"PodDisruptionBudget, requests no replacement, and restores the node afterwards.",
		Example: "  kops-spot rehearse i-0a1b2c3d4e5f60718",
		Args:    oneArg,
		RunE:    func(cmd *cobra.Command, args []string) error { return c.rehearse(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	o.register(f)
	f.StringVar(&o.event, "event", string(spot.SpotTerminate), "The event `kind`: "+listed(rehearsed))
	f.StringVar(&o.bus, "bus", "default", "The event `bus`")
	f.StringVar(&o.function, "function", "", "The `name` of the function whose log contains the outcome (default: the cluster's function)")
	f.StringVar(&o.logGroup, "log-group", "", "The `name` of the log group (default: the function's)")
	f.DurationVar(&o.wait, "wait", 3*time.Minute, "How `long` to wait for the outcome")
	c.applyFlags(f)
	return cmd
}

func (c *console) rehearse(ctx context.Context, o rehearseOptions, name string) error {
	kind := spot.Kind(o.event)
	if !slices.Contains(rehearsed, kind) {
		return fmt.Errorf("invalid --event %q: use one of %s", o.event, listed(rehearsed))
	}
	if o.wait <= 0 {
		return fmt.Errorf("invalid --wait %s: use a positive duration such as 3m", o.wait)
	}
	k, err := c.connect(ctx, o.kubeFlags)
	if err != nil {
		return err
	}
	n, err := findNode(ctx, k, name, "")
	if err != nil {
		return err
	}
	m, err := machineOf(n)
	if err != nil {
		return err
	}
	cfg, err := awsLogin(ctx, m.region)
	if err != nil {
		return err
	}
	if err := ownMachine(ctx, aws.New(cfg), k.name, m); err != nil {
		return fmt.Errorf("nothing was sent: %w", err)
	}
	stage, group := rehearse.New(cfg), o.group(k.name)
	if there, err := stage.HasLog(ctx, group); err != nil { // the outcome could not be read
		return fmt.Errorf("nothing was sent: %w", err)
	} else if !there {
		c.say(term.Mind, "log group %s does not exist yet: the function has never run, or has another name (--function)",
			group)
	}
	c.say(term.Mind, "node %s of %s: sending a rehearsal of %s for its instance %s; the instance itself is not interrupted.\n"+
		"The function only plans, or with KOPS_SPOT_REHEARSALS=act drains the node without overriding budgets", n.Name, k.name, kind, m.id)
	if err := c.ask(ctx, "Send it?"); err != nil {
		return err
	}
	sent := time.Now()
	id, err := stage.Send(ctx, spot.Interruption{Kind: kind, Instance: m.id, Region: m.region}, o.bus)
	if err != nil {
		return err
	}
	c.say(term.Good, "sent event %s\nwaiting up to %[3]s for its outcome in log group %[2]s", id, group, o.wait)
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	const early = 10 * time.Minute // the log's clock is not ours
	out, err := stage.FromLog(ctx, group, id, sent.Add(-early), func(what string) { c.say(term.Good, "%s", what) })
	if err != nil {
		return withChecklist(err, group)
	}
	return c.printRehearsal(out)
}

// ownMachine makes sure that the account has just this machine for just this cluster.
func ownMachine(ctx context.Context, cloud spot.Cloud, cluster string, m machine) error {
	i, err := cloud.Instance(ctx, m.id)
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return fmt.Errorf("the AWS credentials lead to an account that has no instance %s in %s: "+
			"they or the kubeconfig point elsewhere: choose the account with AWS_PROFILE, or the cluster with --context", m.id, m.region)
	case err != nil:
		return err
	case i.Tags[spot.TagCluster] != cluster:
		return fmt.Errorf("the instance %s has the tag %s=%s, and the kubeconfig leads to %s: "+
			"the AWS credentials or the kubeconfig point elsewhere", m.id, spot.TagCluster, i.Tags[spot.TagCluster], cluster)
	}
	return nil
}

// group returns the log group that contains the outcome.
func (o rehearseOptions) group(cluster string) string {
	return cmp.Or(o.logGroup, "/aws/lambda/"+cmp.Or(o.function, iam.FunctionName(cluster)))
}

// withChecklist adds what to check if there was no outcome.
func withChecklist(err error, group string) error {
	if !errors.Is(err, rehearse.ErrNoOutcome) {
		return err
	}
	return fmt.Errorf("%w. Check, in this order, that a rule of the bus is enabled and matches the source kops-spot.rehearsal; "+
		"that its target is the function; that the function's policy allows EventBridge to invoke it; that the function was "+
		"invoked and not throttled; and that this is its log (--function, --log-group) and the function can start and write it: "+
		"aws logs tail %s --since 1h", err, group)
}

func (c *console) printRehearsal(out spot.Outcome) error {
	if err := c.printOutcome(out); err != nil {
		return err
	}
	switch out.Result {
	case spot.Planned, spot.Drained, spot.Cordoned, spot.Skipped:
		return nil
	}
	return fmt.Errorf("the rehearsal ended with result %s: %s", out.Result, cmp.Or(out.Reason, "see above"))
}
