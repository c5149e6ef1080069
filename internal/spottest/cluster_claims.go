package spottest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// ownAnnotations returns the annotations with our prefix.
func ownAnnotations(annotations map[string]string) (found map[string]string) {
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

// AddClaim adds a Karpenter NodeClaim.
func (c *Cluster) AddClaim(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims[name] = true
}

// Claims returns the names of the NodeClaims.
func (c *Cluster) Claims() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.claims))
}

// DeleteNodeClaim deletes the NodeClaim. It does not model what Karpenter does next.
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

func (c *Cluster) CordonedNodes(ctx context.Context) (cordoned []spot.Node, err error) {
	key, value, _ := strings.Cut(spot.DrainingSelector, "=")
	cordoned, err = c.listNodes(ctx, func(n *spot.Node) bool { return n.Labels[key] == value })
	if err != nil {
		return nil, fmt.Errorf("listing cordoned nodes: %w", err)
	}
	return cordoned, nil
}

// Forbid makes Allowed return false for such requests; they still succeed. A subresource is written
// resource/subresource.
func (c *Cluster) Forbid(verb, resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forbidden[verb+" "+resource] = true
}

// Allowed reports what Forbid left allowed. It ignores the group.
func (c *Cluster) Allowed(ctx context.Context, verb, _, resource, subresource string) (allowed bool, reason string,
	err error) {
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
		reason = "not forbidden"
	}
	return allowed, reason, nil
}
