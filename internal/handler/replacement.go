package handler

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// nodeFirst is how long asking for a replacement waits for the first look at the node, whose labels and taints may say
// that somebody else replaces it. An API server that cannot be reached must not keep the group from being asked.
const nodeFirst = 3 * time.Second

// scaling is how writes to AWS, and what is asked because of them, are tried again.
var scaling = backoff{200 * time.Millisecond, 3 * time.Second}

// replace asks for another instance where the plan wants it, and goes on asking until it is refused for good or ctx ends.
// What comes of it is followed as long as following.
func (c *invocation) replace(ctx, following context.Context) spot.ReplacementResult {
	c.waitForPlan(ctx)
	r := c.plan().Replace
	told := spot.ReplacementResult{Action: r.Action, Group: r.Group, Reason: r.Reason}
	switch r.Action {
	case spot.ReplaceDetach:
		told = c.detach(ctx, told, r)
		if told.At != nil {
			c.followLaunch(following, &told)
		}
	case spot.ReplaceNotify:
		told = c.notifyAutoscaler(ctx, told, r)
	case spot.ReplaceClaim:
		told = c.deleteClaim(ctx, told, r)
	}
	return told
}

// waitForPlan waits for what the choice depends on.
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

// detach has the group launch another instance.
func (c *invocation) detach(ctx context.Context, told spot.ReplacementResult, r spot.Replacement) spot.ReplacementResult {
	tags := map[string]string{spot.TagDetached: r.Group, spot.TagInterruptedAt: c.in.Time.UTC().Format(time.RFC3339)}
	// The tags come first, as with kOps: an instance that is detached without them is lost to kOps' tools.
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Tag(ctx, c.in.Instance, tags) })
	if err != nil {
		told.Action, told.Reason = spot.ReplaceNone, "the instance could not be tagged: "+err.Error()
		told.Changed = !errors.Is(err, spot.ErrPermanent) && !errors.Is(err, spot.ErrNotFound) // an answer may have been lost
		return told
	}
	err = scaling.persist(ctx, func(ctx context.Context) error { return c.Cloud.Detach(ctx, c.in.Instance, r.Group) })
	told.Changed = true
	if err == nil {
		told.At = spot.SecondsSince(c.in.Time, time.Now())
		told.SkippedHooks = r.SkippedHooks
		c.log("detach", "detached instance from group", "group", told.Group)
		return told
	}
	return c.handleDetachRefusal(ctx, told, err)
}

// tellAutoscaler tells CAST AI's autoscaler what happens to the node.
func (c *invocation) notifyAutoscaler(ctx context.Context, told spot.ReplacementResult, r spot.Replacement) spot.ReplacementResult {
	n := *c.target().Node
	err := scaling.persist(ctx, func(ctx context.Context) error {
		return c.Autoscaler.Notify(ctx, r.AutoscalerEvent, n.Labels[spot.LabelAutoscalerID], spot.AutoscalerProviderID(n))
	})
	if err != nil {
		told.Action, told.Reason = spot.ReplaceNone, "CAST AI's autoscaler was not told: "+err.Error()
		return told
	}
	told.At, told.AutoscalerEvent, told.Changed = spot.SecondsSince(c.in.Time, time.Now()), r.AutoscalerEvent, true
	c.log("notify-autoscaler", "notified autoscaler", "autoscaler_event", r.AutoscalerEvent)
	return told
}

// deleteClaim has Karpenter end the instance and launch what its pods need.
func (c *invocation) deleteClaim(ctx context.Context, told spot.ReplacementResult, r spot.Replacement) spot.ReplacementResult {
	told.NodeClaim = r.NodeClaim
	err := scaling.persist(ctx, func(ctx context.Context) error { return c.Cluster.DeleteNodeClaim(ctx, r.NodeClaim) })
	switch {
	case errors.Is(err, spot.ErrNotFound):
		told.Action, told.Reason = spot.ReplaceAlready, "its NodeClaim is deleted already"
	case err != nil:
		told.Action, told.Reason = spot.ReplaceNone, "its NodeClaim could not be deleted: "+err.Error()
	default:
		told.At, told.Changed = spot.SecondsSince(c.in.Time, time.Now()), true
		c.log("delete-node-claim", "deleted NodeClaim", "node_claim", r.NodeClaim)
	}
	return told
}

// lag is how long Auto Scaling may go on to describe an instance as it was before a detach.
const lag = 3 * time.Second

// isMember asks whether the instance is still in a group that has not begun to let it go.
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

// detachRefused finds out what a refused detach means. The tags prove nothing; the membership does: if the instance is on
// its way out, somebody else was quicker.
func (c *invocation) handleDetachRefusal(ctx context.Context, told spot.ReplacementResult, refusal error) spot.ReplacementResult {
	told.Action, told.Reason = spot.ReplaceNone, "the group refused: "+refusal.Error()
	if !errors.Is(refusal, spot.ErrPermanent) { // the time is over
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
			told.Action, told.Reason = spot.ReplaceAlready, "somebody else has detached it in the same moment"
			return told
		}
	}
	told.Changed = false // it is a member as before: its tags alone do no harm
	return told
}

const (
	// launchFirst and launchMost bound the pause between two questions what became of a request for a replacement. A
	// group takes some seconds to begin a launch, and fifty that follow at once must not use its quota up.
	launchFirst = 2 * time.Second
	launchMost  = 8 * time.Second
)

// followLaunch follows the group's answer to a detach: the instance it launches and, once that registers, its node; or
// the group's own reason why it cannot. Of several instances that a group launches at once nobody can say which replaces
// which: the first that was begun since is told.
func (c *invocation) followLaunch(ctx context.Context, told *spot.ReplacementResult) {
	asked := time.Now().UTC()
	pause := launchFirst
	for sleep(ctx, pause/2+rand.N(pause)) {
		pause = min(2*pause, launchMost)
		launches, err := c.Cloud.Launches(ctx, told.Group, asked)
		if errors.Is(err, spot.ErrPermanent) {
			told.GroupMessage = "what the group answers could not be asked: " + err.Error()
			return
		}
		for _, l := range launches {
			switch {
			case l.Failed:
				told.GroupMessage = l.Reason // it may try again, in another zone or with another type
			case l.Instance != "":
				told.Instance, told.GroupMessage = l.Instance, ""
				told.LaunchedAt = spot.SecondsSince(c.in.Time, l.At)
			}
			if told.Instance != "" {
				c.log("replacement-launched", "group launched replacement", "group", told.Group, "replacement", told.Instance)
				c.followNode(ctx, told)
				return
			}
		}
	}
}

// followNode waits for the new instance's node.
func (c *invocation) followNode(ctx context.Context, told *spot.ReplacementResult) {
	names := []string{told.Instance}
	for sleep(ctx, launchFirst) {
		if len(names) == 1 { // its other names need its address, which EC2 may tell a moment later
			if i, err := c.Cloud.Instance(ctx, told.Instance); err == nil && i.PrivateIP != "" {
				names = i.NodeNames(c.in.Region)
			}
		}
		for _, name := range names {
			if n, err := c.Cluster.NodeNamed(ctx, name); err == nil && n.IsInstance(told.Instance) {
				told.Node, told.RegisteredAt = n.Name, spot.SecondsSince(c.in.Time, time.Now())
				c.log("replacement-registered", "replacement node registered", "node", n.Name)
				return
			}
		}
	}
}
