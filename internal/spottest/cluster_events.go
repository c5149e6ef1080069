package spottest

import (
	"context"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

// Record stores the Event.
func (c *Cluster) Record(ctx context.Context, n spot.KubeEvent) error {
	about := ""
	if n.Node != nil {
		about = n.Node.Name
	} else {
		about = n.Pod.ID()
	}
	return c.request(ctx, "create", "events", about, func() error {
		c.events = append(c.events, n)
		return nil
	})
}

// Events returns the recorded Events.
func (c *Cluster) Events() []spot.KubeEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}
