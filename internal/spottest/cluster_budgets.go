package spottest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Budget is a PodDisruptionBudget for the pods in its namespace that Owner owns or Match selects.
type Budget struct {
	Namespace  string // defaults to "default"
	Name       string
	Owner      string // name of the controller
	Match      func(labels map[string]string) bool
	Available  int           // minAvailable
	RetryAfter time.Duration // sent with a refusal; the real API server sends none
}

func (b Budget) guards(p *clusterPod) bool {
	return p.Namespace == b.Namespace &&
		(b.Owner != "" && b.Owner == p.Owner.Name || b.Match != nil && b.Match(p.Labels))
}

// AddBudget adds a PodDisruptionBudget.
func (c *Cluster) AddBudget(b Budget) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.Namespace = cmp.Or(b.Namespace, "default")
	c.budgets = append(c.budgets, b)
}

// RemoveBudget removes the PodDisruptionBudgets of that name.
func (c *Cluster) RemoveBudget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budgets = slices.DeleteFunc(c.budgets, func(b Budget) bool { return b.Name == name })
}

// blockedBy returns the refusal of the budgets that select the pod, or nil.
func (c *Cluster) blockedBy(p *clusterPod) *spot.Refusal {
	if p.Finished || p.Pending || p.Terminating {
		return nil
	}
	var guards []Budget
	for _, b := range c.budgets {
		if b.guards(p) {
			guards = append(guards, b)
		}
	}
	switch len(guards) {
	case 0:
		return nil
	case 1:
	default:
		return &spot.Refusal{Code: 500, Budget: true,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}
	}
	b := guards[0]
	healthy := c.healthy(b)
	if healthy <= b.Available {
		return &spot.Refusal{Code: 429, Budget: true, RetryAfter: b.RetryAfter, Message: fmt.Sprintf(
			"Cannot evict pod as it would violate the pod's disruption budget. The disruption budget %s needs %d healthy pods and has %d currently.",
			b.Name, b.Available, healthy)}
	}
	return nil
}

// healthy counts the healthy pods as the disruption controller does. Pods on a node without power count until they are
// deleted, as they do until the node lifecycle controller marks them not ready.
func (c *Cluster) healthy(b Budget) (n int) {
	for _, p := range c.pods {
		if b.guards(p) && !p.Finished && !p.Pending && !p.Terminating {
			n++
		}
	}
	return n
}
