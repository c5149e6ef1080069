package handler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// hookLimit is how long a lifecycle hook's times are asked for, before anything else can be decided.
const hookLimit = 10 * time.Second

// leastBeat is the shortest pause between two heartbeats.
const leastBeat = 5 * time.Second

// lifecycle drains the node of an instance that its group terminates, while the hook holds it, and then lets the group
// go on.
func (c *invocation) lifecycle(ctx context.Context) (spot.Outcome, error) {
	if plan := c.plan(); plan.Verdict == spot.Noted { // the event alone says so
		return c.skipped(plan), nil
	}
	if err := c.readHook(ctx); err != nil {
		return spot.Outcome{}, err
	}
	if !c.began.Before(c.plan().Deadline) {
		return c.handleExpired(ctx)
	}
	if !c.limit.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.limit)
		defer cancel()
	}
	c.startLookups(ctx, always) // a node that is not there now will not come any more
	c.waitForPlan(ctx)
	wait(ctx, c.node.done, spot.NoDeadlineLimit)
	plan, t := c.plan(), c.target()
	switch {
	case plan.Verdict == spot.Noted:
		return c.skipped(plan), nil
	case plan.Verdict != spot.Act:
		return c.newOutcome(plan), nil
	case t.Node == nil && !errors.Is(t.NodeErr, spot.ErrNotFound):
		return spot.Outcome{}, c.failure()
	}
	told := &spot.LifecycleResult{Hook: c.in.Action.Hook, Group: c.in.Action.Group}
	holding, letGo := context.WithCancel(ctx)
	moves, held := make(chan time.Time, 1), make(chan error, 1)
	go func() { held <- c.hold(holding, told, moves) }()
	drained := c.drainNode(ctx, moves)
	letGo()
	holdErr := <-held
	out, err := c.outcome(drained, spot.ReplacementResult{Action: plan.Replace.Action, Reason: plan.Replace.Reason})
	if err != nil {
		return out, err
	}
	out.Lifecycle = told
	c.complete(ctx, &out, holdErr)
	return out, nil
}

// readHook reads how long the hook holds the instance. A hook that is not there any more holds nothing: what the table
// says counts then.
func (c *invocation) readHook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	return scaling.persist(ctx, func(ctx context.Context) error {
		h, err := c.Cloud.Hook(ctx, c.in.Action.Group, c.in.Action.Hook)
		switch {
		case err == nil:
			c.hook = &h
		case errors.Is(err, spot.ErrNotFound), errors.Is(err, spot.ErrPermanent) && !errors.Is(err, spot.ErrPossiblyTransient):
			return nil
		}
		return err
	})
}

// hold puts the instance's end off while the node is drained, as long as the hook lets it.
func (c *invocation) hold(ctx context.Context, told *spot.LifecycleResult, moves chan time.Time) error {
	if c.hook == nil {
		return nil
	}
	last := c.in.Time.Add(c.hook.Global)
	for time.Now().Before(last) {
		err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Heartbeat(ctx, c.in.Action) })
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("putting the instance's end off: %w", err)
		}
		told.Heartbeats++
		select {
		case <-moves: // not taken in yet: this one counts
		default:
		}
		moves <- spot.Earlier(time.Now().Add(c.hook.Heartbeat), last)
		if !sleep(ctx, max(c.hook.Heartbeat/2, leastBeat)) {
			return nil
		}
	}
	return nil
}

// complete lets the group go on, if the node is empty. Otherwise the hook's own timeout decides: until then the pods that
// are left have their time.
func (c *invocation) complete(ctx context.Context, out *spot.Outcome, held error) {
	if held != nil {
		out.Problems = append(out.Problems, held.Error())
	}
	if out.Result != spot.Drained && out.Result != spot.NodeNotFound {
		out.Lifecycle.Reason = "the node is not empty: the hook's timeout decides"
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportMargin)
	defer cancel()
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Complete(ctx, c.in.Action) })
	if err != nil {
		out.Lifecycle.Reason = "completing the lifecycle action: " + err.Error()
		out.Problems = append(out.Problems, out.Lifecycle.Reason)
		return
	}
	out.Lifecycle.Completed = spot.SecondsSince(c.in.Time, time.Now())
	c.log("complete-hook", "completed lifecycle action", "group", out.Lifecycle.Group, "hook", out.Lifecycle.Hook)
}
