package sim_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

func TestReplacements(t *testing.T) {
	for _, test := range []struct {
		kind, node        string
		terminating, gone string // the pods just after the deletion, and after the end
		ready             string
	}{
		{"ReplicaSet", "b", "p-0@a terminating, p-0003@b pending", "p-0003@b pending", "p-0003@b"},
		{"ReplicaSet", "", "p-0@a terminating, p-0003@ pending", "p-0003@ pending", "p-0003@ pending"},
		{"StatefulSet", "b", "p-0@a terminating", "p-0@b pending", "p-0@b"},
		{"DaemonSet", "a", "p-0@a terminating", "p-0003@a pending", "p-0003@a"},
		{"Job", "a", "p-0@a terminating, p-0003@a pending", "p-0003@a pending", "p-0003@a"},
	} {
		t.Run(test.kind+"@"+test.node, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := sim.NewCluster()
				c.AddNode(spot.Node{Name: "a"})
				old := c.AddPod(sim.Pod{
					Node: "a", Exit: 5 * second,
					Pod:         spot.Pod{Name: "p-0", Owner: spot.Owner{Kind: test.kind, Name: "p"}, ToleratesCordon: true},
					Replacement: &sim.Replacement{Node: test.node, Ready: 20 * second},
				})
				must(t, c.Evict(t.Context(), old, 10*second, false))
				time.Sleep(second)
				want(t, "while it ends", names(c), test.terminating)
				time.Sleep(5 * second)
				want(t, "when it is gone", names(c), test.gone)
				time.Sleep(30 * second)
				want(t, "later", names(c), test.ready)
				if next := c.Pods()[0]; next.UID == old.UID || !next.ToleratesCordon || next.Owner != old.Owner {
					t.Errorf("got %+v; want another pod as %+v", next, old)
				}
			})
		})
	}
}

func TestBareAndMirrorPods(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		bare := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "bare"}})
		mirror := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "proxy", Mirror: true, Owner: spot.Owner{Kind: "Node", Name: "a"}}})
		must(t, c.Delete(t.Context(), bare, 10*second, false))
		must(t, c.Delete(t.Context(), mirror, 10*second, false))
		until(at, time.Minute)
		want(t, "pods", names(c), "proxy@a")
		want(t, "SIGTERMs", len(c.Endings()), 1)
		if now, _ := c.Pod("default/proxy"); now.UID == mirror.UID {
			t.Error("the mirror pod is the same; want a new picture of the same process")
		}
	})
}

func TestDaemonSetDoesNotComeBackToANodeThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "d", Owner: spot.Owner{Kind: "DaemonSet", Name: "d"}},
			Replacement: &sim.Replacement{Node: "a"}})
		c.RemoveNode("a")
		c.RemovePod("default/d")
		until(at, time.Minute)
		want(t, "pods", names(c), "")
	})
}
