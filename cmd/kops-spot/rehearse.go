package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	wait                           time.Duration
}

// rehearsed are the event kinds that can be rehearsed.
var rehearsed = []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate, spot.Rebalance}

func rehearseCommand(c *console) *cobra.Command {
	var o rehearseOptions
	cmd := &cobra.Command{
		Use:   "rehearse NODE",
		Short: "Send a test interruption through EventBridge and show the outcome",
		Long: `Send a test interruption of the node's instance through EventBridge and follow it to its outcome.
This exercises every link: rule, permission, function, authentication and plan.

By default the function only plans. With KOPS_SPOT_REHEARSALS=act it drains one node at a time, never overrides
a PodDisruptionBudget, requests no replacement, and restores the node afterwards.`,
		Example: "  kops-spot rehearse i-0a1b2c3d4e5f60718",
		Args:    oneArg,
		RunE:    func(cmd *cobra.Command, args []string) error { return c.rehearse(cmd.Context(), o, args[0]) },
	}
	f := cmd.Flags()
	o.register(f)
	kindFlag(cmd, &o.event, rehearsed)
	f.StringVar(&o.bus, "bus", "default", "The event `bus`")
	f.StringVar(&o.function, "function", "",
		"The `name` of the function whose log contains the outcome (default: the cluster's function)")
	f.StringVar(&o.logGroup, "log-group", "", "The `name` of the log group (default: the function's)")
	f.DurationVar(&o.wait, "wait", 3*time.Minute, "Wait this `duration` for the outcome")
	c.applyFlags(f)
	return cmd
}

func (c *console) rehearse(ctx context.Context, o rehearseOptions, name string) error {
	kind, err := parseKind(o.event, rehearsed)
	if err != nil {
		return err
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
	i, err := instanceOf(n)
	if err != nil {
		return err
	}
	cfg, err := c.awsConfig(ctx, i.region)
	if err != nil {
		return err
	}
	if err := verifyInstance(ctx, aws.New(cfg), k.ref.Cluster, i); err != nil {
		return fmt.Errorf("nothing was sent: %w", err)
	}
	client, group := rehearse.New(cfg), o.group(k.ref.Cluster)
	if exists, err := client.HasLog(ctx, group); err != nil { // the outcome could not be read
		return fmt.Errorf("nothing was sent: %w", err)
	} else if !exists {
		c.say(term.Mind, "log group %s does not exist yet: the function has never run, or has another name (--function)",
			group)
	}
	c.say(term.Mind, "node %s of %s: sending a rehearsal of %s for its instance %s; the instance itself is not "+
		"interrupted.\nThe function only plans, or with KOPS_SPOT_REHEARSALS=act drains the node without overriding budgets",
		n.Name, k.ref.Cluster, kind, i.id)
	if err := c.ask(ctx, "Send it?"); err != nil {
		return err
	}
	const clockSkew = 10 * time.Minute // between this computer and the log
	since := time.Now().Add(-clockSkew)
	id, err := client.Send(ctx, spot.Interruption{Kind: kind, Instance: i.id, Region: i.region}, o.bus)
	if err != nil {
		return err
	}
	c.say(term.Good, "sent event %s\nwaiting up to %s for its outcome in log group %s", id, o.wait, group)
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	out, err := client.FromLog(ctx, group, id, since, func(message string) { c.say(term.Good, "%s", message) })
	if err != nil {
		return withChecklist(err, group)
	}
	return c.printRehearsal(out)
}

// verifyInstance verifies that the AWS account has the instance, and that the instance belongs to the cluster.
func verifyInstance(ctx context.Context, cloud spot.Cloud, cluster string, i instance) error {
	is, err := cloud.Instance(ctx, i.id)
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return fmt.Errorf("the AWS account has no instance %s in %s: the credentials or the kubeconfig point elsewhere: "+
			"choose the account with AWS_PROFILE, or the cluster with --context", i.id, i.region)
	case err != nil:
		return err
	case is.Tags[spot.TagCluster] != cluster:
		return fmt.Errorf("instance %s has the tag %s=%s, but the kubeconfig connects to %s: the AWS credentials or the "+
			"kubeconfig point elsewhere: choose the account with AWS_PROFILE, or the cluster with --context",
			i.id, spot.TagCluster, is.Tags[spot.TagCluster], cluster)
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
	return fmt.Errorf("%w. Check, in this order, that a rule of the bus is enabled and matches the source "+
		"kops-spot.rehearsal; that its target is the function; that the function's policy allows EventBridge to invoke it; "+
		"that the function was invoked and not throttled; and that this is its log (--function, --log-group) and the "+
		"function can start and write it: aws logs tail %s --since 1h", err, group)
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
