package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/castai/kops-spot/internal/aws"
	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type invokeOptions struct {
	kubeFlags
	event    string
	now, yes bool
}

func invokeCommand(c *console) *cobra.Command {
	var o invokeOptions
	cmd := &cobra.Command{
		Use:   "invoke -e FILE",
		Short: "Handle an event file locally (dry run unless --yes)",
		Long: `Read an EventBridge event and show what the function would do with it now, using your own
credentials. With --yes, do it: cordon and drain the node and replace its instance, as the function would.
This can take until the deadline of the event.

Use --now for an event from the past. If the function's settings differ from the defaults, set them here too
(KOPS_SPOT_FORCE and so on).`,
		Example: "  kops-spot invoke -e events/spot-interruption.json\n" +
			"  kops-spot invoke -e warning.json --now --output json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.invoke(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.register(f)
	f.StringVarP(&o.event, "event", "e", "", "The event `file`; - for standard input")
	_ = cmd.MarkFlagRequired("event")
	f.BoolVar(&o.now, "now", false, "Set the time of the event to now")
	f.BoolVarP(&o.yes, "yes", "y", false, "Handle the event instead of a dry run")
	return cmd
}

func (c *console) invoke(ctx context.Context, o invokeOptions) error {
	all, err := c.readEvent(o)
	if err != nil {
		return err
	}
	k, err := c.connect(ctx, o.kubeFlags)
	if err != nil {
		return err
	}
	h := handler.Handler{Cluster: k.Cluster}
	if h.Policy, _, err = c.policy(k.ref.Cluster); err != nil {
		return err
	}
	cfg, err := c.awsConfig(ctx, all[0].Region)
	if err != nil {
		return err
	}
	h.Cloud = aws.New(cfg)
	handle := h.Preview
	if o.yes {
		for _, in := range all {
			if in.Kind == spot.LaunchFailed {
				continue // nothing is changed
			}
			if err := verifyInstance(ctx, h.Cloud, k.ref.Cluster, instance{in.Instance, in.Region}); err != nil {
				return fmt.Errorf("nothing was changed: %w", err)
			}
		}
		handle = h.Handle
	}
	return c.handleAll(ctx, o, all, handle)
}

// handleAll handles the interruptions of one event in parallel: they have the same deadline.
func (c *console) handleAll(ctx context.Context, o invokeOptions, all []spot.Interruption,
	handle func(context.Context, spot.Interruption) (spot.Outcome, error)) error {
	outs, errs := make([]spot.Outcome, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, in := range all {
		wg.Go(func() { outs[i], errs[i] = handle(ctx, in) })
	}
	wg.Wait()
	for i, in := range all {
		switch {
		case errs[i] != nil:
			errs[i] = fmt.Errorf("handling %s failed: %w", in.Subject(), errs[i])
			continue
		case outs[i].Result.Failed():
			errs[i] = fmt.Errorf("%s: result %s: %s", in.Subject(), outs[i].Result, cmp.Or(outs[i].Reason, "see above"))
		}
		if err := c.printOutcome(outs[i]); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// readEvent reads the interruptions of an event.
func (c *console) readEvent(o invokeOptions) ([]spot.Interruption, error) {
	text, err := os.ReadFile(o.event)
	if o.event == "-" {
		text, err = io.ReadAll(c.stdin)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event: %w", err)
	}
	e, err := eventbridge.Decode(text)
	var unknown *eventbridge.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("the function would ignore this event: %w", err)
	case err != nil:
		return nil, err
	case e.SelfCheck:
		return nil, errors.New("this event is a self-check: send it to the function with aws lambda invoke")
	}
	if o.now {
		for i := range e.Interruptions {
			e.Interruptions[i].Time, e.Interruptions[i].Replayed = time.Now(), false
		}
	}
	return e.Interruptions, nil
}

func (c *console) printOutcome(out spot.Outcome) error {
	return c.printResult(out, func(w io.Writer, o term.Options) error { return term.Timeline(w, out, o) })
}
