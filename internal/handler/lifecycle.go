package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// hookLimit limits the read of a lifecycle hook, which comes before any decision.
	hookLimit = 10 * time.Second

	// holdFirst is how long the first heartbeat waits for EC2.
	holdFirst = time.Second

	// minHeartbeat is the shortest pause between heartbeats.
	minHeartbeat = 5 * time.Second
)

// lifecycle drains the node of an instance that its Auto Scaling group terminates, while a lifecycle hook delays the
// termination, and then completes the lifecycle action.
func (c *invocation) lifecycle(ctx context.Context) (spot.Outcome, error) {
	if plan := c.plan(spot.Target{}); plan.Result == spot.OtherCluster || plan.Result == spot.Skipped {
		return c.newOutcome(plan), nil
	}
	if err := c.readHook(ctx); err != nil {
		return spot.Outcome{}, err
	}
	if c.plan(spot.Target{Hook: c.hook}).Result == spot.Expired {
		return c.expired(ctx)
	}
	if !c.limit.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.limit)
		defer cancel()
	}
	result := &spot.LifecycleResult{Hook: c.in.Action.Hook, Group: c.in.Action.Group}
	c.startLookups(ctx, always) // no node registers for an instance that is terminated
	c.publishing.Go(func() { c.publishStarted(ctx) })
	holding, letGo := context.WithCancel(ctx)
	defer letGo()
	updates, held := make(chan hookUpdate, 1), make(chan error, 1)
	go func() { held <- c.hold(holding, result, updates) }()
	wait(ctx, c.node.done, spot.NoDeadlineLimit)
	t := c.target()
	plan := c.plan(t)
	switch {
	case plan.Result != "":
		return c.newOutcome(plan), nil
	case t.Node == nil && !errors.Is(t.NodeErr, spot.ErrNotFound):
		return spot.Outcome{}, c.failure()
	}
	drained := c.drainNode(ctx, updates)
	letGo()
	holdErr := <-held
	out, err := c.outcome(drained, spot.ReplacementResult{Action: plan.Replace.Action, Reason: plan.Replace.Reason})
	if err != nil {
		return out, err
	}
	out.Lifecycle = result
	c.complete(ctx, &out, holdErr, drained.Dead)
	return out, nil
}

// readHook reads the hook's timeouts. If the hook no longer exists or cannot be read, the event's default notice
// applies.
func (c *invocation) readHook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	return toAWS.persist(ctx, func(ctx context.Context) error {
		h, err := c.Cloud.Hook(ctx, c.in.Action.Group, c.in.Action.Hook)
		switch {
		case err == nil:
			c.hook = &h
		case errors.Is(err, spot.ErrNotFound), errors.Is(err, spot.ErrPermanent):
			return nil
		}
		return err
	})
}

// hookUpdate is a new deadline of a lifecycle hook.
type hookUpdate struct {
	deadline time.Time
	last     bool // no heartbeat moves it any more
}

// hold sends heartbeats, up to the hook's global timeout, and the new deadlines to updates. It starts when the instance
// is known to be ours, or after holdFirst.
func (c *invocation) hold(ctx context.Context, result *spot.LifecycleResult, updates chan hookUpdate) error {
	wait(ctx, c.instance.done, holdFirst)
	if c.hook == nil || c.notOurs() || !c.mustAct() {
		return nil
	}
	send := func(u hookUpdate) {
		select {
		case <-updates: // replace an update that was not read yet
		default:
		}
		updates <- u
	}
	last, deadline := c.in.Time.Add(c.hook.Global), c.in.Time.Add(min(c.hook.Heartbeat, c.hook.Global))
	for time.Now().Before(last) {
		var over error // the lifecycle action is over
		trying, cancel := context.WithDeadline(ctx, deadline)
		err := toAWS.persist(trying, func(ctx context.Context) error {
			err := c.Cloud.Heartbeat(ctx, c.in.Action)
			if errors.Is(err, spot.ErrPermanent) {
				over, err = err, nil
			}
			return err
		})
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err = cmp.Or(over, err); err != nil {
			send(hookUpdate{deadline, true})
			return fmt.Errorf("sending a lifecycle heartbeat: %w", err)
		}
		result.Heartbeats++
		deadline = spot.Earlier(time.Now().Add(c.hook.Heartbeat), last)
		send(hookUpdate{deadline: deadline})
		if !sleep(ctx, max(c.hook.Heartbeat/2, minHeartbeat)) {
			return nil
		}
	}
	return nil
}

// complete completes the lifecycle action if the node is empty or dead. Otherwise the remaining pods keep the time
// until the hook's timeout, even those left to the kubelet.
func (c *invocation) complete(ctx context.Context, out *spot.Outcome, held error, dead bool) {
	if held != nil {
		out.Problems = append(out.Problems, held.Error())
	}
	if dead {
		out.Lifecycle.Reason = "the kubelet has stopped, and the remaining pods are past their grace periods"
	} else if out.Result != spot.Drained && out.Result != spot.NodeNotFound || leftToKubelet(out.Pods) != "" {
		out.Lifecycle.Reason = "the node is not empty: the instance is terminated at the hook's timeout"
		return
	}
	ctx, cancel := c.afterWork(ctx)
	defer cancel()
	var over error // the lifecycle action is over
	err := toAWS.persist(ctx, func(ctx context.Context) error {
		err := c.Cloud.Complete(ctx, c.in.Action)
		if errors.Is(err, spot.ErrPermanent) {
			over, err = err, nil
		}
		return err
	})
	if err = cmp.Or(over, err); err != nil {
		out.Lifecycle.Reason = "completing the lifecycle action: " + err.Error()
		out.Problems = append(out.Problems, out.Lifecycle.Reason)
		return
	}
	out.Lifecycle.Completed = spot.SecondsSince(c.in.Time, time.Now())
	c.log("complete-hook", "completed lifecycle action", "group", out.Lifecycle.Group, "hook", out.Lifecycle.Hook)
}
