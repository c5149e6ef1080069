package sim_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

const ms = time.Millisecond

// db is a pod of the StatefulSet db on node a, whose successor goes to node b.
func db() sim.Pod {
	return sim.Pod{Node: "a", Pod: spot.Pod{Name: "db-0", Grace: 30 * second, Owner: spot.Owner{Kind: "StatefulSet", Name: "db"}},
		Replacement: &sim.Replacement{Node: "b", Ready: second}}
}

// outOfService taints a node as somebody who knows that its machine has ended.
func outOfService(c *sim.Cluster, node, effect string) {
	c.WriteNode(node, func(n *spot.Node) {
		n.Taints = append(n.Taints, spot.Taint{Key: "node.kubernetes.io/out-of-service", Effect: effect})
	})
}

// TestTheTaintEvictionControllerDeletesByName: who removes a pod before it has done so makes it end the next pod of that
// name, which is well.
func TestTheTaintEvictionControllerDeletesByName(t *testing.T) {
	for _, test := range []struct {
		name    string
		evicted bool          // the pod was ending already
		remove  time.Duration // when it is removed, after the taint
		ended   bool          // the next pod
	}{
		{"at once", false, 0, true},
		{"just before the condition is written", false, 199 * ms, true},
		{"between the condition and the deletion", false, 203 * ms, true},
		{"when it is ending", false, 206 * ms, false},
		{"at once, when it was ending before", true, 0, true},
		{"between the condition and the deletion, when it was ending before", true, 203 * ms, true},
		{"later, when it was ending before", true, 300 * ms, false},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
				old := c.AddPod(db())
				c.PowerOff("a")
				if test.evicted {
					must(t, c.Evict(t.Context(), old, 30*second, false))
				}
				outOfService(c, "a", "NoExecute")
				until(at, test.remove)
				must(t, c.Delete(t.Context(), old, 0, false))
				until(at, test.remove+15*ms)
				next, ok := c.Pod("default/db-0")
				if !ok || next.UID == old.UID {
					t.Fatalf("got %+v; want the next pod", next)
				}
				until(at, 10*second)
				want(t, "pods", names(c), "db-0@b")
				now, _ := c.Pod("default/db-0")
				want(t, "the next pod was ended", now.UID != next.UID, test.ended)
				want(t, "the last one is ended by", now.EndedBy, "")
			})
		})
	}
}

func TestThePodsOfANodeThatIsOutOfService(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		stay := web("stay")
		stay.ToleratesOutage = true
		c.AddPod(stay)
		c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "proxy", Mirror: true}})
		c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "agent", Grace: second, Owner: spot.Owner{Kind: "DaemonSet", Name: "agent"}}, Replacement: &sim.Replacement{Node: "a"}})
		again := web("web-1")
		again.Replacement = &sim.Replacement{Node: "a", Ready: second}
		c.AddPod(again)
		c.PowerOff("a")

		outOfService(c, "a", "NoExecute")
		until(at, 204*ms)
		want(t, "before", names(c), "agent@a, proxy@a, stay@a, web-1@a")
		until(at, 205*ms)
		want(t, "after", names(c), "agent@a terminating, proxy@a, stay@a, web-1@a terminating")
		p, _ := c.Pod("default/web-1")
		want(t, "ended by", p.EndedBy, "DeletionByTaintManager")
		want(t, "ends by, with its own grace", time.Until(p.EndsBy).Round(second), 30*second)

		c.AddPod(web("late"))
		until(at, 300*ms)
		want(t, "the next pod goes nowhere yet", names(c), "agent@a terminating, late@a, proxy@a, stay@a, web-0007@ pending, web-1@a terminating")
		agent, _ := c.Pod("default/agent")
		must(t, c.Delete(t.Context(), agent.Pod, 0, false))
		until(at, second)
		want(t, "a pod that came late is ended, a DaemonSet makes none", names(c), "late@a terminating, proxy@a, stay@a, web-0007@ pending, web-1@a terminating")
		want(t, "SIGTERMs", len(c.Endings()), 0)
	})
}

func TestATaintThatEvictsNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(web("web-1"))
		outOfService(c, "a", "NoSchedule")
		until(at, second)
		want(t, "pods", names(c), "web-1@a")
		c.WriteNode("a", func(n *spot.Node) { n.Taints = []spot.Taint{{Key: "other", Effect: "NoExecute"}} })
		until(at, 2*second)
		want(t, "pods after a taint of another key", names(c), "web-1@a")
	})
}

func TestThePodGarbageCollectorFindsThePodsOfANodeThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Replacement = &sim.Replacement{Node: "b"}
		c.AddPod(p)
		c.AddPod(db())
		held := web("held")
		held.Finalizer = true
		c.AddPod(held)
		c.PowerOff("a")
		n, _ := c.Node("a")
		must(t, c.DeleteNode(t.Context(), n))
		until(at, 59*second)
		want(t, "before", names(c), "db-0@a, held@a, web-1@a")
		until(at, 62*second)
		want(t, "after", names(c), "db-0@b, held@a terminating finished, web-0006@b")
		got, _ := c.Pod("default/held")
		want(t, "ended by", got.EndedBy, "DeletionByPodGC")
	})
}

func TestANodeThatComesBackInTimeKeepsItsPods(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(web("web-1"))
		c.RemoveNode("a")
		until(at, 30*second)
		c.AddNode(spot.Node{Name: "a"})
		until(at, time.Hour)
		want(t, "pods", names(c), "web-1@a")
	})
}

func TestThePodGarbageCollectorRemovesWhatIsEndingOnANodeThatIsOutOfService(t *testing.T) {
	for _, test := range []struct {
		name  string
		power bool
		taint string
		left  string
	}{
		{"without power and tainted", false, "NoExecute", "db-0@b"},
		{"tainted without eviction", false, "NoSchedule", "db-0@a"},
		{"with power", true, "NoExecute", "db-0@b"}, // its kubelet ends it long before
		{"not tainted", false, "", "db-0@a"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
				c.AddPod(db())
				if !test.power {
					c.PowerOff("a")
				}
				if test.taint != "" {
					outOfService(c, "a", test.taint)
				}
				until(at, 59*second)
				if got := names(c); test.left == "db-0@b" && !test.power && got != "db-0@a terminating" {
					t.Errorf("before: got %s; want it terminating", got)
				}
				until(at, 65*second)
				want(t, "pods", names(c), test.left)
				want(t, "shortenings", len(c.Shortenings()), 0)
			})
		})
	}
}

func TestWhatWasEndingBeforeTheTaintIsCollectedToo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(db())
		c.PowerOff("a")
		must(t, c.Evict(t.Context(), p, 30*second, false))
		outOfService(c, "a", "NoSchedule")
		until(at, 65*second)
		want(t, "pods", names(c), "db-0@b")
	})
}

func TestWhatIsNoLongerOutOfServiceIsNotCollected(t *testing.T) {
	for name, returns := range map[string]func(c *sim.Cluster){
		"the power":                func(c *sim.Cluster) { c.PowerOn("a") },
		"the trust that is put in": func(c *sim.Cluster) { c.WriteNode("a", func(n *spot.Node) { n.Taints = nil }) },
	} {
		inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
			p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "slow"}, Exit: time.Hour})
			c.PowerOff("a")
			outOfService(c, "a", "NoSchedule")
			until(at, 30*second)
			returns(c)
			must(t, c.Evict(t.Context(), p, time.Hour, false))
			until(at, 10*time.Minute)
			want(t, name+" is back", names(c), "slow@a terminating")
		})
	}
}

func TestPowerOn(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		early := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "early"}, Exit: 20 * second})
		late := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "late"}})
		c.AddPod(web("web-1"))
		must(t, c.Evict(t.Context(), early, 30*second, false))
		c.PowerOff("a")
		must(t, c.Evict(t.Context(), late, 30*second, false))
		until(at, 5*second)
		want(t, "off", names(c), "early@a terminating, late@a terminating, web-1@a")
		c.PowerOn("a")
		want(t, "on", names(c), "web-1@a")
		until(at, time.Minute)
		if all := c.Endings(); len(all) != 1 || !all[0].Killed || !all[0].Exited.Equal(all[0].SIGTERM) {
			t.Errorf("got %+v; want only the early one, dead when power was cut", all)
		}
		web1, _ := c.Pod("default/web-1")
		must(t, c.Evict(t.Context(), web1.Pod, 30*second, false))
		until(at, 2*time.Minute)
		want(t, "its kubelet works again", names(c), "")
	})
}

func TestForbid(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(web("web-1"))
		c.Forbid("create", "pods/eviction")
		err := c.Evict(t.Context(), p, second, false)
		if err == nil || !errors.Is(err, spot.ErrFinal) {
			t.Errorf("got %v; want what may pass, but most likely will not", err)
		}
		must(t, c.Delete(t.Context(), p, 30*second, false))
		for verb, want := range map[string]bool{"create": false, "get": true} {
			if got, _, err := c.Allowed(t.Context(), verb, "", "pods", "eviction"); got != want || err != nil {
				t.Errorf("%s: got %v, %v; want %v", verb, got, err, want)
			}
		}
	})
}
