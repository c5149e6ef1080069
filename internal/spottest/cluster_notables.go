package spottest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// clusterOurs are the annotations of ours among an object's.
func clusterOurs(annotations map[string]string) (found map[string]string) {
	for key, value := range annotations {
		if strings.HasPrefix(key, spot.AnnotationPrefix) {
			if found == nil {
				found = map[string]string{}
			}
			found[key] = value
		}
	}
	return found
}

// AddClaim adds a NodeClaim of Karpenter's. A cluster that never had one has no such kind, which looks the same.
func (c *Cluster) AddClaim(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims[name] = true
}

// Claims are the NodeClaims that there are.
func (c *Cluster) Claims() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.claims))
}

// DeleteNodeClaim takes the NodeClaim away, and no more: what Karpenter makes of that is the test's to say.
func (c *Cluster) DeleteNodeClaim(ctx context.Context, name string) error {
	err := c.request(ctx, "delete", "nodeclaims", name, func() error {
		if !c.claims[name] {
			return spot.ErrNotFound
		}
		delete(c.claims, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("deleting NodeClaim %s: %w", name, err)
	}
	return nil
}

func (c *Cluster) CordonedNodes(ctx context.Context) (marked []spot.Node, err error) {
	key, value, _ := strings.Cut(spot.DrainingSelector, "=")
	marked, err = c.listNodes(ctx, func(n *spot.Node) bool { return n.Labels[key] == value })
	if err != nil {
		return nil, fmt.Errorf("listing marked nodes: %w", err)
	}
	return marked, nil
}

// Forbid has Allowed say no to such requests; they are carried out all the same. A subresource is named after its
// resource and a slash.
func (c *Cluster) Forbid(verb, resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forbidden[verb+" "+resource] = true
}

// Allowed tells what Forbid has left. It knows a resource whatever its group is.
func (c *Cluster) Allowed(ctx context.Context, verb, _, resource, subresource string) (allowed bool, reason string, err error) {
	if subresource != "" {
		resource += "/" + subresource
	}
	err = c.request(ctx, "create", "selfsubjectaccessreviews", "", func() error {
		allowed = !c.forbidden[verb+" "+resource]
		return nil
	})
	if err != nil {
		return false, "", fmt.Errorf("checking permissions: %w", err)
	}
	if allowed {
		reason = "everything is allowed that is not forbidden"
	}
	return allowed, reason, nil
}
