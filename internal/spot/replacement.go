package spot

import (
	"context"
	"errors"
	"time"
)

// nodeFirst is how long asking for a replacement waits for the first look at the node, whose labels and taints may say
// that somebody else replaces it. An API server that cannot be reached must not keep the group from being asked.
const nodeFirst = 3 * time.Second

// scaling is how writes to AWS, and what is asked because of them, are tried again.
var scaling = backoff{200 * time.Millisecond, 3 * time.Second}

// replace asks for another instance where the plan wants it, and goes on asking until it is refused for good or ctx ends.
// What comes of it is followed as long as following.
func (c *call) replace(ctx, following context.Context) ReplacementResult {
	c.waitForPlan(ctx)
	r := c.plan().Replace
	told := ReplacementResult{Action: r.Action, Group: r.Group, Reason: r.Reason}
	switch r.Action {
	case ReplaceDetach:
		told = c.detach(ctx, told, r)
		if told.At != nil {
			c.followLaunch(following, &told)
		}
	case ReplaceNotify:
		told = c.tellAutoscaler(ctx, told, r)
	case ReplaceClaim:
		told = c.deleteClaim(ctx, told, r)
	}
	return told
}

// waitForPlan waits for what the choice depends on.
func (c *call) waitForPlan(ctx context.Context) {
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

// detach has the group launch another instance.
func (c *call) detach(ctx context.Context, told ReplacementResult, r Replacement) ReplacementResult {
	tags := map[string]string{TagDetached: r.Group, TagInterruptedAt: c.in.Time.UTC().Format(time.RFC3339)}
	// The tags come first, as with kOps: an instance that is detached without them is lost to kOps' tools.
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Tag(ctx, c.in.Instance, tags) })
	if err != nil {
		told.Action, told.Reason = ReplaceNone, "the instance could not be tagged: "+err.Error()
		told.changed = !errors.Is(err, ErrPermanent) && !errors.Is(err, ErrNotFound) // an answer may have been lost
		return told
	}
	err = scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Detach(ctx, c.in.Instance, r.Group) })
	told.changed = true
	if err == nil {
		told.At = since(c.in.Time, time.Now())
		told.SkippedHooks = r.SkippedHooks
		c.log("detach", "detached instance from group", "group", told.Group)
		return told
	}
	return c.detachRefused(ctx, told, err)
}

// tellAutoscaler tells CAST AI's autoscaler what happens to the node.
func (c *call) tellAutoscaler(ctx context.Context, told ReplacementResult, r Replacement) ReplacementResult {
	n := *c.target().Node
	err := scaling.persist(ctx, func(ctx context.Context) error {
		return c.Autoscaler.Notify(ctx, r.AutoscalerEvent, n.Labels[labelAutoscaler], toldProvider(n))
	})
	if err != nil {
		told.Action, told.Reason = ReplaceNone, "CAST AI's autoscaler was not told: "+err.Error()
		return told
	}
	told.At, told.AutoscalerEvent, told.changed = since(c.in.Time, time.Now()), r.AutoscalerEvent, true
	c.log("notify-autoscaler", "notified autoscaler", "autoscaler_event", r.AutoscalerEvent)
	return told
}

// deleteClaim has Karpenter end the instance and launch what its pods need.
func (c *call) deleteClaim(ctx context.Context, told ReplacementResult, r Replacement) ReplacementResult {
	told.NodeClaim = r.NodeClaim
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cluster.DeleteNodeClaim(ctx, r.NodeClaim) })
	switch {
	case errors.Is(err, ErrNotFound):
		told.Action, told.Reason = ReplaceAlready, "its NodeClaim is deleted already"
	case err != nil:
		told.Action, told.Reason = ReplaceNone, "its NodeClaim could not be deleted: "+err.Error()
	default:
		told.At, told.changed = since(c.in.Time, time.Now()), true
		c.log("delete-node-claim", "deleted NodeClaim", "node_claim", r.NodeClaim)
	}
	return told
}

// lag is how long Auto Scaling may go on to describe an instance as it was before a detach.
const lag = 3 * time.Second

// isMember asks whether the instance is still in a group that has not begun to let it go.
func (c *call) isMember(ctx context.Context) (bool, error) {
	var m Membership
	err := scaling.persist(ctx, func(ctx context.Context) (err error) {
		m, err = c.Cloud.Membership(ctx, c.in.Instance)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return m.LifecycleState == "InService" || m.LifecycleState == "Standby", err
}

// detachRefused finds out what a refused detach means. The tags prove nothing; the membership does: if the instance is on
// its way out, somebody else was quicker.
func (c *call) detachRefused(ctx context.Context, told ReplacementResult, refusal error) ReplacementResult {
	told.Action, told.Reason = ReplaceNone, "the group refused: "+refusal.Error()
	if !errors.Is(refusal, ErrPermanent) { // the time is over
		return told
	}
	for look := range 2 { // it may have been detached in this moment, and be described a moment late
		if look > 0 && !sleep(ctx, lag) {
			return told
		}
		switch member, err := c.isMember(ctx); {
		case err != nil:
			told.Reason += "; what became of the instance could not be asked: " + err.Error()
			return told
		case !member:
			told.Action, told.Reason = ReplaceAlready, "somebody else has detached it in the same moment"
			return told
		}
	}
	told.changed = false // it is a member as before: its tags alone do no harm
	return told
}
