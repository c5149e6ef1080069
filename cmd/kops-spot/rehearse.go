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
	place
	event, bus, function, logGroup string

	wait time.Duration
}

// rehearsed are the warnings that can be rehearsed.
var rehearsed = []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate, spot.Rebalance}

func rehearseCommand(c *console) *cobra.Command {
	var o rehearseOptions
	cmd := &cobra.Command{
		Use:   "rehearse NODE",
		Short: "sends a made-up warning the way that a real one takes, and shows what came of it",
		Long: "rehearse has EventBridge send the function a warning of the node's instance that nobody has given, and follows it\n" +
			"to its outcome. What is rehearsed is the whole chain: rule, permission, function, log-in, plan.\n\n" +
			"The function only plans, unless it is configured with KOPS_SPOT_REHEARSALS=act: then it drains the node, with respect\n" +
			"for every budget, asks nobody for a replacement, and takes its marks off the node again",
		Example: "  kops-spot rehearse i-0a1b2c3d4e5f60718",
		Args:    one("which node"),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.rehearse(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.StringVar(&o.event, "event", string(spot.SpotTerminate), "the `kind` of warning: "+listed(rehearsed))
	f.StringVar(&o.bus, "bus", "default", "the event `bus`")
	f.StringVar(&o.function, "function", "", "the function's `name`, in whose log the outcome is looked for; else the one of the cluster")
	f.StringVar(&o.logGroup, "log-group", "", "the `name` of the log group to look in; else the one that Lambda gives the function")
	f.DurationVar(&o.wait, "wait", 3*time.Minute, "how `long` to wait for the outcome")
	c.yesFlag(f)
	return cmd
}

func (c *console) rehearse(ctx context.Context, o rehearseOptions, name string) error {
	kind := spot.Kind(o.event)
	if !slices.Contains(rehearsed, kind) {
		return fmt.Errorf("--event %s: that cannot be rehearsed; what can is %s", o.event, listed(rehearsed))
	}
	if o.wait <= 0 {
		return fmt.Errorf("--wait %s: it is how long to wait, such as 3m", o.wait)
	}
	k, err := c.connect(ctx, o.place)
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
	if there, err := stage.HasLog(ctx, group); err != nil { // the outcome could not be looked for
		return fmt.Errorf("nothing was sent: %w", err)
	} else if !there {
		c.say(term.Mind, "there is no log group %s yet: the function has never run, or is called otherwise (--function)",
			group)
	}
	c.say(term.Mind, "node %s of %s: EventBridge is going to send a rehearsal of %s for its instance %s; nobody takes the machine.\n"+
		"The function plans, or with KOPS_SPOT_REHEARSALS=act drains the node, with respect for every budget", n.Name, k.name, kind, m.id)
	if err := c.ask(ctx, "send it?"); err != nil {
		return err
	}
	sent := time.Now()
	id, err := stage.Send(ctx, spot.Interruption{Kind: kind, Instance: m.id, Region: m.region}, o.bus)
	if err != nil {
		return err
	}
	c.say(term.Good, "sent: event %s\nits outcome is waited for in the log group %s, for %s at most", id, group, o.wait)
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	const early = 10 * time.Minute // the log's clock is not ours
	out, err := stage.FromLog(ctx, group, id, sent.Add(-early), func(what string) { c.say(term.Good, "%s", what) })
	if err != nil {
		return whereBroken(err, group)
	}
	return c.tellRehearsal(out)
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

// group is the log group in which the outcome is looked for.
func (o rehearseOptions) group(cluster string) string {
	return cmp.Or(o.logGroup, "/aws/lambda/"+cmp.Or(o.function, iam.FunctionName(cluster)))
}

// whereBroken says where a chain may be broken of which nothing was heard.
func whereBroken(err error, group string) error {
	if !errors.Is(err, rehearse.ErrNoOutcome) {
		return err
	}
	return fmt.Errorf("%w. Look, in this order, whether a rule of the bus is enabled and matches the source kops-spot.rehearsal; "+
		"its target is the function; the function's policy lets EventBridge invoke it; the function has been invoked and not "+
		"throttled; and whether this is its log (--function, --log-group), it may write it, and can start: "+
		"aws logs tail %s --since 1h shows what it says", err, group)
}

func (c *console) tellRehearsal(out spot.Outcome) error {
	if err := c.tellOutcome(out); err != nil {
		return err
	}
	switch out.Result {
	case spot.Planned, spot.Drained, spot.Cordoned, spot.Skipped:
		return nil
	}
	return fmt.Errorf("the rehearsal ended %s: %s", out.Result, cmp.Or(out.Reason, "see above"))
}
