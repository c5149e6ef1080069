package spottest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const (
	second = time.Second
	ms     = time.Millisecond
)

// inBubble runs a test on a cluster with nodes a and b; at returns the time since its start.
func inBubble(t *testing.T, test func(t *testing.T, c *spottest.Cluster, at func() time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := spottest.NewCluster()
		for _, name := range []string{"a", "b"} {
			c.AddNode(spot.Node{Name: name, ProviderID: "aws:///eu-west-1a/i-" + name})
		}
		began := time.Now()
		test(t, c, func() time.Duration { return time.Since(began) })
	})
}

// until sleeps until that time and waits for what happens then.
func until(at func() time.Duration, moment time.Duration) {
	time.Sleep(moment - at())
	synctest.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v; want %v", what, got, want)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v; want %v", what, got, want)
	}
}

// TestEveryRequestIsLogged whether it succeeds or fails: other tests rely on it.
func TestEveryRequestIsLogged(t *testing.T) {
	inBubble(t, func(t *testing.T, c *spottest.Cluster, at func() time.Duration) {
		c.Disturb(spottest.Disturbance{Delay: second})
		p := c.AddPod(spottest.Pod{Node: "a", Pod: spot.Pod{Name: "p"}})
		n, err := c.NodeNamed(t.Context(), "a")
		must(t, err)
		ended, end := context.WithCancel(t.Context())
		for _, ask := range []struct {
			is  string
			ask func() error
		}{
			{"get nodes none", func() error { _, err := c.NodeNamed(t.Context(), "none"); return err }},
			{"list nodes ", func() error { _, err := c.NodeOf(t.Context(), "i-b"); return err }},
			{"list nodes ", func() error { _, err := c.CordonedNodes(t.Context()); return err }},
			{"patch nodes a", func() error {
				_, err := c.ChangeNode(t.Context(), n, func(n spot.Node) spot.Node { n.Unschedulable = true; return n })
				return err
			}},
			{"list pods a, watch pods a", func() error {
				time.AfterFunc(3*second, end)
				return c.FollowPods(ended, "a", func(spot.PodChange) {})
			}},
			{"", func() error { return c.Delete(ended, p, second, false) }},
			{"create pods/eviction default/p", func() error { return c.Evict(t.Context(), p, second, false) }},
			{"delete pods default/p", func() error { return c.Delete(t.Context(), p, second, false) }},
			{"list volumeattachments a, watch volumeattachments a", func() error {
				watched, end := context.WithTimeout(t.Context(), 3*second)
				defer end()
				return c.FollowVolumes(watched, "a", func([]string) {})
			}},
			{"create events a", func() error { return c.Record(t.Context(), spot.KubeEvent{Node: &n}) }},
			{"delete nodeclaims c", func() error { return c.DeleteNodeClaim(t.Context(), "c") }},
			{"create selfsubjectaccessreviews ",
				func() error { _, _, err := c.Allowed(t.Context(), "get", "", "pods", ""); return err }},
			{"delete nodes a", func() error { return c.DeleteNode(t.Context(), n) }},
		} {
			before := len(c.Requests())
			err := ask.ask()
			var all []string
			for _, r := range c.Requests()[before:] {
				all = append(all, r.Verb+" "+r.Resource+" "+r.Name)
				want(t, ask.is+" takes", r.Answered.Sub(r.Asked), second)
				if r.Err != nil {
					wantErr(t, ask.is, err, r.Err)
				}
			}
			want(t, "requests", strings.Join(all, ", "), ask.is)
		}
	})
}

func TestDisturbances(t *testing.T) {
	unreachable := errors.New("API server unreachable")
	inBubble(t, func(t *testing.T, c *spottest.Cluster, at func() time.Duration) {
		p := c.AddPod(spottest.Pod{Node: "a", Pod: spot.Pod{Name: "p", GracePeriod: 30 * second}, Exit: 5 * second})

		c.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Name: "a", Err: unreachable, Times: 2})
		for _, ask := range []struct {
			node string
			want error
		}{{"a", unreachable}, {"b", nil}, {"a", unreachable}, {"a", nil}} {
			_, err := c.NodeNamed(t.Context(), ask.node)
			wantErr(t, ask.node, err, ask.want)
		}
		end := c.Disturb(spottest.Disturbance{Err: unreachable})
		wantErr(t, "Evict", c.Evict(t.Context(), p, second, false), unreachable)
		end()
		if got, _ := c.Pod("default/p"); got.Terminating {
			t.Error("the eviction was carried out")
		}
		c.Disturb(spottest.Disturbance{Verb: "create", Err: unreachable, Lost: true, Times: 1})
		wantErr(t, "Evict, answer lost", c.Evict(t.Context(), p, 20*second, false), unreachable)
		if got, _ := c.Pod("default/p"); !got.Terminating {
			t.Error("the eviction was not carried out")
		}
		c.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Delay: 10 * second})
		ctx, cancel := context.WithTimeout(t.Context(), 3*second)
		defer cancel()
		_, err := spottest.PodsOn(ctx, c, "a")
		wantErr(t, "a late response", err, context.DeadlineExceeded)
		want(t, "given up at", at(), 3*second)
	})
}

// TestShortenings matters because every handler test asserts that there are none.
func TestShortenings(t *testing.T) {
	inBubble(t, func(t *testing.T, c *spottest.Cluster, at func() time.Duration) {
		p := c.AddPod(spottest.Pod{Node: "a", Pod: spot.Pod{Name: "p", GracePeriod: time.Hour}, Exit: time.Hour})
		must(t, c.Evict(t.Context(), p, 60*second, false))
		until(at, 10*second)
		must(t, c.Evict(t.Context(), p, 60*second, false))
		must(t, c.Delete(t.Context(), p, time.Hour, false))
		want(t, "shortenings by no less", len(c.Shortenings()), 0)
		must(t, c.Delete(t.Context(), p, 25*second, false))
		want(t, "shortening", c.Shortenings()[0],
			spottest.Shortening{Pod: "default/p", From: 60 * second, To: 25 * second})
		until(at, 25*second-1)
		now, _ := c.Pod("default/p")
		want(t, "finished before the grace period", now.Finished, false)
		until(at, 25*second)
		_, ok := c.Pod("default/p")
		want(t, "pod exists", ok, false)
		want(t, "killed after", c.Terminations()[0].Exited.Sub(c.Terminations()[0].SIGTERM), 25*second)
	})
}

// db is a pod of the StatefulSet db on node a with a volume; it is recreated on node b.
func db() spottest.Pod {
	return spottest.Pod{Node: "a", Exit: 500 * ms, Replacement: &spottest.Replacement{Node: "b", Ready: second},
		Pod: spot.Pod{Name: "db-0", GracePeriod: 30 * second, Volumes: true,
			Owner: spot.Owner{Kind: "StatefulSet", Name: "db"}}}
}

// outOfService adds the out-of-service taint to a node.
func outOfService(c *spottest.Cluster, node string) {
	c.WriteNode(node, func(n *spot.Node) {
		n.Taints = append(n.Taints, spot.Taint{Key: "node.kubernetes.io/out-of-service", Effect: "NoExecute"})
	})
}

// TestTaintEvictionDeletesByName checks that a pod removed before the taint eviction controller deletes it causes the
// deletion of its successor.
func TestTaintEvictionDeletesByName(t *testing.T) {
	for _, test := range []struct {
		name       string
		evicted    bool          // the pod is terminating
		remove     time.Duration // time from the taint to the removal
		successors int
	}{
		{"at once", false, 0, 2},
		{"while terminating", false, 206 * ms, 1},
		{"at once, already terminating", true, 0, 2},
		{"later, already terminating", true, 300 * ms, 1},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *spottest.Cluster, at func() time.Duration) {
				old := c.AddPod(db())
				c.PowerOff("a")
				if test.evicted {
					must(t, c.Evict(t.Context(), old, 30*second, false))
				}
				outOfService(c, "a")
				until(at, test.remove)
				must(t, c.Delete(t.Context(), old, 0, false))
				until(at, time.Minute)
				want(t, "successors", c.Successors("default/db-0"), test.successors)
				p, _ := c.Pod("default/db-0")
				want(t, "the last one is disrupted by", p.DisruptedBy, "")
			})
		})
	}
}

// TestStatefulSetRecovery compares recovery times of a StatefulSet pod with a volume; the order, if not the durations,
// is that of a real control plane.
func TestStatefulSetRecovery(t *testing.T) {
	const wait = 6 * time.Minute
	for _, test := range []struct {
		name string
		do   func(t *testing.T, c *spottest.Cluster, p spot.Pod, at func() time.Duration)
		back time.Duration // until the next pod is Ready
	}{
		{"evicted", func(t *testing.T, c *spottest.Cluster, p spot.Pod, _ func() time.Duration) {
			must(t, c.Evict(t.Context(), p, 30*second, false))
		}, 2 * second},
		{"without power, tainted, waited for, deleted",
			func(t *testing.T, c *spottest.Cluster, p spot.Pod, at func() time.Duration) {
				c.PowerOff("a")
				outOfService(c, "a")
				until(at, 250*ms)
				must(t, c.Delete(t.Context(), p, 0, false))
			}, 2 * second},
		{"without power, tainted", func(_ *testing.T, c *spottest.Cluster, _ spot.Pod, _ func() time.Duration) {
			c.PowerOff("a")
			outOfService(c, "a")
		}, 62 * second},
		{"without power, deleted", func(t *testing.T, c *spottest.Cluster, p spot.Pod, _ func() time.Duration) {
			c.PowerOff("a")
			must(t, c.Delete(t.Context(), p, 0, false))
		}, wait + 2*second},
		{"without power, its Node deleted",
			func(t *testing.T, c *spottest.Cluster, _ spot.Pod, _ func() time.Duration) {
				c.PowerOff("a")
				n, _ := c.Node("a")
				must(t, c.DeleteNode(t.Context(), n))
			}, time.Minute + wait + 2*second},
		{"without power, and back", func(t *testing.T, c *spottest.Cluster, p spot.Pod, at func() time.Duration) {
			c.PowerOff("a")
			must(t, c.Evict(t.Context(), p, 30*second, false))
			until(at, time.Minute)
			c.PowerOn("a")
		}, time.Minute + 2*second},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *spottest.Cluster, at func() time.Duration) {
				old := c.AddPod(db())
				want(t, "attached to a, b at first", volumes(t, c), [2]int{1, 0})
				test.do(t, c, old, at)

				until(at, test.back-1500*ms)
				if p, ok := c.Pod("default/db-0"); ok && p.UID != old.UID && !p.Pending {
					t.Errorf("the next pod is Ready after %s", at())
				}
				until(at, test.back)
				p, ok := c.Pod("default/db-0")
				if !ok || p.UID == old.UID || p.Node != "b" || p.Pending || p.Terminating {
					t.Errorf("got %+v, %v; want the next pod, Ready on b", p, ok)
				}
				want(t, "attached to a, b at last", volumes(t, c), [2]int{0, 1})
			})
		})
	}
}

// volumes returns the number of attached volumes per node, which the node status must confirm.
func volumes(t *testing.T, c *spottest.Cluster) (all [2]int) {
	t.Helper()
	for i, node := range []string{"a", "b"} {
		names, err := spottest.VolumesOf(t.Context(), c, node)
		must(t, err)
		all[i] = len(names)
		if n, ok := c.Node(node); ok {
			want(t, "volumes that node "+node+" reports", len(n.AttachedVolumes), len(names))
		}
	}
	return all
}
