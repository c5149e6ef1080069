package handler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func TestRefusedThenEvicted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("web-2")
		w.budget("web", 1)
		out := w.handle(spot.Drained)
		// The replacement of the first pod is Ready after 5 s. Until then, the budget refuses the second.
		first, second := w.cluster.Terminations()[0], w.cluster.Terminations()[1]
		w.wantAt("first SIGTERM", first.SIGTERM, 0)
		w.wantAt("second SIGTERM", second.SIGTERM, 6*time.Second)
		p := w.wantStatus(out, strings.TrimPrefix(second.Pod, "default/"), spot.PodEvicted)
		if p.Refusals == 0 || p.LastRefusal == "" {
			w.Errorf("got %+v, want a refusal", p)
		}
	})
}

func TestForceDelete(t *testing.T) {
	for _, c := range []struct{ own, want, at time.Duration }{
		{30 * time.Second, 30 * time.Second, 85 * time.Second},
		{300 * time.Second, 60 * time.Second, 55 * time.Second},
		{1 * time.Second, 1 * time.Second, 114 * time.Second},
	} {
		subtest(t, c.own.String(), func(w *world) {
			w.pod("db-0", grace(c.own), exit(time.Hour), notRecreated)
			w.budget("db", 1)
			p := w.wantStatus(w.handle(spot.Drained), "db-0", spot.PodForceDeleted)
			if p.DisruptedBy != spot.DisruptionReason {
				w.Errorf("got %+v, want the condition DisruptionTarget", p)
			}
			e := w.wantSIGTERM("db-0", c.at)
			if e.Grace != c.want {
				w.Errorf("got grace period %s, want %s", e.Grace, c.want)
			}
			if end := e.SIGTERM.Add(e.Grace).Sub(w.event); end > 116*time.Second {
				w.Errorf("got grace period until %s after the event, want before the reserve", end)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	webhook := func(code int) func(*world) {
		return func(w *world) {
			w.cluster.OnEviction(func(p spot.Pod) *spot.Refusal {
				if p.Name != "db-0" {
					return nil
				}
				return &spot.Refusal{Code: code, Message: "denied the request"}
			})
		}
	}
	fail := func(err error) func(*world) {
		return func(w *world) { w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: err}) }
	}
	for name, refuse := range map[string]func(*world){
		"two budgets": func(w *world) {
			w.budget("db", 0)
			w.cluster.AddBudget(spottest.Budget{Name: "second", Owner: "db"})
		},
		"webhook 400": webhook(400),
		"webhook 403": webhook(403),
		"webhook 500": webhook(500),
		"long Retry-After": func(w *world) {
			w.cluster.AddBudget(spottest.Budget{Owner: "db", Available: 1, RetryAfter: time.Hour})
		},
		"no response":     fail(errors.New("EOF")),
		"always conflict": fail(fmt.Errorf("409: %w", spot.ErrChanged)),
	} {
		subtest(t, name, func(w *world) {
			w.pod("db-0", notRecreated)
			w.pod("web-1")
			refuse(w)
			out := w.handle(spot.Drained)
			at := 85 * time.Second
			if name == "no response" { // not a refusal: evicted once more
				at += 2 * time.Second
			}
			if e := w.wantSIGTERM("db-0", at); e.Grace != 30*time.Second {
				w.Errorf("got grace period %s, want 30s", e.Grace)
			}
			if p := w.wantStatus(out, "db-0", spot.PodForceDeleted); p.LastRefusal == "" {
				w.Errorf("got %+v, want a refusal", p)
			}
		})
	}
}

func TestTerminatingPods(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("slow-1", terminating, grace(600*time.Second), exit(100*time.Second))
		w.pod("stuck-1", terminating, grace(5*time.Second), func(p *spottest.Pod) { p.Finalizer = true })
		w.pod("endless-1", terminating, grace(600*time.Second), exit(time.Hour))
		out := w.handle(spot.Incomplete)
		w.wantRequests("create", "pods/eviction", 0)
		w.wantRequests("delete", "pods", 0)
		w.wantStatus(out, "slow-1", spot.PodTerminated)
		w.wantStatus(out, "stuck-1", spot.PodStuck)
		w.wantStatus(out, "endless-1", spot.PodStillRunning)
	})
}

// TestDeletedBySomebodyElse checks that a pod is no longer evicted once it is terminating.
func TestDeletedBySomebodyElse(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := w.pod("db-0", grace(200*time.Second), exit(80*time.Second), notRecreated)
		w.budget("db", 1)
		time.AfterFunc(10*time.Second, func() { _ = w.cluster.Delete(w.Context(), pod, 200*time.Second, false) })
		w.wantStatus(w.handle(spot.Drained), "db-0", spot.PodTerminated)
		w.wantAt("exit of db-0", w.termination("db-0").Exited, 90*time.Second)
		w.wantRequests("delete", "pods", 1)
	})
}

func TestLatePods(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		time.AfterFunc(time.Second, func() { w.pod("late-1") })            // scheduled before the cordon was seen
		time.AfterFunc(5500*time.Millisecond, func() { w.pod("later-1") }) // after the node is empty
		time.AfterFunc(2*time.Second, func() { w.cluster.BreakFollowing(nil) })
		out := w.handle(spot.Drained)
		w.wantStatus(out, "late-1", spot.PodEvicted)
		w.wantStatus(out, "later-1", spot.PodEvicted)
	})
}

// TestReturnedPods checks that pods that tolerate the cordon and are recreated on the node are not evicted again.
func TestReturnedPods(t *testing.T) {
	inWorld(t, func(w *world) {
		here := func(p *spottest.Pod) { p.Replacement = &spottest.Replacement{Node: instance} }
		w.pod("agent-1", toleratesCordon, here)
		w.pod("agent-2", toleratesCordon, here)
		w.budget("agent", 1)
		out := w.handle(spot.Drained)
		got := w.cluster.Terminations()
		if n := len(got); n < 6 || n > 14 || len(out.Pods) > 16 {
			w.Errorf("got %d terminations and %d pods, want a few of each owner", n, len(out.Pods))
		}
		last := got[len(got)-1] // it gets SIGTERM before the deadline
		if at := last.SIGTERM.Sub(w.event); at < 80*time.Second || at > 86*time.Second || last.Grace != 30*time.Second {
			w.Errorf("got %+v, want SIGTERM at the force time", last)
		}
	})
}

// TestBrokenWatch lets a pod exit while the API server does not respond.
func TestBrokenWatch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1", exit(20*time.Second))
		time.AfterFunc(5*time.Second, func() {
			heal := w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: errRefused})
			time.AfterFunc(25*time.Second, heal)
			w.cluster.BreakFollowing(errors.New("connection reset"))
		})
		out := w.handle(spot.Drained)
		if len(out.Problems) != 0 || *out.Timings.Finished > 38 {
			w.Errorf("got finished after %vs, problems %q; want at most 38s, none", *out.Timings.Finished, out.Problems)
		}
	})
}

// slowEvictions delays the responses to evictions, so that the watch shows their effect first.
type slowEvictions struct{ *spottest.Cluster }

const evictionDelay = 100 * time.Millisecond

func (c slowEvictions) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.Cluster.Evict(ctx, p, grace, exact)
	time.Sleep(evictionDelay)
	return err
}

func TestWatchBeforeResponse(t *testing.T) {
	subtest(t, "evicted", func(w *world) {
		w.handler.Cluster = slowEvictions{w.cluster}
		w.pod("web-1")
		p := w.wantStatus(w.handle(spot.Drained), "web-1", spot.PodEvicted)
		if !strings.Contains(p.Reason, "ReplicaSet web") {
			w.Errorf("got reason %q, want ReplicaSet web", p.Reason)
		}
	})
	subtest(t, "refused, deleted by somebody else", func(w *world) {
		w.handler.Cluster = slowEvictions{w.cluster}
		pod := w.pod("db-0", exit(10*time.Second), notRecreated)
		w.budget("db", 1)
		time.AfterFunc(evictionDelay/2, func() { _ = w.cluster.Delete(w.Context(), pod, 30*time.Second, false) })
		w.wantStatus(w.handle(spot.Drained), "db-0", spot.PodTerminated)
		w.wantRequests("create", "pods/eviction", 1)
	})
	// The eviction is retried at once, because the watch has shown the new version.
	subtest(t, "changed", func(w *world) {
		w.handler.Cluster = slowEvictions{w.cluster}
		w.pod("web-1", grace(300*time.Second), exit(time.Second))
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Times: 1, Err: spot.ErrChanged})
		time.AfterFunc(evictionDelay/2, func() { w.cluster.ChangePod("default/web-1", func(*spottest.Pod) {}) })
		if p := w.wantStatus(w.handle(spot.Drained), "web-1", spot.PodEvicted); *p.RequestedAt > 1 {
			w.Errorf("got evicted after %vs, want at most 1s", *p.RequestedAt)
		}
	})
}

// TestResponseLost checks that a retry with a shorter grace period fails, whether or not the watch shows the eviction.
func TestResponseLost(t *testing.T) {
	for name, watch := range map[string]bool{"watched": true, "not watched": false} {
		subtest(t, name, func(w *world) {
			w.pod("web-1", grace(300*time.Second), exit(70*time.Second))
			w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Times: 1, Delay: 100 * time.Millisecond,
				Lost: true, Err: errors.New("EOF")})
			if !watch {
				time.AfterFunc(50*time.Millisecond, func() {
					heal := w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: errRefused})
					time.AfterFunc(20*time.Second, heal)
					w.cluster.BreakFollowing(errRefused)
				})
			}
			w.handle(spot.Drained)
			w.wantAt("exit of web-1", w.termination("web-1").Exited, 70*time.Second)
		})
	}
}

func TestCordon(t *testing.T) {
	subtest(t, "conflict", func(w *world) {
		hits := 0
		w.cluster.BeforeNodeWrite(func(name string) {
			if hits++; hits <= 3 {
				w.cluster.WriteNode(name, func(n *spot.Node) {
					n.Taints = append(n.Taints, spot.Taint{Key: fmt.Sprint("other-", hits)})
				})
			}
		})
		w.handle(spot.Drained)
		if n := w.node(); !n.Unschedulable || len(n.Taints) != 5 {
			w.Errorf("got %+v, want a cordoned node with 5 taints", n)
		}
	})
	subtest(t, "denied", func(w *world) {
		w.pod("web-1")
		w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: spot.Permanent(errors.New("403"))})
		if out := w.handle(spot.Drained); out.Cordon.Error == "" || len(out.Problems) == 0 {
			w.Errorf("got %s, want an error of the cordon and a problem", toJSON(out))
		}
	})
	subtest(t, "always fails", func(w *world) {
		const denied, message = "webhook x denied it", "could not be cordoned"
		w.pod("web-1")
		w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: errors.New(denied)})
		if got := w.handle(spot.Drained).Cordon.Error; !strings.Contains(got, denied) {
			w.Errorf("got error %q, want %q", got, denied)
		}
		if events := w.cluster.Events(); !slices.ContainsFunc(events, func(e spot.KubeEvent) bool {
			return strings.Contains(e.Message, message)
		}) {
			w.Errorf("got Events %+v, want %q", events, message)
		}
	})
	subtest(t, "late", func(w *world) {
		w.pod("web-1")
		time.AfterFunc(30*time.Second, w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: errors.New("EOF")}))
		w.handle(spot.Drained)
		w.wantSIGTERM("web-1", 5*time.Second)
		if n := w.node(); !n.Unschedulable {
			w.Errorf("got %+v, want a cordoned node", n)
		}
	})
	subtest(t, "cordoned before", func(w *world) {
		w.cluster.WriteNode(instance, func(n *spot.Node) {
			n.Unschedulable = true
			n.Taints = []spot.Taint{{Key: "node.kubernetes.io/unschedulable", Effect: "NoSchedule"}}
		})
		w.handle(spot.Drained)
		const want = "draining-taint,draining-label,exclude-from-load-balancers"
		if got := w.node().Annotations["kops-spot.cast.ai/applied"]; got != want {
			w.Errorf("got applied %q, want %q", got, want)
		}
	})
}

// TestDeniedWatch checks that listed pods are evicted even if the pods can no longer be watched.
func TestDeniedWatch(t *testing.T) {
	deny := func(w *world, verb string) {
		w.cluster.Disturb(spottest.Disturbance{Verb: verb, Resource: "pods", Err: spot.Permanent(errors.New("403"))})
	}
	for name, disturb := range map[string]func(*world){
		"list denied after 5s": func(w *world) {
			time.AfterFunc(5*time.Second, func() {
				deny(w, "list")
				w.cluster.BreakFollowing(nil)
			})
		},
		"watch denied": func(w *world) { deny(w, "watch") },
	} {
		subtest(t, name, func(w *world) {
			w.pod("db-0", notRecreated)
			w.budget("db", 1)
			disturb(w)
			if _, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate)); err != nil {
				w.Fatal(err)
			}
			w.wantSIGTERM("db-0", 85*time.Second)
			if got := w.cluster.Count("list", "pods"); got > 100 {
				w.Errorf("got %d lists of pods, want at most 100", got)
			}
		})
	}
}

// staleList omits the pod late-1 from the second list of pods.
type staleList struct {
	*spottest.Cluster
	lists int
}

func (c *staleList) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	c.lists++
	stale := c.lists == 2
	return c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if !ch.All || !stale {
			see(ch)
			return
		}
		isLate := func(p spot.Pod) bool { return p.Name == "late-1" }
		see(spot.PodChange{All: true, Pods: slices.DeleteFunc(slices.Clone(ch.Pods), isLate)})
		see(spot.PodChange{Pods: slices.DeleteFunc(slices.Clone(ch.Pods), func(p spot.Pod) bool { return !isLate(p) })})
	})
}

func TestStaleList(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = &staleList{Cluster: w.cluster}
		w.pod("web-1", exit(20*time.Second))
		time.AfterFunc(6*time.Second, w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction",
			Name: "default/late-1", Err: &spot.Refusal{Code: 429}}))
		time.AfterFunc(time.Second, func() { w.pod("late-1") })
		time.AfterFunc(1500*time.Millisecond, func() { w.cluster.BreakFollowing(nil) })
		w.wantStatus(w.handle(spot.Drained), "late-1", spot.PodEvicted)
		w.termination("late-1")
	})
}

// hangingWebhook delays the evictions of some pods and then fails them.
type hangingWebhook struct {
	*spottest.Cluster
	prefix string // of the pods' names
}

func (c hangingWebhook) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	if !strings.HasPrefix(p.Name, c.prefix) {
		return c.Cluster.Evict(ctx, p, grace, exact)
	}
	ctx, cancel := context.WithTimeout(ctx, 16*time.Second) // the last one would end after the force deletion is due
	defer cancel()
	<-ctx.Done()
	return errors.New("no response")
}

func TestHangingWebhook(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = hangingWebhook{w.cluster, "hung"}
		w.handler.Policy.Parallel = 10
		for i := range 20 {
			w.pod(fmt.Sprintf("hung%02d-1", i))
		}
		w.pod("web-1")
		out := w.handle(spot.Drained)
		if p := w.wantStatus(out, "web-1", spot.PodEvicted); *p.RequestedAt > 40 {
			w.Errorf("got web-1 evicted after %vs, want at most 40s", *p.RequestedAt)
		}
		for _, e := range w.cluster.Terminations() {
			if e.Grace < 29*time.Second {
				w.Errorf("pod %s: got grace period %s, want 30s", e.Pod, e.Grace)
			}
		}
	})
}

func TestEvictionOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 1
		w.pod("a-1", func(p *spottest.Pod) { p.Critical = true })
		w.pod("b-1")
		w.pod("c-1", func(p *spottest.Pod) { p.Volumes = true })
		w.handle(spot.Drained)
		var got []string
		for _, r := range w.cluster.Requests() {
			if r.Resource == "pods/eviction" {
				got = append(got, strings.TrimPrefix(r.Name, "default/"))
			}
		}
		if want := []string{"c-1", "b-1", "a-1"}; !slices.Equal(got, want) {
			w.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestParallel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 2
		for i := range 9 {
			w.pod(fmt.Sprintf("web-%d", i))
		}
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: time.Second})
		if got := *w.handle(spot.Drained).Timings.LastEviction; got < 4.9 || got > 5.1 {
			w.Errorf("got last eviction after %vs, want 5s", got)
		}
	})
}

func TestAttachedVolumes(t *testing.T) {
	for name, c := range map[string]struct {
		volumes bool
		reads   int // of the node
		want    []string
	}{
		"volume":    {volumes: true, reads: 2, want: []string{"kubernetes.io/csi/ebs.csi.aws.com^vol-default-db-0"}},
		"no volume": {reads: 1},
	} {
		subtest(t, name, func(w *world) {
			w.handler.Policy.Force = spot.ForceNever
			w.pod("db-0", func(p *spottest.Pod) { p.Volumes = c.volumes })
			w.budget("db", 1)
			w.pod("web-1")
			w.budget("web", 1)
			time.AfterFunc(time.Second, func() { w.cluster.RemovePod("default/web-1") })
			out := w.handleEvent(w.warning(spot.SpotStop), spot.Incomplete)
			if got := out.AttachedVolumes; !slices.Equal(got, c.want) {
				w.Errorf("got %q, want %q", got, c.want)
			}
			w.wantRequests("get", "nodes", c.reads)
		})
	}
}

// TestManyPods checks that an outcome with many pods lists those that are still running.
func TestManyPods(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 350 {
			w.pod(fmt.Sprintf("a%d-1", i), notRecreated)
		}
		w.budget("z", 1)
		w.pod("z-1", annotated(spot.AnnotationForce, string(spot.ForceNever)))
		out := w.handle(spot.Incomplete)
		w.wantStatus(out, "z-1", spot.PodStillRunning)
		if len(out.Pods) != 300 || !slices.Contains(out.Problems, "51 pods more than listed here") {
			w.Errorf("got %d pods, problems %q", len(out.Pods), out.Problems)
		}
	})
}
