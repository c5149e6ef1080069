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
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/term"
)

type invokeOptions struct {
	place
	event    string
	now, yes bool
}

func invokeCommand(c *console) *cobra.Command {
	var o invokeOptions
	cmd := &cobra.Command{
		Use:   "invoke -e FILE",
		Short: "does here, with your own credentials, what the function would do with an event",
		Long: "invoke reads an event as EventBridge would send it, and says what the function would do with it now; it changes\n" +
			"nothing. With --yes it does it: the node is cordoned and drained, and its instance replaced, as if the function had\n" +
			"been invoked. That takes as long as the event leaves time.\n\n" +
			"An event of the past is told as such: --now has it sent now. Where the function's settings are not the defaults, set\n" +
			"them here too: KOPS_SPOT_FORCE and the like",
		Example: "  kops-spot invoke -e events/spot-interruption.json\n" +
			"  kops-spot invoke -e warning.json --now --output json",
		Args: nothing,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.invoke(cmd.Context(), o) },
	}
	f := cmd.Flags()
	o.flags(f)
	f.StringVarP(&o.event, "event", "e", "", "the `file` that the event is in; - for standard input")
	f.BoolVar(&o.now, "now", false, "take the event for one that was sent now")
	f.BoolVarP(&o.yes, "yes", "y", false, "do it, and do not only say what would be done")
	return cmd
}

func (c *console) invoke(ctx context.Context, o invokeOptions) error {
	all, err := c.readEvent(o)
	if err != nil {
		return err
	}
	k, err := c.connect(ctx, o.place)
	if err != nil {
		return err
	}
	h := spot.Handler{Cluster: k.Cluster}
	if h.Policy, _, err = c.policy(k.name); err != nil {
		return err
	}
	cfg, err := awsLogin(ctx, all[0].Region)
	if err != nil {
		return err
	}
	h.Cloud = aws.New(cfg)
	handle := h.Preview
	if o.yes {
		for _, in := range all {
			if err := ownMachine(ctx, h.Cloud, k.name, machine{in.Instance, in.Region}); err != nil {
				return fmt.Errorf("nothing was done: %w", err)
			}
		}
		handle = h.Handle
	}
	return c.handleAll(ctx, o, all, handle)
}

// handleAll handles the interruptions of one event side by side, since the time of all of them runs, and tells each.
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
			errs[i] = fmt.Errorf("instance %s: nothing was done for it: %w", in.Instance, errs[i])
			continue
		case outs[i].Result == spot.Incomplete, outs[i].Result == spot.NodeNotFound:
			errs[i] = fmt.Errorf("instance %s: it ended %s: %s", in.Instance, outs[i].Result, cmp.Or(outs[i].Reason, "see above"))
		}
		if err := c.tellOutcome(outs[i]); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// readEvent reads the interruptions that an event speaks of.
func (c *console) readEvent(o invokeOptions) ([]spot.Interruption, error) {
	var text []byte
	var err error
	switch o.event {
	case "":
		return nil, errors.New("say which event with -e: a file such as events/spot-interruption.json, or - for standard input")
	case "-":
		text, err = io.ReadAll(c.stdin)
	default:
		text, err = os.ReadFile(o.event)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the event: %w", err)
	}
	e, err := eventbridge.Decode(text)
	var unknown *eventbridge.UnknownError
	switch {
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("the function would leave this event alone: %w", err)
	case err != nil:
		return nil, err
	case e.SelfCheck:
		return nil, errors.New("this event asks the function whether it could act: send it to the function itself, with aws lambda invoke")
	}
	if o.now {
		for i := range e.Interruptions {
			e.Interruptions[i].Time, e.Interruptions[i].Replayed = time.Now(), false
		}
	}
	return e.Interruptions, nil
}

// tellOutcome is an outcome in the form that was asked for.
func (c *console) tellOutcome(out spot.Outcome) error {
	return c.tell(out, func(w io.Writer, o term.Options) error { return term.Timeline(w, out, o) })
}
