// Package handler carries out the plans of package spot: it locates the node, cordons it, requests a replacement, drains
// the node, cleans up after the instance and reports the outcome.
package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func podCount(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}

// end is the outcome of a call that acts on nothing.
func (c *invocation) newOutcome(plan spot.Plan) spot.Outcome {
	out := spot.Outcome{Version: spot.OutcomeVersion, Cluster: c.Policy.Cluster, Reason: plan.Reason,
		Event:   spot.EventInfo{ID: c.in.EventID, Kind: c.in.Kind, Instance: c.in.Instance, Time: c.in.Time},
		Timings: spot.Timings{Started: spot.SecondsSince(c.in.Time, c.began), Finished: spot.SecondsSince(c.in.Time, time.Now())},
	}
	if !plan.Deadline.IsZero() {
		out.Deadline = plan.Deadline.UTC().Round(0)
	}
	switch plan.Verdict {
	case spot.Stale:
		out.Result = spot.Expired
	case spot.Foreign:
		out.Result = spot.OtherCluster
	}
	if n, _ := c.node.known(); n != nil {
		out.Node = n.Name
	}
	return out
}

// replacementError is why a replacement that the plan wanted was not asked for.
func replacementError(plan spot.Plan, r spot.ReplacementResult) error {
	return nilOr(plan.Replace.Action != spot.ReplaceNone && r.Action == spot.ReplaceNone, "replacing the instance: %w", errors.New(r.Reason))
}

// outcome puts the two halves together. If nothing was done and something went wrong, it is an error.
func (c *invocation) outcome(d drainResult, r spot.ReplacementResult) (spot.Outcome, error) {
	plan, t := c.plan(), c.target()
	out := c.newOutcome(plan)
	if plan.Verdict != spot.Act {
		return out, nil
	}
	changed := out.SetReplacement(r) || d.Changed
	out.Problems, out.AttachedVolumes = d.Problems, d.Attached
	switch {
	case t.Node == nil && errors.Is(t.NodeErr, errAbsentYet), t.Node == nil && errors.Is(t.NodeErr, spot.ErrNotFound):
		if t.Instance == nil && !changed {
			return spot.Outcome{}, c.failure()
		}
		out.Result, out.Reason = spot.NodeNotFound, "no node of the instance registered before the deadline"
		return out, nil
	case t.Node == nil:
		if !changed {
			return spot.Outcome{}, errors.Join(c.failure(), replacementError(plan, r))
		}
		out.Result, out.Reason = spot.Incomplete, "the cluster could not be asked for the node"
		out.Problems = append(out.Problems, c.failure().Error())
		return out, nil
	}
	began := out.Timings
	out.Timings = d.Timings
	out.Timings.Started, out.Timings.Finished = began.Started, began.Finished
	out.Plan, out.Cordon, out.Pods = d.Plan, &d.Cordon, d.Pods
	if out.Plan == nil { // the pods were never seen
		out.Plan = plan.Summary(c.in, true, nil)
	}
	out.Plan.SetReplacement(plan)
	remaining := 0
	for _, p := range d.Pods {
		if p.Status == spot.PodStillRunning {
			remaining++
		}
	}
	switch {
	case !plan.Drain && d.Cordon.Error != "" && !changed:
		return spot.Outcome{}, fmt.Errorf("cordoning node %s: %s", out.Node, d.Cordon.Error)
	case !plan.Drain && d.Cordon.Error != "":
		out.Result, out.Reason = spot.Incomplete, "the node could not be cordoned"
	case !plan.Drain:
		out.Result, out.Reason = spot.Cordoned, "the policy is to cordon the node and leave its pods"
	case !d.Listed && !changed:
		return spot.Outcome{}, errors.Join(fmt.Errorf("draining node %s: %s", out.Node, strings.Join(d.Problems, "; ")), replacementError(plan, r))
	case !d.Listed:
		out.Result, out.Reason = spot.Incomplete, "the node's pods could not be listed"
	case remaining > 0:
		out.Result, out.Reason = spot.Incomplete, "still there at the end: "+podCount(remaining)
	default:
		out.Result = spot.Drained
	}
	return out, nil
}

const (
	// reportMargin is what an invocation keeps for telling its outcome.
	reportMargin = 5 * time.Second

	// previewLimit bounds the questions of a Preview, which has no deadline of its own to ask until.
	previewLimit = 15 * time.Second

	// expiredLimit bounds the one question that is worth asking about an event whose deadline has passed.
	expiredLimit = 5 * time.Second
)

// Handler handles interruptions of the nodes of one cluster. It keeps nothing between two calls: what it remembers is in
// the node's marks, in the instance's tags and lifecycle state and in the pods' deletion timestamps, so that an event
// that comes twice, or is taken up by another invocation, does no harm.
type Handler struct {
	Cluster spot.Cluster
	Cloud   spot.Cloud
	Policy  spot.Policy

	// Autoscaler is CAST AI's autoscaler; nil if there is none. Policy.Autoscaler says the same.
	Autoscaler spot.Autoscaler

	Log *slog.Logger // one line a step; nil for none
}

// Preview says what Handle would do now, and changes nothing.
func (h *Handler) Preview(ctx context.Context, in spot.Interruption) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, previewLimit)
	defer cancel()
	c := h.newInvocation(in)
	switch {
	case in.Replayed:
		return c.newOutcome(c.plan()), nil
	case in.Kind.IsCleanup():
		return c.previewCleanUp(ctx)
	case in.Kind == spot.LifecycleTerminate && c.plan().Verdict != spot.Noted:
		if err := c.readHook(ctx); err != nil {
			return spot.Outcome{}, err
		}
	}
	c.startLookups(ctx, always)
	for _, done := range []<-chan struct{}{c.node.done, c.instance.done, c.membership.done} {
		wait(ctx, done, previewLimit)
	}
	plan := c.plan()
	switch plan.Verdict {
	case spot.Act:
	case spot.Noted:
		return c.skipped(plan), nil
	default:
		return c.newOutcome(plan), nil
	}
	t := c.target()
	if t.Node == nil && !errors.Is(t.NodeErr, spot.ErrNotFound) {
		return spot.Outcome{}, c.failure()
	}
	out := c.newOutcome(plan)
	out.Result = spot.Planned
	if t.Node == nil {
		out.Reason = "no node of the instance has registered yet"
		out.Plan = plan.Summary(c.in, false, nil)
		return out, nil
	}
	if !plan.Drain {
		out.Plan = plan.Summary(c.in, true, nil)
		return out, nil
	}
	pods, err := h.Cluster.PodsOn(ctx, t.Node.Name)
	if err != nil {
		return spot.Outcome{}, fmt.Errorf("listing the pods of node %s: %w", t.Node.Name, err)
	}
	out.Plan = plan.Summary(c.in, true, plan.ForPods(pods, c.began))
	return out, nil
}

// Handle carries out the plan for an interruption: it cordons and drains the node and asks for its replacement, side by
// side, and returns when the node is empty, or when the machine or the invocation ends. An error means that nothing was
// done and that another try may help; whatever was done stands in the Outcome.
func (h *Handler) Handle(ctx context.Context, in spot.Interruption) (spot.Outcome, error) {
	if in.Rehearsal && !h.Policy.DrainRehearsals {
		return h.Preview(ctx, in)
	}
	c := h.newInvocation(in)
	if in.Replayed {
		return c.newOutcome(c.plan()), nil
	}
	if end, ok := ctx.Deadline(); ok {
		c.limit = end.Add(-reportMargin)
		if !c.began.Before(c.limit) {
			return spot.Outcome{}, fmt.Errorf("the invocation ends in %s, and %s of that are kept for telling its outcome: set the function's timeout to 150 s or more", end.Sub(c.began).Round(time.Second), reportMargin)
		}
	}
	switch {
	case in.Kind.IsCleanup():
		return c.cleanUp(ctx)
	case in.Kind == spot.LifecycleTerminate:
		return c.lifecycle(ctx)
	}
	if deadline := c.plan().Deadline; !c.began.Before(deadline) {
		return c.handleExpired(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, c.plan().Until)
	defer cancel()
	if c.plan().Verdict == spot.Noted {
		return c.handleSkipped(ctx)
	}
	c.startLookups(ctx, c.nodeCannotCome)

	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	replaced := make(chan spot.ReplacementResult, 1)
	go func() { replaced <- c.replace(ctx, following) }()
	drained := c.drainNode(ctx, nil)
	if drained.Node == "" && !c.mustAct() {
		cancel() // nothing of ours: the other half has nothing to do either
	}
	defer time.AfterFunc(c.Policy.FollowLaunch, stopFollowing).Stop()
	return c.outcome(drained, <-replaced)
}

// stale asks the one question that is worth asking about an event whose deadline has passed.
func (c *invocation) handleExpired(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, expiredLimit)
	defer cancel()
	c.startLookups(ctx, always)
	wait(ctx, c.instance.first, expiredLimit)
	return c.newOutcome(c.plan()), nil
}

// note finds out what an event hits that the policy is to leave alone, and tells the autoscaler if there is one to tell.
func (c *invocation) handleSkipped(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, previewLimit)
	defer cancel()
	c.startLookups(ctx, always)
	for _, done := range []<-chan struct{}{c.node.done, c.instance.done} {
		wait(ctx, done, previewLimit)
	}
	if t := c.target(); t.Node == nil && t.Instance == nil && c.plan().Verdict != spot.Foreign {
		return spot.Outcome{}, c.failure()
	}
	plan := c.plan()
	if plan.Verdict != spot.Noted {
		return c.newOutcome(plan), nil
	}
	out := c.skipped(plan)
	out.SetReplacement(c.replace(ctx, ctx))
	return out, nil
}

// left is the outcome of an event that the policy leaves alone.
func (c *invocation) skipped(plan spot.Plan) spot.Outcome {
	out := c.newOutcome(plan)
	out.Result = spot.Skipped
	return out
}

func always() bool { return true }

// call is one call of a handler.
type invocation struct {
	*Handler
	in    spot.Interruption
	began time.Time
	limit time.Time // the end of the invocation; zero if nothing ends it

	node       *lookup[spot.Node]
	instance   *lookup[spot.Instance]
	membership *lookup[spot.Membership]
	hook       *spot.Hook
	unlisted   bool // all nodes are not to be listed for the one that is looked for
}

func (h *Handler) newInvocation(in spot.Interruption) *invocation {
	c := &invocation{Handler: h, in: in, began: time.Now(),
		node: newLookup[spot.Node](), instance: newLookup[spot.Instance](), membership: newLookup[spot.Membership]()}
	// EC2's clock and ours may differ: nobody is given more than the whole time.
	c.in.Time = spot.Earlier(in.Time, c.began).UTC().Round(0)
	return c
}

func (c *invocation) log(action, msg string, args ...any) {
	if c.Log != nil {
		c.Log.Info(msg, append([]any{"action", action, "event", c.in.EventID, "instance", c.in.Instance,
			"at", spot.ToSeconds(time.Since(c.in.Time))}, args...)...)
	}
}

// plan is the decision on what is known by now, as of the beginning of the call: what comes later must not be judged
// by another clock.
func (c *invocation) plan() spot.Plan { return c.Policy.Plan(c.in, c.target(), c.began, c.limit) }

// mustAct reports whether the interruption is one to act on, as far as is known by now.
func (c *invocation) mustAct() bool { return c.plan().Verdict == spot.Act }
