package spottest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Shortening is a request that reduced the grace period of a terminating pod.
type Shortening struct {
	Pod      string        // namespace/name
	From, To time.Duration // grace periods, counted from the first request
}

// Reasons of the DisruptionTarget condition.
const (
	disruptedByEviction = "EvictionByEvictionAPI"
	disruptedByTaint    = "DeletionByTaintManager"
	disruptedByPodGC    = "DeletionByPodGC"
)

// OnEviction installs an admission webhook for evictions; nil admits. It must not call the cluster. It is called for
// every eviction of an existing pod, even one without effect.
func (c *Cluster) OnEviction(hook func(spot.Pod) *spot.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evictHook = hook
}

// Shortenings returns the requests that reduced the grace period of a terminating pod.
func (c *Cluster) Shortenings() []Shortening {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.shortenings)
}

func (c *Cluster) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.request(ctx, "create", "pods/eviction", p.ID(), func() error { return c.evict(p, grace, exact) })
	if err != nil {
		return fmt.Errorf("evicting pod %s: %w", p.ID(), err)
	}
	return nil
}

// evict checks in the order of the API server: webhooks, budget, preconditions. So a guarded pod is refused even if its
// UID does not match.
func (c *Cluster) evict(asked spot.Pod, grace time.Duration, exact bool) error {
	p := c.pods[asked.ID()]
	if p == nil {
		return spot.ErrNotFound
	}
	if c.evictHook != nil {
		if refusal := c.evictHook(p.seen()); refusal != nil {
			return refusal
		}
	}
	if refusal := c.blockedBy(p); refusal != nil {
		return refusal
	}
	if !p.is(asked, exact) {
		return spot.ErrChanged
	}
	c.setDisruptedBy(p, disruptedByEviction)
	c.terminate(p, grace)
	return nil
}

// setDisruptedBy writes who is about to end the pod into its condition DisruptionTarget, which is a write of its own
// before the deletion.
func (c *Cluster) setDisruptedBy(p *clusterPod, by string) {
	if p.DisruptedBy != by {
		p.DisruptedBy = by
		c.touch(p)
	}
}

// Disrupt sets the reason of the condition DisruptionTarget.
func (c *Cluster) Disrupt(ctx context.Context, p spot.Pod) (spot.Pod, error) {
	after := p
	err := c.request(ctx, "patch", "pods/status", p.ID(), func() error {
		now := c.pods[p.ID()]
		switch {
		case now == nil:
			return spot.ErrNotFound
		case now.UID != p.UID:
			return spot.ErrChanged
		}
		now.DisruptedBy = spot.DisruptionReason
		now.Version = c.bump()
		c.publish(now, false)
		after = now.seen()
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("disrupting pod %s: %w", p.ID(), err)
	}
	return after, nil
}

func (c *Cluster) Delete(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.request(ctx, "delete", "pods", p.ID(), func() error { return c.delete(p, grace, exact) })
	if err != nil {
		return fmt.Errorf("deleting pod %s: %w", p.ID(), err)
	}
	return nil
}

func (c *Cluster) delete(asked spot.Pod, grace time.Duration, exact bool) error {
	p := c.pods[asked.ID()]
	switch {
	case p == nil:
		return spot.ErrNotFound
	case !p.is(asked, exact):
		return spot.ErrChanged
	}
	c.terminate(p, grace)
	return nil
}

func (p *clusterPod) is(asked spot.Pod, exact bool) bool {
	return p.UID == asked.UID && (!exact || p.Version == asked.Version)
}

// unaffectedBy reports whether a request with that grace period changes nothing: the pod terminates at least as early.
func (p *clusterPod) unaffectedBy(grace time.Duration) bool {
	return p.Terminating && p.granted > 0 && grace >= p.granted
}

// terminate applies an accepted deletion. The first request sets the deletionTimestamp; later ones can only move it
// earlier, counted from the first.
func (c *Cluster) terminate(p *clusterPod, grace time.Duration) {
	grace = grace.Truncate(time.Second)
	now := time.Now()
	first := !p.Terminating
	switch {
	case first:
		p.Terminating, p.began = true, now
		p.DeletionTimestamp = now.Add(grace).Truncate(time.Second)
		p.granted, p.killIn = grace, grace
	case p.unaffectedBy(grace):
		return
	case p.granted > 0:
		if !c.off[p.Node] && !p.Finished { // otherwise no process is left
			c.shortenings = append(c.shortenings, Shortening{Pod: p.ID(), From: p.granted, To: grace})
		}
		p.killIn = grace
		p.DeletionTimestamp = p.DeletionTimestamp.Add(grace - p.granted)
		p.granted = grace
		if p.DeletionTimestamp.Before(now) {
			p.DeletionTimestamp = now.Truncate(time.Second)
		}
	default:
		return // kept by a finalizer only
	}
	c.touch(p)
	c.stop(p)
	if first && !p.replacedWhenGone() {
		c.replace(p)
	}
	if grace == 0 && !p.held() {
		c.remove(p)
	}
	c.collectTerminating(p.Node)
}
