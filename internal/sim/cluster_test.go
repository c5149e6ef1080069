package sim_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

const second = time.Second

// inBubble runs a test on a cluster with the nodes a and b and gives it the time since its beginning.
func inBubble(t *testing.T, test func(t *testing.T, c *sim.Cluster, at func() time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := sim.NewCluster()
		for _, name := range []string{"a", "b"} {
			c.AddNode(spot.Node{Name: name, ProviderID: "aws:///eu-west-1a/i-" + name})
		}
		began := time.Now()
		test(t, c, func() time.Duration { return time.Since(began) })
	})
}

// until waits for the moment after the beginning, and for all that happens then.
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

func wantRefusal(t *testing.T, what string, err error, code int) *spot.Refusal {
	t.Helper()
	var refusal *spot.Refusal
	if !errors.As(err, &refusal) || refusal.Code != code {
		t.Fatalf("%s: got %v; want a refusal with %d", what, err, code)
	}
	return refusal
}

// web is a pod of the ReplicaSet web.
func web(name string) sim.Pod {
	return sim.Pod{Node: "a", Pod: spot.Pod{Name: name, Grace: 30 * second, Owner: spot.Owner{Kind: "ReplicaSet", Name: "web"}}}
}

// names are the pods of the cluster, each with its node and state.
func names(c *sim.Cluster) string {
	var all []string
	for _, p := range c.Pods() {
		s := p.Name + "@" + p.Node
		for _, state := range []struct {
			is   bool
			name string
		}{{p.Pending, "pending"}, {p.Terminating, "terminating"}, {p.Finished, "finished"}} {
			if state.is {
				s += " " + state.name
			}
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// follow follows a node's pods until the test ends and tells each look as a line.
func follow(t *testing.T, c *sim.Cluster, node string) (looks func() []string, ended <-chan error) {
	var mu sync.Mutex
	var all []string
	end := make(chan error, 1)
	go func() {
		end <- c.FollowPods(t.Context(), node, func(change spot.PodChange) {
			mu.Lock()
			defer mu.Unlock()
			line := "changed"
			switch {
			case change.All:
				line = "all"
			case change.Gone:
				line = "gone"
			}
			for _, p := range change.Pods {
				line += " " + p.Name
				if p.Terminating {
					line += " terminating"
				}
				if p.Finished {
					line += " finished"
				}
			}
			all = append(all, line)
		})
	}()
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}, end
}

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

func TestRequestsAreLogged(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.Disturb(sim.Disturbance{Delay: second})
		p := c.AddPod(web("web-1"))
		_, err := c.NodeNamed(t.Context(), "none")
		wantErr(t, "no node", err, spot.ErrNotFound)
		must(t, c.Evict(t.Context(), p, second, false))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantErr(t, "a request that is not sent", c.Delete(ctx, p, second, false), context.Canceled)

		all := c.Requests()
		if len(all) != 2 {
			t.Fatalf("got %+v; want two", all)
		}
		get, evict := all[0], all[1]
		want(t, "first", get.Verb+" "+get.Resource+" "+get.Name, "get nodes none")
		wantErr(t, "first", get.Err, spot.ErrNotFound)
		want(t, "second", evict.Verb+" "+evict.Resource+" "+evict.Name, "create pods/eviction default/web-1")
		wantErr(t, "second", evict.Err, nil)
		want(t, "the second is asked when the first is answered", evict.Asked, get.Answered)
		want(t, "takes", evict.Answered.Sub(evict.Asked), second)
	})
}

func TestDisturbances(t *testing.T) {
	unreachable := errors.New("API server unreachable")
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p", Grace: 30 * second}, Exit: 5 * second})

		c.Disturb(sim.Disturbance{Verb: "get", Resource: "nodes", Name: "a", Err: unreachable, Times: 2})
		for range 2 {
			_, err := c.NodeNamed(t.Context(), "a")
			wantErr(t, "disturbed", err, unreachable)
		}
		_, err := c.NodeNamed(t.Context(), "b")
		wantErr(t, "another node", err, nil)
		_, err = c.NodeNamed(t.Context(), "a")
		wantErr(t, "no longer disturbed", err, nil)

		end := c.Disturb(sim.Disturbance{Err: unreachable})
		_, err = c.PodsOn(t.Context(), "a")
		wantErr(t, "PodsOn", err, unreachable)
		wantErr(t, "FollowPods", c.FollowPods(t.Context(), "a", func(spot.PodChange) {}), unreachable)
		_, err = c.NodeOf(t.Context(), "i-a")
		wantErr(t, "NodeOf", err, unreachable)
		wantErr(t, "Evict", c.Evict(t.Context(), p, second, false), unreachable)
		end()
		if got, _ := c.Pod("default/p"); got.Terminating {
			t.Error("the eviction was carried out")
		}

		c.Disturb(sim.Disturbance{Verb: "create", Err: unreachable, Lost: true, Times: 1})
		wantErr(t, "Evict, answer lost", c.Evict(t.Context(), p, 20*second, false), unreachable)
		if got, _ := c.Pod("default/p"); !got.Terminating {
			t.Error("the eviction was not carried out")
		}

		c.Disturb(sim.Disturbance{Verb: "list", Resource: "pods", Delay: 10 * second})
		ctx, cancel := context.WithTimeout(t.Context(), 3*second)
		defer cancel()
		_, err = c.PodsOn(ctx, "a")
		wantErr(t, "an answer that does not come in time", err, context.DeadlineExceeded)
		want(t, "given up at", at(), 3*second)
	})
}

func TestKubelet(t *testing.T) {
	for _, test := range []struct {
		name        string
		exit, grace time.Duration
		gone        time.Duration
		given       time.Duration
		killed      bool
	}{
		{"a process that exits in time", 4 * second, 10 * second, 4 * second, 10 * second, false},
		{"a process that does not", time.Hour, 10 * second, 10 * second, 10 * second, true},
		{"a process that needs just its time", 10 * second, 10 * second, 10 * second, 10 * second, false},
		{"less than a second more", 15 * second, 10*second + 999*time.Millisecond, 10 * second, 10 * second, true},
		{"less than none", 15 * second, -second, second, second, true},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
				looks, _ := follow(t, c, "a")
				p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p", Grace: 30 * second}, Exit: test.exit})
				must(t, c.Delete(t.Context(), p, test.grace, false))
				now, _ := c.Pod("default/p")
				want(t, "ends by", time.Until(now.EndsBy), test.given)
				until(at, test.gone-1)
				want(t, "before", names(c), "p@a terminating")
				until(at, test.gone)
				want(t, "after", names(c), "")
				want(t, "looks", strings.Join(looks(), "; "), "all; changed p; changed p terminating; "+
					"changed p terminating finished; changed p terminating finished; gone p terminating finished")

				e := c.Endings()[0]
				want(t, "pod", e.Pod+" "+e.UID+" "+e.Node, "default/p "+p.UID+" a")
				want(t, "grace", e.Grace, test.given)
				want(t, "exited after", e.Exited.Sub(e.SIGTERM), test.gone)
				want(t, "killed", e.Killed, test.killed)
			})
		})
	}
}

func TestNoGraceRemovesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		must(t, c.Delete(t.Context(), c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "running"}, Exit: second}), 0, false))
		must(t, c.Delete(t.Context(), c.AddPod(sim.Pod{Pod: spot.Pod{Name: "unbound"}, Pending: true}), 30*second, false))
		must(t, c.Evict(t.Context(), c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "finished", Finished: true}}), 30*second, false))
		want(t, "pods", names(c), "")
		all := c.Endings()
		if len(all) != 1 || all[0].Pod != "default/running" || !all[0].Killed {
			t.Errorf("got %+v; want only the running one, killed", all)
		}
	})
}

func TestLaterRequestShortens(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p", Grace: time.Hour}, Exit: time.Hour})
		must(t, c.Evict(t.Context(), p, 60*second, false))
		until(at, 10*second)

		must(t, c.Evict(t.Context(), p, 60*second, false))
		must(t, c.Delete(t.Context(), p, time.Hour, false))
		want(t, "shortenings", len(c.Shortenings()), 0)

		must(t, c.Delete(t.Context(), p, 25*second, false))
		now, _ := c.Pod("default/p")
		want(t, "ends by, from the first request on", time.Until(now.EndsBy), 15*second)
		want(t, "shortening", c.Shortenings()[0], sim.Shortening{Pod: "default/p", UID: p.UID, At: time.Now(), From: 60 * second, To: 25 * second})

		until(at, 25*second)
		want(t, "pods", names(c), "")
		want(t, "killed", c.Endings()[0].Killed, true)
		want(t, "SIGTERMs", len(c.Endings()), 1)
	})
}

func TestShorteningToWhatIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p"}, Exit: time.Hour, Finalizer: true})
		must(t, c.Evict(t.Context(), p, 60*second, false))
		until(at, 30*second)
		must(t, c.Delete(t.Context(), p, 10*second, false))
		now, _ := c.Pod("default/p")
		want(t, "ends by", now.EndsBy, time.Now())
		until(at, 30*second)
		want(t, "pods", names(c), "p@a terminating finished")
	})
}

func TestFinalizerKeepsThePod(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Finalizer = true
		asked := c.AddPod(p)
		must(t, c.Evict(t.Context(), asked, 10*second, false))
		until(at, time.Hour)
		must(t, c.Delete(t.Context(), asked, 0, false))
		want(t, "pods", names(c), "web-1@a terminating finished")
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizer = false })
		want(t, "pods", names(c), "")
		want(t, "shortenings", len(c.Shortenings()), 0)
	})
}

func TestEachFinalizerKeepsThePod(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Finalizer, p.Finalizers = true, []string{"example.com/one", "example.com/two"}
		asked := c.AddPod(p)
		want(t, "finalizers", strings.Join(asked.Finalizers, " "), "example.com/one example.com/two example.com/finalizer")
		c.PowerOff("a")
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizer = false })
		must(t, c.Delete(t.Context(), asked, 0, false))
		for _, left := range [][]string{{"example.com/one", "example.com/two"}, {"example.com/two"}} {
			c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizers = left })
			want(t, "pods", names(c), "web-1@a terminating")
		}
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizers = nil })
		want(t, "pods", names(c), "")
	})
}

func TestPowerOff(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "early"}, Exit: 20 * second})
		q := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "late"}})
		must(t, c.Evict(t.Context(), p, 30*second, false))
		until(at, 5*second)
		c.PowerOff("a")
		must(t, c.Evict(t.Context(), q, 30*second, false))
		until(at, time.Hour)
		want(t, "pods", names(c), "early@a terminating, late@a terminating")
		if all := c.Endings(); len(all) != 1 || !all[0].Killed || all[0].Exited.Sub(all[0].SIGTERM) != 5*second {
			t.Errorf("got %+v; want only the early one, dead after 5 s", all)
		}
		must(t, c.Delete(t.Context(), p, 0, false))
		must(t, c.Delete(t.Context(), q, 0, false))
		want(t, "pods", names(c), "")
	})
}

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

func TestBudget(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 2, RetryAfter: 7 * second})
		var pods []spot.Pod
		for i := range 3 {
			p := web(fmt.Sprint("web-", i))
			p.Exit, p.Replacement = 5*second, &sim.Replacement{Node: "b", Ready: 20 * second}
			pods = append(pods, c.AddPod(p))
		}
		must(t, c.Evict(t.Context(), pods[0], 30*second, false))
		refusal := wantRefusal(t, "the second", c.Evict(t.Context(), pods[1], 30*second, false), 429)
		want(t, "message", refusal.Message, "Cannot evict pod as it would violate the pod's disruption budget. "+
			"The disruption budget web needs 2 healthy pods and has 2 currently.")
		want(t, "RetryAfter", refusal.RetryAfter, 7*second)

		until(at, 19*second)
		wantRefusal(t, "before the replacement is Ready", c.Evict(t.Context(), pods[1], 30*second, false), 429)
		until(at, 21*second)
		must(t, c.Evict(t.Context(), pods[1], 30*second, false))
	})
}

func TestBudgetGuardsWhatItSelects(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "db", Available: 1, Match: func(l map[string]string) bool { return l["app"] == "db" }})
		c.AddBudget(sim.Budget{Namespace: "other", Name: "web", Owner: "web", Available: 9})
		db := c.AddPod(sim.Pod{Node: "a", Labels: map[string]string{"app": "db"}, Pod: spot.Pod{Name: "db-0"}})
		wantRefusal(t, "by label", c.Evict(t.Context(), db, second, false), 429)
		must(t, c.Evict(t.Context(), c.AddPod(web("web-1")), second, false))

		c.AddBudget(sim.Budget{Name: "db-too", Available: 0, Match: func(l map[string]string) bool { return l["app"] == "db" }})
		wantRefusal(t, "two budgets", c.Evict(t.Context(), db, second, false), 500)
		c.RemoveBudget("db")
		must(t, c.Evict(t.Context(), db, second, false))
	})
}

func TestBudgetDoesNotGuardWhatDisruptsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 1})
		healthy := c.AddPod(web("healthy"))
		for name, state := range map[string]func(*sim.Pod){
			"terminating": func(p *sim.Pod) { p.Terminating, p.Exit = true, time.Hour },
			"pending":     func(p *sim.Pod) { p.Pending = true },
			"finished":    func(p *sim.Pod) { p.Finished = true },
			"unready":     func(p *sim.Pod) { p.Unready = true },
		} {
			p := web(name)
			state(&p)
			if err := c.Evict(t.Context(), c.AddPod(p), 10*second, false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantRefusal(t, "healthy", c.Evict(t.Context(), healthy, 10*second, false), 429)

		c.ChangePod("default/healthy", func(p *sim.Pod) { p.Unready = true })
		wantRefusal(t, "unready, when too few are healthy", c.Evict(t.Context(), healthy, 10*second, false), 429)
	})
}

func TestBudgetIsSpentBeforeThePreconditionIsLookedAt(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 1})
		p, q := c.AddPod(web("web-1")), c.AddPod(web("web-2"))
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Labels = map[string]string{"touched": "yes"} })
		wantErr(t, "exact, old version", c.Evict(t.Context(), p, 10*second, true), spot.ErrChanged)
		wantRefusal(t, "the other", c.Evict(t.Context(), q, 10*second, false), 429)
		q.UID = "another"
		wantRefusal(t, "a pod of the other's name", c.Evict(t.Context(), q, 10*second, false), 429)
		until(at, 2*time.Minute)
		wantErr(t, "when the allowance is back", c.Evict(t.Context(), q, 10*second, false), spot.ErrChanged)
	})
}

func TestWebhooks(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Exit = time.Hour
		asked := c.AddPod(p)
		forbid := func(p spot.Pod) *spot.Refusal {
			return &spot.Refusal{Code: 403, Message: "admission webhook denied the request for " + p.ID()}
		}
		admit := func(spot.Pod) *spot.Refusal { return nil }

		c.OnEviction(forbid)
		want(t, "message", wantRefusal(t, "Evict", c.Evict(t.Context(), asked, second, false), 403).Message,
			"admission webhook denied the request for default/web-1")
		c.OnEviction(admit)
		c.OnDeletion(forbid)
		wantRefusal(t, "Delete", c.Delete(t.Context(), asked, 60*second, false), 403)
		must(t, c.Evict(t.Context(), asked, 60*second, false))
		must(t, c.Delete(t.Context(), asked, 60*second, false)) // changes nothing: nobody is asked
		wantRefusal(t, "Delete with less", c.Delete(t.Context(), asked, 10*second, false), 403)
	})
}

func TestPodThatWasEndingWhenItCame(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p, q := web("own"), web("until")
		p.Terminating, p.Exit = true, time.Hour
		q.Terminating, q.Exit, q.EndsBy = true, time.Hour, time.Now().Add(12*second)
		want(t, "own grace", time.Until(c.AddPod(p).EndsBy), 30*second)
		want(t, "EndsBy", time.Until(c.AddPod(q).EndsBy), 12*second)
		want(t, "requests", len(c.Requests()), 0)
		until(at, 12*second)
		want(t, "pods", names(c), "own@a terminating")
		until(at, 30*second)
		want(t, "pods", names(c), "")
	})
}

func TestFollowPods(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(web("old"))
		looks, _ := follow(t, c, "a")
		late := c.AddPod(sim.Pod{Node: "a", Exit: second, Pod: spot.Pod{Name: "late"}})
		c.AddPod(sim.Pod{Node: "b", Pod: spot.Pod{Name: "elsewhere"}})
		c.AddPod(sim.Pod{Pod: spot.Pod{Name: "unbound"}, Pending: true})
		c.ChangePod("default/unbound", func(p *sim.Pod) { p.Node = "a" })
		must(t, c.Evict(t.Context(), late, 10*second, false))
		c.RemovePod("default/old")
		until(at, second)
		want(t, "looks", strings.Join(looks(), "\n"), strings.Join([]string{
			"all old",
			"changed late",
			"changed unbound",
			"changed late", // the condition that an eviction writes before it deletes
			"changed late terminating",
			"gone old",
			"changed late terminating finished",
			"changed late terminating finished",
			"gone late terminating finished",
		}, "\n"))
		want(t, "lists", c.Count("list", "pods"), 1)
		want(t, "watches", c.Count("watch", "pods"), 1)
	})
}

func TestFollowPodsBreaks(t *testing.T) {
	broken := errors.New("connection reset")
	for _, err := range []error{nil, broken} {
		inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
			p := c.AddPod(web("web-1"))
			_, ended := follow(t, c, "a")
			c.BreakFollowing(err)
			want(t, "ended with", <-ended, err)
			must(t, c.Delete(t.Context(), p, 0, false))
			looks, ended := follow(t, c, "a")
			want(t, "looks", strings.Join(looks(), "; "), "all")
			select {
			case err := <-ended:
				t.Errorf("the second stream ended: %v", err)
			default:
			}
		})
	}
}

func TestFollowPodsMissesNothingBetweenListAndWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.Disturb(sim.Disturbance{Verb: "watch", Delay: second})
		looks, _ := follow(t, c, "a")
		c.AddPod(web("web-1"))
		want(t, "before the watch", strings.Join(looks(), "; "), "all")
		until(at, second)
		want(t, "after", strings.Join(looks(), "; "), "all; changed web-1")
	})
}

func TestManyAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		looks, _ := follow(t, c, "a")
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				p := web(fmt.Sprint("web-", i))
				p.Exit = time.Duration(i) * second / 10
				p.Replacement = &sim.Replacement{Node: "b", Ready: second}
				if err := c.Evict(t.Context(), c.AddPod(p), 30*second, false); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		until(at, time.Minute)
		left, err := c.PodsOn(t.Context(), "a")
		must(t, err)
		want(t, "left", len(left), 0)
		want(t, "elsewhere", len(c.Pods()), 100)
		want(t, "SIGTERMs", len(c.Endings()), 100)
		gone := slices.DeleteFunc(looks(), func(look string) bool { return !strings.HasPrefix(look, "gone") })
		want(t, "seen to go", len(gone), 100)
	})
}
