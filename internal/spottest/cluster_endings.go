package spottest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Shortening is a request that cut the time of a pod that was ending already.
type Shortening struct {
	Pod      string        // namespace/name
	From, To time.Duration // the grace periods, both from the first request on
}

// Reasons of the condition DisruptionTarget.
const (
	endedByEviction = "EvictionByEvictionAPI"
	endedByTaint    = "DeletionByTaintManager"
	endedByPodGC    = "DeletionByPodGC"
)

// OnEviction puts an admission webhook before evictions; nil admits. It must not call the cluster. It is asked about every
// eviction of a pod that is there, even one that would change nothing.
func (c *Cluster) OnEviction(hook func(spot.Pod) *spot.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evictHook = hook
}

// Shortenings are the requests that cut the time of pods that were ending already.
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

// evict takes the API server's steps in its order: the webhooks, then the budget, and the preconditions last. So a guarded
// pod is refused even if it is not the one that is meant.
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
	if refusal := c.guarded(p); refusal != nil {
		return refusal
	}
	if !p.is(asked, exact) {
		return spot.ErrChanged
	}
	c.condemn(p, endedByEviction)
	c.terminate(p, grace)
	return nil
}

// condemn writes who is about to end the pod into its condition DisruptionTarget, which is a write of its own before the
// deletion.
func (c *Cluster) condemn(p *clusterPod, by string) {
	if p.DisruptedBy != by {
		p.DisruptedBy = by
		c.touch(p)
	}
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

// pending reports whether a request with that grace period changes nothing: the pod is going, and no later.
func (p *clusterPod) pending(grace time.Duration) bool {
	return p.Terminating && p.granted > 0 && grace >= p.granted
}

// terminate does what the API server does about an accepted deletion. The first sets the deletionTimestamp; a later one
// can only bring it forward, and counts from the first.
func (c *Cluster) terminate(p *clusterPod, grace time.Duration) {
	grace = grace.Truncate(time.Second)
	now := time.Now()
	first := !p.Terminating
	switch {
	case first:
		p.Terminating, p.began = true, now
		p.DeletionTimestamp = now.Add(grace).Truncate(time.Second)
		p.granted, p.killIn = grace, grace
	case p.pending(grace):
		return
	case p.granted > 0:
		if !c.off[p.Node] && !p.Finished { // else there is nobody left whose time could be cut
			c.shortenings = append(c.shortenings, Shortening{Pod: p.ID(), From: p.granted, To: grace})
		}
		p.killIn = grace
		p.DeletionTimestamp = p.DeletionTimestamp.Add(grace - p.granted)
		p.granted = grace
		if p.DeletionTimestamp.Before(now) {
			p.DeletionTimestamp = now.Truncate(time.Second)
		}
	default:
		return // only a finalizer keeps it
	}
	c.touch(p)
	c.end(p)
	if first && !p.replacedWhenGone() {
		c.replace(p)
	}
	if grace == 0 && !p.held() {
		c.remove(p)
	}
	c.collectTerminating(p.Node)
}
