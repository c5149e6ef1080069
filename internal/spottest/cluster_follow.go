package spottest

import (
	"context"
	"fmt"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

// clusterFollower is a stream of pod changes of a node. Its queue is unbounded, so a slow reader never blocks the
// cluster.
type clusterFollower struct {
	node   string
	queue  []spot.PodChange
	broken bool
	err    error
	wake   chan struct{} // signals a change of the fields above
}

func (f *clusterFollower) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// FollowPods sends a list request and a watch request.
func (c *Cluster) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	f := &clusterFollower{node: node, wake: make(chan struct{}, 1)}
	defer c.unfollow(f)

	var all []spot.Pod
	err := c.request(ctx, "list", "pods", node, func() error {
		all = c.podsOn(node)
		c.followers = append(c.followers, f)
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	see(spot.PodChange{All: true, Pods: all})
	if err := c.request(ctx, "watch", "pods", node, func() error { return nil }); err != nil {
		return fmt.Errorf("watching the pods of node %s: %w", node, err)
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("watching the pods of node %s: %w", node, ctx.Err())
		case <-f.wake:
		}
		changes, broken, err := c.take(f)
		if broken {
			return err
		}
		for _, change := range changes {
			see(change)
		}
	}
}

func (c *Cluster) unfollow(f *clusterFollower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.followers = slices.DeleteFunc(c.followers, func(other *clusterFollower) bool { return other == f })
}

func (c *Cluster) take(f *clusterFollower) (changes []spot.PodChange, broken bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changes, f.queue = f.queue, nil
	return changes, f.broken, f.err
}

// BreakFollowing breaks every open stream of pods: FollowPods returns err, or nil as for a watch that the API server
// closed normally. Undelivered changes are lost.
func (c *Cluster) BreakFollowing(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.followers {
		f.broken, f.err = true, err
		f.signal()
	}
}

// publish queues a pod change for the followers of its node.
func (c *Cluster) publish(p *clusterPod, gone bool) {
	for _, f := range c.followers {
		if f.node == p.Node && p.Node != "" {
			f.queue = append(f.queue, spot.PodChange{Gone: gone, Pods: []spot.Pod{p.seen()}})
			f.signal()
		}
	}
}
