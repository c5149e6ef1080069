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
	// clusterOutOfService is the taint for a node whose instance is known to be stopped.
	clusterOutOfService = "node.kubernetes.io/out-of-service"

	// clusterTaintEviction is the time from the taint to the first write of the taint eviction controller, which makes
	// two writes per pod.
	clusterTaintEviction = 200 * time.Millisecond
	clusterTaintDelete   = 5 * time.Millisecond

	// clusterCollection is the longest time that pod garbage collection takes. It runs every 20 s and waits 40 s after
	// the deletion of a Node; a node without power becomes NotReady only after 50 s.
	clusterCollection = time.Minute
)

// PowerOff stops a node's instance: its kubelet and processes are gone, and its pods stay until somebody deletes them
// with a grace period of 0.
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

// PowerOn boots the instance again. Terminating pods are removed; the others keep running.
func (c *Cluster) PowerOn(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.off, node)
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[id]; p != nil && p.Node == node && p.Terminating && !p.Finished {
			c.finish(p)
		}
	}
	c.reconcileVolumes()
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

// removeNode deletes a Node and schedules the garbage collection of its pods unless the Node is recreated.
func (c *Cluster) removeNode(name string) {
	delete(c.nodes, name)
	delete(c.evicting, name)
	c.bump()
	c.reconcileVolumes()
	c.later(clusterCollection, func() {
		if c.nodes[name] == nil {
			c.collect(name, func(p *clusterPod) bool {
				c.setDisruptedBy(p, disruptedByPodGC)
				return true
			})
		}
	})
}

// collectTerminating schedules the garbage collection of terminating pods on a node that is out of service.
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

// collect deletes pods as the pod garbage collector does: it marks them failed and gives them no grace period.
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

// outOfService reports whether the node has the taint, whatever its effect.
func (c *Cluster) outOfService(node string) bool {
	n := c.nodes[node]
	return n != nil && slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == clusterOutOfService })
}

// evictTainted acts as the taint eviction controller: a new NoExecute taint deletes the pods on the node.
func (c *Cluster) evictTainted(n *spot.Node) {
	evicting := slices.ContainsFunc(n.Taints, func(t spot.Taint) bool {
		return t.Key == clusterOutOfService && t.Effect == "NoExecute"
	})
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

// taintEvict deletes the pod by name, after a delay. If the pod was deleted meanwhile, this hits the pod that a
// StatefulSet has recreated.
func (c *Cluster) taintEvict(id string) {
	c.later(clusterTaintEviction, func() {
		if p := c.pods[id]; p != nil {
			c.setDisruptedBy(p, disruptedByTaint)
		}
	})
	c.later(clusterTaintEviction+clusterTaintDelete, func() {
		if p := c.pods[id]; p != nil {
			c.terminate(p, p.GracePeriod)
		}
	})
}

// later runs do after d with the cluster locked.
func (c *Cluster) later(d time.Duration, do func()) {
	time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		do()
	})
}
