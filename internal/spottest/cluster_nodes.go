package spottest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// clusterConflicts limits the retries of ChangeNode. Without a limit, a hook that writes each time would stop the
	// clock of a synctest bubble.
	clusterConflicts = 10

	// clusterManager is our field manager.
	clusterManager = "kops-spot"
)

// AddNode adds a node and returns it. It generates a UID if there is none.
func (c *Cluster) AddNode(n spot.Node) spot.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[n.Name] != nil {
		panic("spottest: there is a node " + n.Name + " already")
	}
	n = cloneNode(n)
	if n.UID == "" {
		n.UID = c.uid()
	}
	c.nodes[n.Name] = &n
	c.nodeWritten(&n)
	return cloneNode(n)
}

// RemoveNode deletes the Node as the cloud controller does. Its pods stay until they are garbage-collected.
func (c *Cluster) RemoveNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeNode(name)
}

// Node returns the current node.
func (c *Cluster) Node(name string) (spot.Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return spot.Node{}, false
	}
	return cloneNode(*n), true
}

// WriteNode changes a node as another client would: no request is logged, and the version changes.
func (c *Cluster) WriteNode(name string, change func(*spot.Node)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[name]
	if n == nil {
		panic("spottest: there is no node " + name)
	}
	change(n)
	c.nodeWritten(n)
}

// BeforeNodeWrite calls hook in ChangeNode before each write, where a WriteNode causes a conflict. The hook may call
// the cluster.
func (c *Cluster) BeforeNodeWrite(hook func(node string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beforeWrite = hook
}

func (c *Cluster) NodeNamed(ctx context.Context, name string) (spot.Node, error) {
	var n spot.Node
	err := c.request(ctx, "get", "nodes", name, func() error {
		have := c.nodes[name]
		if have == nil {
			return spot.ErrNotFound
		}
		n = cloneNode(*have)
		return nil
	})
	if err != nil {
		return spot.Node{}, fmt.Errorf("reading node %s: %w", name, err)
	}
	return n, nil
}

// nodeFollower is a watch of a node.
type nodeFollower struct {
	node  string
	queue []spot.Node
	wake  chan struct{}
}

// FollowNode sends a watch request.
func (c *Cluster) FollowNode(ctx context.Context, n spot.Node, see func(spot.Node)) error {
	f := &nodeFollower{node: n.Name, wake: make(chan struct{}, 1)}
	err := c.request(ctx, "watch", "nodes", n.Name, func() error {
		c.nodeFollowers = append(c.nodeFollowers, f)
		if now := c.nodes[n.Name]; now != nil && now.Version != n.Version {
			f.queue, f.wake = []spot.Node{cloneNode(*now)}, make(chan struct{}, 1)
			f.wake <- struct{}{}
		}
		return nil
	})
	for err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-f.wake:
			c.mu.Lock()
			changes := f.queue
			f.queue = nil
			c.mu.Unlock()
			for _, change := range changes {
				see(change)
			}
		}
	}
	return fmt.Errorf("watching node %s: %w", n.Name, err)
}

func (c *Cluster) NodeOf(ctx context.Context, instanceID string) (spot.Node, error) {
	found, err := c.listNodes(ctx, func(n *spot.Node) bool { return n.IsInstance(instanceID) })
	if err != nil {
		return spot.Node{}, fmt.Errorf("listing nodes: %w", err)
	}
	if len(found) == 0 {
		return spot.Node{}, fmt.Errorf("looking for the node of %s: %w", instanceID, spot.ErrNotFound)
	}
	return found[0], nil
}

// listNodes lists all nodes with one request and returns those that match.
func (c *Cluster) listNodes(ctx context.Context, match func(*spot.Node) bool) (found []spot.Node, err error) {
	err = c.request(ctx, "list", "nodes", "", func() error {
		for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
			if n := c.nodes[name]; match(n) {
				found = append(found, cloneNode(*n))
			}
		}
		return nil
	})
	return found, err
}

func (c *Cluster) ChangeNode(ctx context.Context, n spot.Node, change func(spot.Node) spot.Node) (spot.Node, error) {
	for range clusterConflicts {
		want := change(cloneNode(n))
		if sameNode(n, want) {
			return n, nil
		}
		c.mu.Lock()
		beforeWrite := c.beforeWrite
		c.mu.Unlock()
		if beforeWrite != nil {
			beforeWrite(n.Name)
		}
		now, err := c.patchNode(ctx, n, want)
		if err == nil {
			return now, nil
		}
		if !errors.Is(err, spot.ErrChanged) {
			return spot.Node{}, fmt.Errorf("changing node %s: %w", n.Name, err)
		}
		now, err = c.NodeNamed(ctx, n.Name)
		switch {
		case err != nil:
			return spot.Node{}, err
		case now.UID != n.UID:
			return spot.Node{}, fmt.Errorf("changing node %s: another node has its name: %w", n.Name, spot.ErrNotFound)
		}
		n = now
	}
	return spot.Node{}, fmt.Errorf("changing node %s: conflict in each of %d attempts", n.Name, clusterConflicts)
}

func (c *Cluster) patchNode(ctx context.Context, n, want spot.Node) (now spot.Node, err error) {
	err = c.request(ctx, "patch", "nodes", n.Name, func() error {
		have := c.nodes[n.Name]
		switch {
		case have == nil:
			return spot.ErrNotFound
		case have.Version != n.Version, have.UID != n.UID:
			return spot.ErrChanged
		}
		want = cloneNode(want)
		have.Labels, have.Annotations, have.Taints = want.Labels, want.Annotations, want.Taints
		if want.Unschedulable && !have.Unschedulable {
			have.CordonedBy = clusterManager
		}
		have.Unschedulable = want.Unschedulable
		c.nodeWritten(have)
		now = cloneNode(*have)
		return nil
	})
	return now, err
}

// nodeWritten runs the controllers after a write to a node.
func (c *Cluster) nodeWritten(n *spot.Node) {
	if !n.Unschedulable {
		n.CordonedBy = ""
	}
	n.Version = c.bump()
	for _, f := range c.nodeFollowers {
		if f.node == n.Name {
			f.queue = append(f.queue, cloneNode(*n))
			select {
			case f.wake <- struct{}{}:
			default:
			}
		}
	}
	c.evictTainted(n)
	c.reconcileVolumes()
}

func cloneNode(n spot.Node) spot.Node {
	n.Labels, n.Annotations, n.Taints = maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
	n.AttachedVolumes = slices.Clone(n.AttachedVolumes)
	return n
}

// sameNode compares the fields that ChangeNode writes.
func sameNode(a, b spot.Node) bool {
	return a.Unschedulable == b.Unschedulable && maps.Equal(a.Labels, b.Labels) &&
		maps.Equal(a.Annotations, b.Annotations) &&
		slices.EqualFunc(a.Taints, b.Taints, func(a, b spot.Taint) bool {
			return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect && a.TimeAdded.Equal(b.TimeAdded)
		})
}
