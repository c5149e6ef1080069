package handler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// nodeFirst is how long a detach waits for the node, whose labels and taints may show that somebody else replaces
	// it.
	nodeFirst = 3 * time.Second

	// replaceLimit is how long a replacement is requested after the node is empty.
	replaceLimit = 15 * time.Second

	// tagLimit is how long tagging is retried after the request for a replacement.
	tagLimit = 5 * time.Second

	// detachLag is how long Auto Scaling may describe an instance as it was before a detach.
	detachLag = 3 * time.Second
)

// replace requests a replacement if the plan says so, and retries until ctx ends.
func (c *invocation) replace(ctx context.Context) spot.ReplacementResult {
	c.waitForReplacer(ctx)
	t := c.target()
	plan := c.plan(t).Replace
	result := spot.ReplacementResult{Action: plan.Action, Group: plan.Group, Reason: plan.Reason}
	tagged := c.tag(ctx, plan)
	switch plan.Action {
	case spot.ReplaceDetach:
		c.detach(ctx, &result, plan)
	case spot.ReplaceNotify:
		c.notifyAutoscaler(ctx, &result, plan, *t.Node)
	case spot.ReplaceClaim:
		c.deleteClaim(ctx, &result, plan)
	}
	if err := tagged(); err != nil && result.At != nil {
		result.Reason = "the instance could not be tagged: " + err.Error()
	}
	return result
}

// tag starts tagging our instance, best effort. TagInterruptedAt shows that the event was handled, and kOps' tools find
// a detached instance by TagDetached. The returned function waits for the tags, but not longer than tagLimit.
func (c *invocation) tag(ctx context.Context, plan spot.Replacement) (wait func() error) {
	if !c.mustAct() || c.in.Rehearsal || !c.in.Kind.EndsInstance() {
		return func() error { return nil }
	}
	tags := map[string]string{spot.TagInterruptedAt: c.in.Time.UTC().Format(time.RFC3339)}
	if plan.Action == spot.ReplaceDetach {
		tags[spot.TagDetached] = plan.Group
	}
	ctx, stop := context.WithCancel(ctx)
	tagged := make(chan error, 1)
	go func() {
		select {
		case <-c.instance.done:
		case <-ctx.Done():
		}
		if inst, _ := c.instance.known(); inst == nil || c.notOurs() {
			tagged <- nil
			return
		}
		tagged <- toAWS.persist(ctx, func(ctx context.Context) error { return c.Cloud.Tag(ctx, c.in.Instance, tags) })
	}()
	return func() error {
		defer time.AfterFunc(tagLimit, stop).Stop()
		return <-tagged
	}
}

// waitForReplacer waits until it is known how to request a replacement. CAST AI's and Karpenter's nodes are known by
// their labels. The others need the Auto Scaling group, and the node too: its taints may show that it is being removed.
// An API server that cannot be reached delays a detach by nodeFirst only.
func (c *invocation) waitForReplacer(ctx context.Context) {
	node, instance, membership := c.node.done, c.instance.done, c.membership.done
	late := time.NewTimer(time.Until(c.began.Add(nodeFirst)))
	defer late.Stop()
	isLate := false
	for node != nil || instance != nil || membership != nil {
		plan := c.plan(c.target())
		switch action := plan.Replace.Action; {
		case plan.Result != "" && plan.Result != spot.Skipped,
			action == spot.ReplaceNotify, action == spot.ReplaceClaim, action == spot.ReplacePending,
			action == spot.ReplaceDetach && (node == nil || isLate):
			return
		}
		select {
		case <-node:
			node = nil
		case <-instance:
			instance = nil
		case <-membership:
			membership = nil
		case <-late.C:
			isLate = true
		case <-ctx.Done():
			return
		}
	}
}

// detach detaches the instance, so that its group launches another.
func (c *invocation) detach(ctx context.Context, result *spot.ReplacementResult, plan spot.Replacement) {
	lost := false // the response to a detach was lost: it may have been carried out
	var left bool
	err := toAWS.persist(ctx, func(ctx context.Context) (err error) {
		err = c.Cloud.Detach(ctx, c.in.Instance, plan.Group)
		switch {
		case err == nil:
		case !errors.Is(err, spot.ErrPermanent):
			lost = true
		default: // if the instance is leaving its group, somebody was faster, or an earlier attempt of ours
			left, err = c.hasLeft(ctx, err)
		}
		return err
	})
	if err != nil && lost { // even a refusal that says that it has left may have been lost
		after, cancel := c.afterWork(ctx)
		defer cancel()
		if member, readErr := c.isMember(after); readErr == nil && !member {
			err = nil
		}
	}
	result.Changed = err == nil || lost
	switch {
	case err != nil:
		result.Action, result.Reason = spot.ReplaceNone, "the instance could not be detached: "+err.Error()
		return
	case left && !lost:
		result.Action, result.Reason = spot.ReplaceAlready, "somebody else detached it at the same time"
		return
	}
	result.At = spot.SecondsSince(c.in.Time, time.Now())
	result.SkippedHooks = plan.SkippedHooks
	c.log("detach", "detached instance from group", "group", result.Group)
}

// hasLeft reports whether the instance is leaving its group or has left it, after a refused detach. If not, it returns
// the refusal.
func (c *invocation) hasLeft(ctx context.Context, refusal error) (bool, error) {
	for try := range 2 {
		if try > 0 && !sleep(ctx, detachLag) {
			break
		}
		member, err := c.isMember(ctx)
		if err != nil {
			return false, fmt.Errorf("%w; reading its group failed: %w", refusal, err)
		}
		if !member {
			return true, nil
		}
	}
	return false, refusal
}

// isMember reports whether the instance is in a group and not leaving it.
func (c *invocation) isMember(ctx context.Context) (bool, error) {
	m, err := c.Cloud.Membership(ctx, c.in.Instance)
	if errors.Is(err, spot.ErrNotFound) {
		return false, nil
	}
	return m.LifecycleState == "InService" || m.LifecycleState == "Standby", err
}

func (c *invocation) notifyAutoscaler(ctx context.Context, result *spot.ReplacementResult, plan spot.Replacement, n spot.Node) {
	err := toAWS.persist(ctx, func(ctx context.Context) error {
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
	err := toCluster.persist(ctx, func(ctx context.Context) error { return c.Cluster.DeleteNodeClaim(ctx, plan.NodeClaim) })
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
