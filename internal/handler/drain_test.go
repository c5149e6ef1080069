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

func TestBudgetRefusesThenAllows(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("web-2")
		w.guard("web", 1)
		out := w.handle(spot.Drained)
		// The successor of the one that goes first is Ready after 5 s; until then the budget refuses the other.
		first, second := w.cluster.Terminations()[0], w.cluster.Terminations()[1]
		w.after("the first SIGTERM", first.SIGTERM, 0)
		w.after("the second SIGTERM", second.SIGTERM, 6*time.Second)
		name := strings.TrimPrefix(second.Pod, "default/")
		if p := podResult(t, out, name); p.Refusals == 0 || p.LastRefusal == "" || p.Status != spot.PodEvicted {
			t.Errorf("%+v", p)
		}
	})
}

// TestForcedPastTheBudget: a pod whose budget never allows it gets SIGTERM and its time all the same.
func TestForcedPastTheBudget(t *testing.T) {
	for _, c := range []struct{ own, given, at time.Duration }{
		{30 * time.Second, 30 * time.Second, 85 * time.Second},
		{300 * time.Second, 60 * time.Second, 55 * time.Second},
		{1 * time.Second, 1 * time.Second, 114 * time.Second},
	} {
		t.Run(c.own.String(), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("db-0", func(p *spottest.Pod) { p.GracePeriod, p.Exit, p.Replacement = c.own, time.Hour, nil })
				w.guard("db", 1)
				out := w.handle(spot.Drained)
				e := w.ended("db-0")
				if e.Grace != c.given {
					t.Errorf("it got %s, want %s", e.Grace, c.given)
				}
				w.after("its SIGTERM", e.SIGTERM, c.at)
				if end := e.SIGTERM.Add(e.Grace); end.After(w.event.Add(116 * time.Second)) {
					t.Errorf("its grace period ends %s after the event, in the reserve", end.Sub(w.event))
				}
				if p := podResult(t, out, "db-0"); p.Status != spot.PodForceDeleted {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

func TestRefusalsOfOtherKinds(t *testing.T) {
	for name, refuse := range map[string]func(w *world){
		"two budgets":        func(w *world) { w.guard("db", 0); w.cluster.AddBudget(spottest.Budget{Name: "second", Owner: "db"}) },
		"a webhook's 400":    func(w *world) { w.webhook(400) },
		"a webhook's 403":    func(w *world) { w.webhook(403) },
		"a webhook's 500":    func(w *world) { w.webhook(500) },
		"a long Retry-After": func(w *world) { w.cluster.AddBudget(spottest.Budget{Owner: "db", Available: 1, RetryAfter: time.Hour}) },
		"no answers": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: errors.New("EOF")})
		},
		"changes without end": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: fmt.Errorf("409: %w", spot.ErrChanged)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("db-0", func(p *spottest.Pod) { p.Replacement = nil })
				w.pod("web-1")
				refuse(w)
				out := w.handle(spot.Drained)
				if e := w.ended("db-0"); e.Grace != 30*time.Second {
					t.Errorf("%+v", e)
				} else {
					w.after("its SIGTERM", e.SIGTERM, 85*time.Second)
				}
				if p := podResult(t, out, "db-0"); p.Status != spot.PodForceDeleted || p.LastRefusal == "" {
					t.Errorf("%+v", p)
				}
			})
		})
	}
}

// webhook refuses the evictions of db-0.
func (w *world) webhook(code int) {
	w.cluster.OnEviction(func(p spot.Pod) *spot.Refusal {
		if p.Name != "db-0" {
			return nil
		}
		return &spot.Refusal{Code: code, Message: "denied the request"}
	})
}

// TestEndingPodsAreOnlyWatched: whoever ended them, and however little they were given.
func TestEndingPodsAreOnlyWatched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("slow-1", func(p *spottest.Pod) { p.Terminating, p.GracePeriod, p.Exit = true, 600*time.Second, 100*time.Second })
		w.pod("stuck-1", func(p *spottest.Pod) { p.Terminating, p.GracePeriod, p.Finalizer = true, 5*time.Second, true })
		w.pod("endless-1", func(p *spottest.Pod) { p.Terminating, p.GracePeriod, p.Exit = true, 600*time.Second, time.Hour })
		out := w.handle(spot.Incomplete)
		if n := w.cluster.Count("create", "pods/eviction") + w.cluster.Count("delete", "pods"); n != 0 {
			t.Errorf("%d requests about pods that were ending already", n)
		}
		if p := podResult(t, out, "slow-1"); p.Status != spot.PodTerminated {
			t.Errorf("%+v", p)
		}
		if p := podResult(t, out, "stuck-1"); p.Status != spot.PodStuck {
			t.Errorf("%+v", p)
		}
		if p := podResult(t, out, "endless-1"); p.Status != spot.PodStillRunning {
			t.Errorf("%+v", p)
		}
	})
}

// TestAnotherDrainer ends a guarded pod while we are being refused: from then on it is only watched.
func TestAnotherDrainer(t *testing.T) {
	inWorld(t, func(w *world) {
		pod := w.pod("db-0", func(p *spottest.Pod) { p.GracePeriod, p.Exit, p.Replacement = 200*time.Second, 80*time.Second, nil })
		w.guard("db", 1)
		time.AfterFunc(10*time.Second, func() { _ = w.cluster.Delete(w.Context(), pod, 200*time.Second, false) })
		out := w.handle(spot.Drained)
		w.after("its end", w.ended("db-0").Exited, 90*time.Second)
		if n := w.cluster.Count("delete", "pods"); n != 1 {
			t.Errorf("%d deletes; the other drainer's is the only one to be", n)
		}
		if p := podResult(t, out, "db-0"); p.Status != spot.PodTerminated {
			t.Errorf("%+v", p)
		}
	})
}

func TestLateArrivals(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		time.AfterFunc(time.Second, func() { w.pod("late-1") })                 // bound before the scheduler saw the cordon
		time.AfterFunc(5500*time.Millisecond, func() { w.pod("later-1") })      // when the node is empty already
		time.AfterFunc(2*time.Second, func() { w.cluster.BreakFollowing(nil) }) // and the watch is closed meanwhile
		out := w.handle(spot.Drained)
		for _, name := range []string{"late-1", "later-1"} {
			if got := ends(out)[name]; got != spot.PodEvicted {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
}

// TestBounce: the successor of a pod that tolerates the cordon comes straight back and is left alone, or it would be
// ended again and again.
func TestBounce(t *testing.T) {
	inWorld(t, func(w *world) {
		back := func(p *spottest.Pod) { p.ToleratesCordon, p.Replacement = true, &spottest.Replacement{Node: instance} }
		w.pod("agent-1", back)
		w.pod("agent-2", back)
		w.guard("agent", 1)
		out := w.handle(spot.Drained)
		if n := len(w.cluster.Terminations()); n != 2 {
			t.Errorf("%d pods were ended, want the two that were there at first: %+v", n, w.cluster.Terminations())
		}
		left := 0
		for _, p := range out.Pods {
			if p.Status == spot.PodSkipped {
				left++
			}
		}
		if left != 2 {
			t.Errorf("%d pods were left, want the two that came back: %s", left, told(out))
		}
	})
}

// TestWatchBreaks: a pod goes while nobody sees it.
func TestWatchBreaks(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
		time.AfterFunc(5*time.Second, func() {
			end := w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: errors.New("connection refused")})
			time.AfterFunc(25*time.Second, end)
			w.cluster.BreakFollowing(errors.New("connection reset"))
		})
		out := w.handle(spot.Drained)
		if len(out.Problems) != 0 {
			t.Errorf("a trouble that was overcome is told as a problem: %v", out.Problems)
		}
		if *out.Timings.Finished > 35 {
			t.Errorf("the pod that had gone was missed: it ended after %v s", *out.Timings.Finished)
		}
	})
}

// slowAnswers is a cluster whose watch is quicker than its answers.
type slowAnswers struct{ *spottest.Cluster }

const slowness = 100 * time.Millisecond

func (c slowAnswers) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.Cluster.Evict(ctx, p, grace, exact)
	time.Sleep(slowness)
	return err
}

func TestWatchQuickerThanAnswers(t *testing.T) {
	t.Run("our own eviction", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Cluster = slowAnswers{w.cluster}
			w.pod("web-1")
			out := w.handle(spot.Drained)
			if p := podResult(t, out, "web-1"); p.Status != spot.PodEvicted || !strings.Contains(p.Reason, "ReplicaSet web") {
				t.Errorf("%+v", p)
			}
		})
	})
	t.Run("somebody else's while we are refused", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Cluster = slowAnswers{w.cluster}
			pod := w.pod("db-0", func(p *spottest.Pod) { p.Exit, p.Replacement = 10*time.Second, nil })
			w.guard("db", 1)
			time.AfterFunc(slowness/2, func() { _ = w.cluster.Delete(w.Context(), pod, 30*time.Second, false) })
			out := w.handle(spot.Drained)
			if n := w.cluster.Count("create", "pods/eviction"); n != 1 {
				t.Errorf("%d evictions of a pod that was ending after the first", n)
			}
			if p := podResult(t, out, "db-0"); p.Status != spot.PodTerminated {
				t.Errorf("%+v", p)
			}
		})
	})
}

// TestChangeQuickerThanTheAnswer: a pod that had changed is asked again at once if the watch has shown it as it is now.
func TestChangeQuickerThanTheAnswer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = slowAnswers{w.cluster}
		w.pod("web-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 300*time.Second, time.Second })
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Times: 1, Err: spot.ErrChanged})
		time.AfterFunc(slowness/2, func() { w.cluster.ChangePod("default/web-1", func(*spottest.Pod) {}) })
		if p := podResult(t, w.handle(spot.Drained), "web-1"); *p.RequestedAt > 1 {
			t.Errorf("asked again after %v s", *p.RequestedAt)
		}
	})
}

func TestAnswerLost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 300*time.Second, 70*time.Second })
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Times: 1, Lost: true, Err: errors.New("EOF")})
		w.handle(spot.Drained)
		w.after("its end", w.ended("web-1").Exited, 70*time.Second)
	})
}

func TestCordon(t *testing.T) {
	t.Run("conflict", func(t *testing.T) {
		inWorld(t, func(w *world) {
			hits := 0
			w.cluster.BeforeNodeWrite(func(name string) {
				if hits++; hits <= 3 {
					w.cluster.WriteNode(name, func(n *spot.Node) { n.Taints = append(n.Taints, spot.Taint{Key: fmt.Sprint("other-", hits)}) })
				}
			})
			w.handle(spot.Drained)
			if n, _ := w.cluster.Node(instance); !n.Unschedulable || len(n.Taints) != 5 {
				t.Errorf("somebody else's taints were lost: %+v", n.Taints)
			}
		})
	})
	t.Run("denied", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("web-1")
			w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: spot.Permanent(errors.New("403"))})
			out := w.handle(spot.Drained)
			if out.Cordon.Error == "" || len(out.Problems) == 0 {
				t.Errorf("a node that is not cordoned is no success to be silent about: %s", told(out))
			}
		})
	})
	t.Run("never, and why", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("web-1")
			w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: errors.New("webhook x denied it")})
			out := w.handle(spot.Drained)
			if !strings.Contains(out.Cordon.Error, "webhook x denied it") {
				t.Errorf("why the cordon failed is told as %q", out.Cordon.Error)
			}
			if !slices.ContainsFunc(w.cluster.Events(), func(n spot.KubeEvent) bool { return strings.Contains(n.Message, "could not be cordoned") }) {
				t.Errorf("no Event says that it could not be cordoned: %+v", w.cluster.Events())
			}
		})
	})
	t.Run("late", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("web-1")
			end := w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Err: errors.New("EOF")})
			time.AfterFunc(30*time.Second, end)
			w.handle(spot.Drained)
			w.after("the eviction", w.ended("web-1").SIGTERM, 5*time.Second)
			if n, _ := w.cluster.Node(instance); !n.Unschedulable {
				t.Error("it gave the cordon up")
			}
		})
	})
	t.Run("by somebody else before", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Unschedulable = true
				n.Taints = []spot.Taint{{Key: "node.kubernetes.io/unschedulable", Effect: "NoSchedule"}}
			})
			w.handle(spot.Drained)
			n, _ := w.cluster.Node(instance)
			if got := n.Annotations["kops-spot.cast.ai/applied"]; got != "draining-taint,draining-label,exclude-from-load-balancers" {
				t.Errorf("our marks are %q: what was there before is not ours", got)
			}
		})
	})
}

// TestPodsAreAskedOnWhateverBecomesOfTheWatch: once they are known, none is forgotten.
func TestPodsAreAskedOnWhateverBecomesOfTheWatch(t *testing.T) {
	for name, disturb := range map[string]func(*world){
		"the list is refused later": func(w *world) {
			time.AfterFunc(5*time.Second, func() {
				w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: spot.Permanent(errors.New("403"))})
				w.cluster.BreakFollowing(nil)
			})
		},
		"the watch is refused": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "watch", Resource: "pods", Err: spot.Permanent(errors.New("403"))})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("db-0", func(p *spottest.Pod) { p.Replacement = nil })
				w.guard("db", 1)
				disturb(w)
				if _, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate)); err != nil {
					t.Fatal(err)
				}
				w.after("its SIGTERM", w.ended("db-0").SIGTERM, 85*time.Second)
				if n := w.cluster.Count("list", "pods"); n > 100 {
					t.Errorf("the pods were listed %d times", n)
				}
			})
		})
	}
}

// laggingServer lists, after the first watch broke, what there was before: it has not seen the newest pod yet.
type laggingServer struct {
	*spottest.Cluster
	lists int
}

func (c *laggingServer) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	c.lists++
	lags := c.lists == 2
	return c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if !ch.All || !lags {
			see(ch)
			return
		}
		isLate := func(p spot.Pod) bool { return p.Name == "late-1" }
		see(spot.PodChange{All: true, Pods: slices.DeleteFunc(slices.Clone(ch.Pods), isLate)})
		see(spot.PodChange{Pods: slices.DeleteFunc(slices.Clone(ch.Pods), func(p spot.Pod) bool { return !isLate(p) })})
	})
}

func TestListThatLags(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = &laggingServer{Cluster: w.cluster}
		w.pod("web-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
		time.AfterFunc(6*time.Second, w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Name: "default/late-1", Err: &spot.Refusal{Code: 429}}))
		time.AfterFunc(time.Second, func() { w.pod("late-1") })
		time.AfterFunc(1500*time.Millisecond, func() { w.cluster.BreakFollowing(nil) })
		out := w.handle(spot.Drained)
		w.ended("late-1")
		if p := podResult(t, out, "late-1"); p.Status != spot.PodEvicted {
			t.Errorf("%+v", p)
		}
	})
}

// hangingWebhook is a cluster whose evictions of some pods are never answered.
type hangingWebhook struct {
	*spottest.Cluster
	hangs string // prefix of their names
}

func (c hangingWebhook) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	if !strings.HasPrefix(p.Name, c.hangs) {
		return c.Cluster.Evict(ctx, p, grace, exact)
	}
	ctx, cancel := context.WithTimeout(ctx, 16*time.Second) // the last of them would end too late to force the pod in time
	defer cancel()
	<-ctx.Done()
	return errors.New("no answer")
}

// TestHangingEvictions cost neither the pod itself nor others their time.
func TestHangingEvictions(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = hangingWebhook{w.cluster, "hung"}
		w.handler.Policy.Parallel = 10
		for i := range 20 {
			w.pod(fmt.Sprintf("hung%02d-1", i))
		}
		w.pod("web-1")
		out := w.handle(spot.Drained)
		if p := podResult(t, out, "web-1"); *p.RequestedAt > 40 {
			t.Errorf("a pod that nothing is wrong with was first asked after %v s", *p.RequestedAt)
		}
		for _, e := range w.cluster.Terminations() {
			if e.Grace < 29*time.Second {
				t.Errorf("%s got %s of its 30 s", e.Pod, e.Grace)
			}
		}
	})
}

func TestOrderOfSubmission(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 1
		w.pod("a-1", func(p *spottest.Pod) { p.Critical = true })
		w.pod("b-1")
		w.pod("c-1", func(p *spottest.Pod) { p.Volumes = true })
		w.handle(spot.Drained)
		var asked []string
		for _, r := range w.cluster.Requests() {
			if r.Resource == "pods/eviction" {
				asked = append(asked, strings.TrimPrefix(r.Name, "default/"))
			}
		}
		if got := strings.Join(asked, " "); got != "c-1 b-1 a-1" {
			t.Errorf("asked in the order %s", got)
		}
	})
}

func TestPodsBeyondTheBound(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 2
		for i := range 9 {
			w.pod(fmt.Sprintf("web-%d", i))
		}
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: time.Second})
		out := w.handle(spot.Drained)
		if last := *out.Timings.LastEviction; last < 4.9 || last > 5.1 {
			t.Errorf("nine requests of a second each, two at once, ended after %v s", last)
		}
	})
}

// TestVolumesThatStayAttachedAreNamed: the node is read once more for them, and for nothing else.
func TestVolumesThatStayAttachedAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		volumes bool
		reads   int
		want    []string
	}{
		"a volume":  {volumes: true, reads: 2, want: []string{"kubernetes.io/csi/ebs.csi.aws.com^vol-default-db-0"}},
		"no volume": {reads: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.handler.Policy.Force = spot.ForceNever
				w.pod("db-0", func(p *spottest.Pod) { p.Volumes = c.volumes })
				w.guard("db", 1)
				w.pod("web-1")
				w.guard("web", 1)
				time.AfterFunc(time.Second, func() { w.cluster.RemovePod("default/web-1") })
				out := w.handleEvent(w.warning(spot.SpotStop), spot.Incomplete) // no replacement looks for nodes
				if n := w.cluster.Count("get", "nodes"); !slices.Equal(out.AttachedVolumes, c.want) || n != c.reads {
					t.Errorf("attached %q after %d reads of the node, want %q after %d", out.AttachedVolumes, n, c.want, c.reads)
				}
			})
		})
	}
}
