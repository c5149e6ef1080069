package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Shortening is a request that cut the time of a pod that was ending already.
type Shortening struct {
	Pod      string // namespace/name
	UID      string
	At       time.Time
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

// OnDeletion puts an admission webhook before deletions; nil admits. It must not call the cluster. As in the API server,
// it is asked neither about evictions nor about deletions that would change nothing.
func (c *Cluster) OnDeletion(hook func(spot.Pod) *spot.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleteHook = hook
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
// pod is refused even if it is not the one that is meant, and an eviction that fails on its precondition has spent an
// allowance.
func (c *Cluster) evict(asked spot.Pod, grace time.Duration, exact bool) error {
	p := c.pods[asked.ID()]
	if p == nil {
		return spot.ErrNotFound
	}
	if refusal := p.refusedBy(c.evictHook); refusal != nil {
		return refusal
	}
	spent, refusal := c.allowance(p)
	if refusal != nil {
		return refusal
	}
	if !p.is(asked, exact) {
		if spent != nil {
			spent.disrupted[p.Name] = time.Now()
		}
		return spot.ErrChanged
	}
	c.condemn(p, endedByEviction)
	c.terminate(p, grace)
	return nil
}

// condemn writes who is about to end the pod into its condition DisruptionTarget, which is a write of its own before the
// deletion.
func (c *Cluster) condemn(p *clusterPod, by string) {
	if p.EndedBy != by {
		p.EndedBy = by
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
	case p.pending(graceSeconds(grace)):
		return nil
	}
	if refusal := p.refusedBy(c.deleteHook); refusal != nil {
		return refusal
	}
	c.terminate(p, grace)
	return nil
}

// refusedBy asks a webhook about the pod.
func (p *clusterPod) refusedBy(hook func(spot.Pod) *spot.Refusal) *spot.Refusal {
	if hook == nil {
		return nil
	}
	return hook(p.seen())
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
	grace = graceSeconds(grace)
	now := time.Now()
	first := !p.Terminating
	switch {
	case first:
		if p.Node == "" || p.Finished {
			grace = 0 // nothing runs that would need time
		}
		p.Terminating, p.began = true, now
		p.EndsBy = now.Add(grace).Truncate(time.Second)
		p.granted, p.killIn = grace, grace
	case p.pending(grace):
		return
	case p.granted > 0:
		if !c.off[p.Node] && !p.Finished { // else there is nobody left whose time could be cut
			c.shortenings = append(c.shortenings, Shortening{Pod: p.ID(), UID: p.UID, At: now, From: p.granted, To: grace})
		}
		p.killIn = grace
		p.EndsBy = p.EndsBy.Add(grace - p.granted)
		p.granted = grace
		if p.EndsBy.Before(now) {
			p.EndsBy = now.Truncate(time.Second)
			if grace > 0 {
				p.granted = time.Second // still the kubelet's to end
			}
		}
	default:
		return // only a finalizer keeps it
	}
	c.touch(p)
	c.end(p)
	if first && !p.Mirror && !p.replacedWhenGone() {
		c.replace(p)
	}
	if grace == 0 && !p.held() {
		c.remove(p)
	}
	c.collectTerminating(p.Node)
}

// graceSeconds is the grace period as the API takes it: in whole seconds, and for a negative one, one.
func graceSeconds(grace time.Duration) time.Duration {
	if grace < 0 {
		return time.Second
	}
	return grace.Truncate(time.Second)
}
