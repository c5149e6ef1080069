package handler

import (
	"context"
	"errors"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// nodeFirst is how long the request for a replacement waits for the node, whose labels and taints may show that
	// somebody else replaces it. It does not wait longer for an API server that cannot be reached.
	nodeFirst = 3 * time.Second

	// detachLag is how long Auto Scaling may describe an instance as it was before a detach.
	detachLag = 3 * time.Second
)

// scaling is the backoff of writes to AWS and the reads that depend on them.
var scaling = backoff{200 * time.Millisecond, 3 * time.Second}

// replace requests a replacement if the plan says so, and retries until it is refused or ctx ends.
func (c *invocation) replace(ctx context.Context) spot.ReplacementResult {
	c.waitForPlan(ctx)
	t := c.target()
	plan := c.plan(t).Replace
	result := spot.ReplacementResult{Action: plan.Action, Group: plan.Group, Reason: plan.Reason}
	switch plan.Action {
	case spot.ReplaceDetach:
		c.detach(ctx, &result, plan)
	case spot.ReplaceNotify:
		c.notifyAutoscaler(ctx, &result, plan, *t.Node)
	case spot.ReplaceClaim:
		c.deleteClaim(ctx, &result, plan)
	}
	return result
}

// waitForPlan waits for what the replacement depends on.
func (c *invocation) waitForPlan(ctx context.Context) {
	wait(ctx, c.node.first, nodeFirst)
	for _, done := range []<-chan struct{}{c.instance.done, c.membership.done} {
		select {
		case <-done:
		case <-ctx.Done():
		}
		if !c.mustAct() {
			return
		}
	}
}

// detach detaches the instance, so that its group launches another. It tags the instance first, as kOps does: kOps'
// tools do not find a detached instance without the tags.
func (c *invocation) detach(ctx context.Context, result *spot.ReplacementResult, plan spot.Replacement) {
	tags := map[string]string{spot.TagDetached: plan.Group, spot.TagInterruptedAt: c.in.Time.UTC().Format(time.RFC3339)}
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Tag(ctx, c.in.Instance, tags) })
	if err != nil {
		result.Action, result.Reason = spot.ReplaceNone, "the instance could not be tagged: "+err.Error()
		// The response may have been lost.
		result.Changed = !errors.Is(err, spot.ErrPermanent) && !errors.Is(err, spot.ErrNotFound)
		return
	}
	err = scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Detach(ctx, c.in.Instance, plan.Group) })
	result.Changed = true
	if err == nil {
		result.At = spot.SecondsSince(c.in.Time, time.Now())
		result.SkippedHooks = plan.SkippedHooks
		c.log("detach", "detached instance from group", "group", result.Group)
		return
	}
	c.detachRefused(ctx, result, err)
}

// detachRefused finds out why a detach was refused: if the instance is leaving its group, somebody else was faster. The
// tags prove nothing.
func (c *invocation) detachRefused(ctx context.Context, result *spot.ReplacementResult, refusal error) {
	result.Action, result.Reason = spot.ReplaceNone, "the group refused the detach: "+refusal.Error()
	if !errors.Is(refusal, spot.ErrPermanent) { // ctx ended
		return
	}
	for try := range 2 {
		if try > 0 && !sleep(ctx, detachLag) {
			return
		}
		switch member, err := c.isMember(ctx); {
		case err != nil:
			result.Reason += "; reading its group failed: " + err.Error()
			return
		case !member:
			result.Action, result.Reason = spot.ReplaceAlready, "somebody else detached it at the same time"
			return
		}
	}
	result.Changed = false // still a member: its tags do no harm
}

// isMember reports whether the instance is in a group and not leaving it.
func (c *invocation) isMember(ctx context.Context) (bool, error) {
	var m spot.Membership
	err := scaling.persist(ctx, func(ctx context.Context) (err error) {
		m, err = c.Cloud.Membership(ctx, c.in.Instance)
		return err
	})
	if errors.Is(err, spot.ErrNotFound) {
		return false, nil
	}
	return m.LifecycleState == "InService" || m.LifecycleState == "Standby", err
}

func (c *invocation) notifyAutoscaler(ctx context.Context, result *spot.ReplacementResult, plan spot.Replacement, n spot.Node) {
	err := scaling.persist(ctx, func(ctx context.Context) error {
		return c.Autoscaler.Notify(ctx, plan.AutoscalerEvent, n.Labels[spot.LabelAutoscalerID], spot.AutoscalerProviderID(n))
	})
	if err != nil {
		result.Action, result.Reason = spot.ReplaceNone, "CAST AI's autoscaler could not be notified: "+err.Error()
		return
	}
	result.At, result.Changed = spot.SecondsSince(c.in.Time, time.Now()), true
	result.AutoscalerEvent = plan.AutoscalerEvent
	c.log("notify-autoscaler", "notified autoscaler", "autoscaler_event", plan.AutoscalerEvent)
}

func (c *invocation) deleteClaim(ctx context.Context, result *spot.ReplacementResult, plan spot.Replacement) {
	result.NodeClaim = plan.NodeClaim
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cluster.DeleteNodeClaim(ctx, plan.NodeClaim) })
	switch {
	case errors.Is(err, spot.ErrNotFound):
		result.Action, result.Reason = spot.ReplaceAlready, "its NodeClaim is already deleted"
	case err != nil:
		result.Action, result.Reason = spot.ReplaceNone, "its NodeClaim could not be deleted: "+err.Error()
	default:
		result.At, result.Changed = spot.SecondsSince(c.in.Time, time.Now()), true
		c.log("delete-node-claim", "deleted NodeClaim", "node_claim", plan.NodeClaim)
	}
}
