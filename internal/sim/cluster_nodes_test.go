package sim_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

func TestChangeNodeMeetsAConflict(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		conflicts := 0
		c.BeforeNodeWrite(func(node string) {
			if conflicts++; conflicts <= 2 {
				c.WriteNode(node, func(n *spot.Node) { n.Taints = append(n.Taints, spot.Taint{Key: fmt.Sprint("theirs-", conflicts)}) })
			}
		})
		n, err := c.NodeNamed(t.Context(), "a")
		must(t, err)
		decided := 0
		n, err = c.ChangeNode(t.Context(), n, func(n spot.Node) spot.Node {
			decided++
			n.Taints = append(slices.Clone(n.Taints), spot.Taint{Key: "ours"})
			return n
		})
		must(t, err)
		want(t, "taints", len(n.Taints), 3)
		want(t, "decisions", decided, 3)
		want(t, "patches", c.Count("patch", "nodes"), 3)
		want(t, "reads", c.Count("get", "nodes"), 3)

		_, err = c.ChangeNode(t.Context(), n, func(n spot.Node) spot.Node { return n })
		must(t, err)
		want(t, "patches after a change of nothing", c.Count("patch", "nodes"), 3)
	})
}

func TestChangeNodeGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.BeforeNodeWrite(func(node string) { c.WriteNode(node, func(*spot.Node) {}) })
		n, _ := c.Node("a")
		_, err := c.ChangeNode(t.Context(), n, func(n spot.Node) spot.Node { n.Unschedulable = true; return n })
		if err == nil || errors.Is(err, spot.ErrChanged) || errors.Is(err, spot.ErrNotFound) {
			t.Errorf("got %v; want an error that is worth another try", err)
		}
		want(t, "patches", c.Count("patch", "nodes"), 10)
	})
}

func TestChangeNodeKnowsAnotherNodeOfTheName(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		n, _ := c.Node("a")
		c.RemoveNode("a")
		unschedulable := func(n spot.Node) spot.Node { n.Unschedulable = true; return n }
		_, err := c.ChangeNode(t.Context(), n, unschedulable)
		wantErr(t, "a node that is gone", err, spot.ErrNotFound)
		c.AddNode(spot.Node{Name: "a", ProviderID: "aws:///eu-west-1a/i-other"})
		_, err = c.ChangeNode(t.Context(), n, unschedulable)
		wantErr(t, "a node that is another", err, spot.ErrNotFound)
		if n, _ := c.Node("a"); n.Unschedulable {
			t.Error("the other node was changed")
		}
	})
}

func TestNodeOfAsksPageByPage(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		for i := range 1000 {
			c.AddNode(spot.Node{Name: fmt.Sprintf("n%04d", i), ProviderID: fmt.Sprintf("aws:///eu-west-1a/i-%04d", i)})
		}
		n, err := c.NodeOf(t.Context(), "i-0600")
		must(t, err)
		want(t, "node", n.Name, "n0600")
		want(t, "pages", c.Count("list", "nodes"), 2)
		_, err = c.NodeOf(t.Context(), "i-none")
		wantErr(t, "no node", err, spot.ErrNotFound)
		want(t, "pages with those of a search in vain", c.Count("list", "nodes"), 5)
	})
}
