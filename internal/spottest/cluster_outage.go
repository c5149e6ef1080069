package spottest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// clusterOutOfService is the taint that says of a node that its machine has ended for certain.
	clusterOutOfService = "node.kubernetes.io/out-of-service"

	// clusterTaintEviction is how long the taint eviction controller takes from a taint to its first write. A pod costs it
	// two writes.
	clusterTaintEviction = 200 * time.Millisecond
	clusterTaintDelete   = 5 * time.Millisecond

	// clusterCollection is how long the pod garbage collector takes at most. It looks every 20 s, and waits 40 s after a
	// Node's deletion for another of that name, or as a node without power is NotReady only after 50 s.
	clusterCollection = time.Minute
)

// PowerOff ends a node's machine: its kubelet does nothing from now on, what was ending there is dead, and its pods
// stay as they are until somebody deletes them with a grace period of 0.
func (c *Cluster) PowerOff(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[node] = true
	for _, p := range c.pods {
		if p.Node == node {
			p.dead()
		}
	}
	c.collectTerminating(node)
}

// PowerOn boots the node's machine again. The pods that are to go are gone; the others run on.
func (c *Cluster) PowerOn(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.off, node)
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[id]; p != nil && p.Node == node && p.Terminating && !p.Finished {
			c.finish(p)
		}
	}
	c.moveVolumes()
}

func (c *Cluster) DeleteNode(ctx context.Context, n spot.Node) error {
	err := c.request(ctx, "delete", "nodes", n.Name, func() error {
		have := c.nodes[n.Name]
		switch {
		case have == nil:
			return spot.ErrNotFound
		case have.UID != n.UID:
			return spot.ErrChanged
		}
		c.removeNode(n.Name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("deleting node %s: %w", n.Name, err)
	}
	return nil
}

// removeNode takes a Node away, and has the pod garbage collector find its pods if no other of that name comes.
func (c *Cluster) removeNode(name string) {
	delete(c.nodes, name)
	delete(c.evicting, name)
	c.bump()
	c.moveVolumes()
	c.later(clusterCollection, func() {
		if c.nodes[name] == nil {
			c.collect(name, func(p *clusterPod) bool {
				c.condemn(p, endedByPodGC)
				return true
			})
		}
	})
}

// collectTerminating has the pod garbage collector remove the pods that are ending on a node that is out of service.
func (c *Cluster) collectTerminating(node string) {
	if !c.outOfService(node) {
		return
	}
	c.later(clusterCollection, func() {
		if c.outOfService(node) && c.off[node] {
			c.collect(node, func(p *clusterPod) bool { return p.Terminating })
		}
	})
}

// collect deletes pods of a node as the pod garbage collector does: it calls them failed, and gives them no time.
func (c *Cluster) collect(node string, which func(*clusterPod) bool) {
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		p := c.pods[id]
		if p == nil || p.Node != node || !which(p) {
			continue
		}
		p.Finished = true
		c.touch(p)
		c.terminate(p, 0)
	}
}

// outOfService reports whether a node has the taint, whatever its effect.
func (c *Cluster) outOfService(node string) bool {
	n := c.nodes[node]
	return n != nil && slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == clusterOutOfService })
}

// seeOutage is the taint eviction controller's look at a node: when the taint is new and does more than to keep pods off,
// it deletes the pods that are there.
func (c *Cluster) seeOutage(n *spot.Node) {
	evicting := slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == clusterOutOfService && t.Effect == "NoExecute" })
	if evicting && !c.evicting[n.Name] {
		for _, id := range slices.Sorted(maps.Keys(c.pods)) {
			if c.pods[id].Node == n.Name {
				c.taintEvict(id)
			}
		}
	}
	c.evicting[n.Name] = evicting
	c.collectTerminating(n.Name)
}

// taintEvict deletes, in a moment, the pod that has that name then. It is not for sure the one that was seen: where that has
// been deleted meanwhile, a StatefulSet may have made the next one, and that is what ends.
func (c *Cluster) taintEvict(id string) {
	c.later(clusterTaintEviction, func() {
		if p := c.pods[id]; p != nil {
			c.condemn(p, endedByTaint)
		}
	})
	c.later(clusterTaintEviction+clusterTaintDelete, func() {
		if p := c.pods[id]; p != nil {
			c.terminate(p, p.GracePeriod)
		}
	})
}

// later does what somebody else in the cluster does after a while; do is called with the cluster locked.
func (c *Cluster) later(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		do()
	})
}
