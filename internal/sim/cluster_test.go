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
