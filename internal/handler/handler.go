// Package handler carries out the plans of package spot: it locates the node, cordons it, requests a replacement,
// drains the node, cleans up after the instance and reports the outcome.
package handler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// reportMargin is reserved at the end of an invocation for reporting the outcome.
	reportMargin = 5 * time.Second

	// previewLimit limits a preview.
	previewLimit = 15 * time.Second

	// skipLimit limits the lookups for an event that the policy ignores.
	skipLimit = 15 * time.Second

	// expiredLimit limits the lookup for an event whose deadline has passed.
	expiredLimit = 5 * time.Second
)

// Handler handles interruptions of the nodes of one cluster. It has no state between calls: the state is in the node's
// annotations, the instance's tags and lifecycle state, and the pods' deletion timestamps. So an event can be handled
// twice, and another invocation can take over.
type Handler struct {
	Cluster spot.Cluster
	Cloud   spot.Cloud
	Policy  spot.Policy

	// Autoscaler is CAST AI's autoscaler; nil unless Policy.HasAutoscaler.
	Autoscaler spot.Autoscaler

	Publisher spot.Publisher // of notifications; nil for none

	Log *slog.Logger // one line per step; nil for none
}

// Handle handles an interruption: it cordons and drains the node and requests a replacement at the same time. It
// returns when the node is empty, at the deadline, or before the invocation ends. An error means that nothing was
// changed and a retry may help; otherwise the Outcome contains what was done.
func (h *Handler) Handle(ctx context.Context, in spot.Interruption) (spot.Outcome, error) {
	if in.Rehearsal && !h.Policy.DrainRehearsals {
		return h.Preview(ctx, in)
	}
	c := h.newInvocation(ctx, in)
	out, err := c.run(ctx)
	c.publishing.Wait()
	if err == nil {
		c.publishFinished(ctx, &out)
	}
	return out, err
}

// invocation is one call of a Handler.
type invocation struct {
	*Handler
	in    spot.Interruption
	began time.Time
	limit time.Time // the end of the invocation, less reportMargin; zero for none

	node       *lookup[spot.Node]
	instance   *lookup[spot.Instance]
	membership *lookup[spot.Membership]
	hook       *spot.Hook
	late       *spot.Plan // of a missed interruption

	settle time.Duration // how long an empty node is watched: see settleTime

	cordoned    chan struct{}  // closed when the cordon has succeeded or failed
	publishing  sync.WaitGroup // publishStarted
	started     bool           // NotificationStarted was due
	unpublished []string       // why notifications could not be published
}

func (h *Handler) newInvocation(ctx context.Context, in spot.Interruption) *invocation {
	c := &invocation{Handler: h, in: in, began: time.Now(), settle: settleTime, cordoned: make(chan struct{}),
		node: newLookup[spot.Node](), instance: newLookup[spot.Instance](), membership: newLookup[spot.Membership]()}
	c.in.Time = spot.Earlier(in.Time, c.began).UTC().Round(0) // EC2's clock may be ahead: the notice is never longer
	if end, ok := ctx.Deadline(); ok {
		c.limit = end.Add(-reportMargin)
	}
	return c
}

func (c *invocation) run(ctx context.Context) (spot.Outcome, error) {
	plan := c.plan(spot.Target{}) // by the event alone
	switch {
	case c.in.Replayed:
		return c.newOutcome(plan), nil
	case !c.limit.IsZero() && !c.began.Before(c.limit):
		return spot.Outcome{}, fmt.Errorf("the invocation ends in %s, of which %s are reserved for reporting: "+
			"set the function's timeout to 150 s or more", c.limit.Add(reportMargin).Sub(c.began).Round(time.Second), reportMargin)
	case c.in.Kind == spot.StateChange:
		return c.cleanUp(ctx)
	case c.in.Kind == spot.LaunchFailed:
		return c.launchFailed(ctx)
	case c.in.Kind == spot.LifecycleTerminate:
		return c.lifecycle(ctx)
	case plan.Result == spot.Expired:
		return c.expired(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, plan.Until)
	defer cancel()
	if plan.Result == spot.Skipped {
		return c.skip(ctx)
	}
	c.startLookups(ctx, c.nodeCannotRegister)
	c.publishing.Go(func() { c.publishStarted(ctx) })

	replacing, stopReplacing := context.WithCancel(ctx)
	defer stopReplacing()
	replaced := make(chan spot.ReplacementResult, 1)
	go func() { replaced <- c.replace(replacing) }()
	drained := c.drainNode(ctx, nil)
	if drained.Node == "" && !c.mustAct() {
		cancel() // not our instance: no replacement either
	}
	defer time.AfterFunc(replaceLimit, stopReplacing).Stop()
	return c.outcome(drained, <-replaced)
}

// plan returns the plan based on the facts in t. It always uses the time at which the invocation began, so that facts
// that arrive later are judged by the same clock.
func (c *invocation) plan(t spot.Target) spot.Plan {
	if c.late != nil {
		return *c.late
	}
	return c.Policy.Plan(c.in, t, c.began, c.limit)
}

// mustAct reports whether to act on the interruption, based on what is known so far.
func (c *invocation) mustAct() bool { return c.plan(c.target()).Result == "" }

// expired reports an event whose deadline has passed: Expired or Missed. If the instance of a missed event is still
// running, it evicts the pods.
func (c *invocation) expired(ctx context.Context) (spot.Outcome, error) {
	looking, cancel := context.WithTimeout(ctx, expiredLimit)
	defer cancel()
	c.startLookups(looking, always)
	wait(looking, c.instance.done, expiredLimit)
	wait(looking, c.node.done, expiredLimit)
	t := c.target()
	plan := c.plan(t)
	out := c.newOutcome(plan)
	if plan.Result != spot.Missed || t.Node == nil || t.Instance == nil || t.Instance.State != spot.StateRunning {
		return out, nil
	}
	late := c.Policy.LatePlan(time.Now(), c.limit)
	c.late = &late
	ctx, cancel = context.WithDeadline(ctx, late.Until)
	defer cancel()
	drained, err := c.outcome(c.drainNode(ctx, nil), spot.ReplacementResult{Action: late.Replace.Action, Reason: late.Replace.Reason})
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
		return out, nil
	}
	drained.Result, drained.Reason, drained.Deadline = out.Result, out.Reason, out.Deadline
	return drained, nil
}

// skip reports an event that the policy ignores, and notifies the autoscaler if there is one.
func (c *invocation) skip(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, skipLimit)
	defer cancel()
	c.startLookups(ctx, always)
	replaced := c.replace(ctx)
	t := c.target()
	plan := c.plan(t)
	switch {
	case plan.Result != spot.Skipped:
		return c.newOutcome(plan), nil
	case t.Node == nil && t.Instance == nil:
		return spot.Outcome{}, c.failure()
	}
	out := c.newOutcome(plan)
	out.SetReplacement(replaced)
	return out, nil
}

func (c *invocation) log(action, msg string, args ...any) {
	if c.Log != nil {
		c.Log.Info(msg, append([]any{"action", action, "event", c.in.EventID, "instance", c.in.Instance,
			"at", spot.ToSeconds(time.Since(c.in.Time))}, args...)...)
	}
}
