package sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// clusterDisruptionTimeout is how long the disruption controller takes an eviction that a budget has allowed for
// one that is still to come.
const clusterDisruptionTimeout = 2 * time.Minute

// Budget is a PodDisruptionBudget. It guards the pods of its namespace that are Owner's or whose labels Match.
type Budget struct {
	Namespace  string // "default" if it is empty
	Name       string
	Owner      string // the name of a controlling owner
	Match      func(labels map[string]string) bool
	Available  int           // minAvailable
	RetryAfter time.Duration // what comes with a refusal; the real API server says nothing
}

type clusterBudget struct {
	Budget
	// disrupted are the pods whose eviction was allowed and then failed on its precondition, by name. The allowance is
	// spent all the same until the disruption controller gives them up.
	disrupted map[string]time.Time
}

func (b *clusterBudget) guards(p *clusterPod) bool {
	return p.Namespace == b.Namespace &&
		(b.Owner != "" && b.Owner == p.Owner.Name || b.Match != nil && b.Match(p.Labels))
}

// AddBudget adds a PodDisruptionBudget.
func (c *Cluster) AddBudget(b Budget) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.Namespace = cmp.Or(b.Namespace, "default")
	c.budgets = append(c.budgets, &clusterBudget{Budget: b, disrupted: map[string]time.Time{}})
}

// RemoveBudget removes the PodDisruptionBudgets of that name.
func (c *Cluster) RemoveBudget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budgets = slices.DeleteFunc(c.budgets, func(b *clusterBudget) bool { return b.Name == name })
}

// allowance asks the budgets that guard the pod. It returns the one that would have to spend an allowance, if any.
func (c *Cluster) allowance(p *clusterPod) (*clusterBudget, *spot.Refusal) {
	if p.Finished || p.Pending || p.Terminating {
		return nil, nil
	}
	var guards []*clusterBudget
	for _, b := range c.budgets {
		if b.guards(p) {
			guards = append(guards, b)
		}
	}
	switch len(guards) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, &spot.Refusal{Code: 500,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}
	}
	b := guards[0]
	healthy := c.healthy(b)
	if p.Unready && healthy >= b.Available && b.Available > 0 {
		return nil, nil // it does not count, so losing it disrupts nothing
	}
	if healthy <= b.Available {
		return nil, &spot.Refusal{Code: 429, RetryAfter: b.RetryAfter, Message: fmt.Sprintf(
			"Cannot evict pod as it would violate the pod's disruption budget. The disruption budget %s needs %d healthy pods and has %d currently.",
			b.Name, b.Available, healthy)}
	}
	return b, nil
}

// healthy counts the budget's pods as the disruption controller does. Pods of a node without power count until they are
// deleted, as they do until the node lifecycle controller calls them unready.
func (c *Cluster) healthy(b *clusterBudget) (n int) {
	for _, p := range c.pods {
		disrupted, ok := b.disrupted[p.Name]
		if p.Terminating {
			delete(b.disrupted, p.Name)
		}
		if b.guards(p) && !p.Finished && !p.Pending && !p.Unready && !p.Terminating &&
			(!ok || time.Since(disrupted) >= clusterDisruptionTimeout) {
			n++
		}
	}
	return n
}
