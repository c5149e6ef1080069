package spottest

import (
	"context"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

// Tell keeps the note, as the API server keeps an Event.
func (c *Cluster) Record(ctx context.Context, n spot.KubeEvent) error {
	about := ""
	if n.Node != nil {
		about = n.Node.Name
	} else {
		about = n.Pod.ID()
	}
	return c.request(ctx, "create", "events", about, func() error {
		c.notes = append(c.notes, n)
		return nil
	})
}

// Notes are the notes that were told so far.
func (c *Cluster) Notes() []spot.KubeEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.notes)
}
