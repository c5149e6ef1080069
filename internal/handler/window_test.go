package handler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestShutdownWindow covers pods that a budget protects, with and without a shutdown window that suffices for them.
func TestShutdownWindow(t *testing.T) {
	critical := func(p *spottest.Pod) { p.Critical = true }
	for name, c := range map[string]struct {
		window, own time.Duration
		option      func(*spottest.Pod)
		allowed     time.Duration // when the budget allows the eviction; 0 for never
		result      spot.Result
		status      spot.PodStatus
		reason      string        // of the outcome
		sigterm     time.Duration // 0 for none
		grace       time.Duration
	}{
		"no window": {own: 20 * time.Second, result: spot.Drained, status: spot.PodForceDeleted,
			sigterm: 95 * time.Second, grace: 20 * time.Second},
		"allowed after the force time": {window: 20 * time.Second, own: 20 * time.Second, allowed: 109 * time.Second,
			result: spot.Drained, status: spot.PodEvicted, sigterm: 110 * time.Second, grace: 20 * time.Second},
		"allowed just before the deadline": {window: 20 * time.Second, own: 20 * time.Second, allowed: 117 * time.Second,
			result: spot.Drained, status: spot.PodLeftToKubelet, sigterm: 118 * time.Second, grace: 20 * time.Second,
			reason: "1 pod left to the kubelet's shutdown window"},
		"never allowed": {window: 20 * time.Second, own: 20 * time.Second, result: spot.Drained, status: spot.PodLeftToKubelet,
			reason: "1 pod left to the kubelet's shutdown window"},
		"never allowed, never forced": {window: 20 * time.Second, own: 20 * time.Second,
			option: annotated(spot.AnnotationForce, "never"), result: spot.Drained, status: spot.PodLeftToKubelet,
			reason: "1 pod left to the kubelet's shutdown window"},
		"too long, never forced": {window: 20 * time.Second, own: 21 * time.Second, option: annotated(spot.AnnotationForce, "never"),
			result: spot.Incomplete, status: spot.PodStillRunning, reason: "1 pod still running"},
		"critical": {window: 150 * time.Second, own: 20 * time.Second, option: critical, result: spot.Drained,
			status: spot.PodForceDeleted, sigterm: 95 * time.Second, grace: 20 * time.Second},
		"too long": {window: 20 * time.Second, own: 60 * time.Second, option: exit(50 * time.Second), result: spot.Drained,
			status: spot.PodLeftToKubelet, sigterm: 75 * time.Second, grace: 60 * time.Second,
			reason: "1 pod left to the kubelet's shutdown window"},
		"long window": {window: 150 * time.Second, own: 600 * time.Second, result: spot.Drained, status: spot.PodLeftToKubelet,
			reason: "1 pod left to the kubelet's shutdown window"},
	} {
		subtest(t, name, func(w *world) {
			w.handler.Policy.ShutdownGrace = c.window
			w.pod("db-0", grace(c.own), notRecreated, func(p *spottest.Pod) {
				if c.option != nil {
					c.option(p)
				}
			})
			w.budget("db", 1)
			if c.allowed > 0 {
				time.AfterFunc(c.allowed, func() { w.cluster.RemoveBudget("db") })
			}
			out := w.handle(c.result)
			w.wantStatus(out, "db-0", c.status)
			if out.Reason != c.reason {
				w.Errorf("got reason %q, want %q", out.Reason, c.reason)
			}
			if left := c.status == spot.PodLeftToKubelet || c.status == spot.PodStillRunning; (out.Timings.Empty == nil) != left {
				w.Errorf("got empty after %v", out.Timings.Empty)
			}
			if c.sigterm == 0 {
				w.wantRequests("delete", "pods", 0)
				if got := w.cluster.Terminations(); len(got) > 0 {
					w.Errorf("got %+v, want no SIGTERM", got)
				}
			} else if e := w.wantSIGTERM("db-0", c.sigterm); e.Grace != c.grace {
				w.Errorf("got grace period %s, want %s", e.Grace, c.grace)
			}
		})
	}
}

// TestWindowOutcome checks how an outcome tells the pods left to the kubelet from those that left, and from those that
// nobody terminates in time.
func TestWindowOutcome(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.ShutdownGrace = 20 * time.Second
		w.pod("web-1")
		w.pod("slow-1", grace(300*time.Second), exit(130*time.Second)) // evicted with 135 s
		w.pod("db-0", grace(20*time.Second))
		w.budget("db", 1)
		w.pod("mq-0", annotated(spot.AnnotationForce, "never"))
		w.budget("mq", 1)
		out := w.handle(spot.Incomplete)
		w.wantStatus(out, "web-1", spot.PodEvicted)
		w.wantStatus(out, "mq-0", spot.PodStillRunning)
		for name, want := range map[string]string{
			"db-0":   "every eviction was refused; its kubelet ends it in the shutdown window",
			"slow-1": "evicted, and still terminating; its kubelet ends it in the shutdown window",
		} {
			if p := w.wantStatus(out, name, spot.PodLeftToKubelet); p.Reason != want {
				w.Errorf("pod %s: got reason %q, want %q", name, p.Reason, want)
			}
		}
		if want := "1 pod still running, 2 pods left to the kubelet's shutdown window"; out.Reason != want {
			w.Errorf("got reason %q, want %q", out.Reason, want)
		}
		if e := w.termination("slow-1"); e.Grace != 135*time.Second {
			w.Errorf("got grace period %s, want 135s", e.Grace)
		}
		for _, p := range out.Plan.Pods {
			if covered := p.Name == "db-0"; covered != (p.KubeletAt != nil && *p.KubeletAt == 120 && p.KubeletGrace == 20) {
				w.Errorf("got plan %+v", p)
			}
		}
	})
	inWorld(t, func(w *world) {
		w.handler.Policy.ShutdownGrace = 20 * time.Second
		w.pod("db-0", grace(20*time.Second))
		w.budget("db", 1)
		w.handle(spot.Drained)
		events := w.cluster.Events()
		e := events[len(events)-1]
		if want := "Drained, except for 1 pod left to the kubelet's shutdown window"; e.Message != want || e.Reason != "SpotDrained" {
			w.Errorf("got %+v, want %q", e, want)
		}
	})
}

// TestFailedEvictionsWithWindow checks that a covered pod is left to its kubelet only if a budget keeps it: the outcome
// shows any other failure.
func TestFailedEvictionsWithWindow(t *testing.T) {
	refuse := func(w *world, r spot.Refusal) { w.cluster.OnEviction(func(spot.Pod) *spot.Refusal { return &r }) }
	down := func(w *world) func() { return w.cluster.Disturb(spottest.Disturbance{Err: errRefused}) }
	for name, c := range map[string]struct {
		inject func(w *world)
		left   bool
	}{
		"a budget":           {func(w *world) { w.budget("db", 1) }, true},
		"two budgets":        {func(w *world) { w.budget("db", 1); w.budget("db", 1) }, true},
		"403":                {func(w *world) { refuse(w, spot.Refusal{Code: 403}) }, false},
		"429 from a webhook": {func(w *world) { refuse(w, spot.Refusal{Code: 429}) }, false},
		"500":                {func(w *world) { refuse(w, spot.Refusal{Code: 500}) }, false},
		"dry runs":           {func(w *world) { w.handler.Cluster = dryRunWebhook{w.cluster} }, false},
		"a budget, then 403": {func(w *world) {
			w.budget("db", 1)
			time.AfterFunc(30*time.Second, func() { refuse(w, spot.Refusal{Code: 403}) })
		}, false},
		"403, then a budget": {func(w *world) {
			refuse(w, spot.Refusal{Code: 403})
			time.AfterFunc(30*time.Second, func() { w.cluster.OnEviction(nil); w.budget("db", 1) })
		}, true},
		"no response": {func(w *world) { w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: errRefused}) }, false},
		"a budget, then no response": {func(w *world) {
			w.budget("db", 1)
			time.AfterFunc(30*time.Second, func() { down(w) })
		}, false},
		"no response, then a budget": {func(w *world) {
			w.budget("db", 1)
			time.AfterFunc(30*time.Second, func() { time.AfterFunc(30*time.Second, down(w)) })
		}, true},
		"a budget, and no time for the last response": {func(w *world) {
			w.budget("db", 1)
			w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: 7 * time.Second})
		}, true},
	} {
		subtest(t, name, func(w *world) {
			w.handler.Policy.ShutdownGrace = 20 * time.Second
			w.pod("db-0", grace(20*time.Second), notRecreated)
			c.inject(w)
			result, status := spot.Incomplete, spot.PodStillRunning
			if c.left {
				result, status = spot.Drained, spot.PodLeftToKubelet
			}
			w.wantStatus(w.handle(result), "db-0", status)
		})
	}
}

// TestNoRequestAfterTheEnd checks that no request for a pod is sent at or after the end of work, whatever fails and
// whenever the invocation ends.
func TestNoRequestAfterTheEnd(t *testing.T) {
	for _, window := range []time.Duration{0, 20 * time.Second, 150 * time.Second} {
		for name, inject := range map[string]func(w *world){
			"a budget": func(w *world) { w.budget("db", 1) },
			"no response": func(w *world) {
				w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: errors.New("EOF")})
				w.cluster.Disturb(spottest.Disturbance{Verb: "delete", Resource: "pods", Err: errors.New("EOF")})
			},
			"slow responses": func(w *world) {
				w.budget("db", 1)
				w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: 7 * time.Second})
			},
			"always changed": func(w *world) {
				w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: fmt.Errorf("409: %w", spot.ErrChanged)})
				w.cluster.Disturb(spottest.Disturbance{Verb: "delete", Resource: "pods", Err: fmt.Errorf("409: %w", spot.ErrChanged)})
			},
			"accepted, but not done": func(w *world) { w.handler.Cluster = dryRunWebhook{w.cluster} },
			"returning": func(w *world) {
				w.pod("agent-1", grace(10*time.Second), toleratesCordon, func(p *spottest.Pod) {
					p.Replacement = &spottest.Replacement{Node: instance}
				})
			},
		} {
			for timeout, end := range map[time.Duration]time.Duration{
				15 * time.Minute: 120 * time.Second, 65 * time.Second: 60 * time.Second} {
				subtest(t, fmt.Sprintf("%s, %s, ends after %s", window, name, end), func(w *world) {
					w.handler.Policy.ShutdownGrace = window
					w.pod("db-0", grace(20*time.Second), notRecreated)
					w.pod("slow-0", grace(200*time.Second), exit(time.Hour), annotated(spot.AnnotationDrain, "last"))
					inject(w)
					sent := &sentRequests{Cluster: w.handler.Cluster}
					w.handler.Cluster = sent
					if _, err := w.handler.Handle(w.timeout(timeout), w.warning(spot.SpotTerminate)); err != nil {
						w.Fatal(err)
					}
					if len(sent.at) < 3 {
						w.Errorf("got %d requests", len(sent.at))
					}
					for i, at := range sent.at {
						if !at.Before(w.event.Add(end)) {
							w.Errorf("got request %d of %d after %s", i, len(sent.at), at.Sub(w.event))
						}
					}
					if window > 0 && slices.Contains(sent.deleted, "default/db-0") {
						w.Error("got db-0 force-deleted")
					}
				})
			}
		}
	}
}

// sentRequests records the requests for pods, including those whose context has ended.
type sentRequests struct {
	spot.Cluster
	mu      sync.Mutex
	at      []time.Time
	deleted []string
}

func (s *sentRequests) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	s.mu.Lock()
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	return s.Cluster.Evict(ctx, p, grace, exact)
}

func (s *sentRequests) Delete(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	s.mu.Lock()
	s.at, s.deleted = append(s.at, time.Now()), append(s.deleted, p.ID())
	s.mu.Unlock()
	return s.Cluster.Delete(ctx, p, grace, exact)
}

// TestLifecycleActionWithWindow checks that a lifecycle action is not completed while pods are left to the kubelet:
// they keep the time until the hook's timeout. The instance then shuts down as for a warning.
func TestLifecycleActionWithWindow(t *testing.T) {
	withHook(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.handler.Policy.ShutdownGrace = 20 * time.Second
		w.pod("db-0", onLeaving, grace(20*time.Second))
		w.budget("db", 1)
		out := w.handleIn(w.timeout(10*time.Minute), in, spot.Drained)
		w.wantStatus(out, "db-0", spot.PodLeftToKubelet)
		if l := out.Lifecycle; l.Completed != nil || !strings.Contains(l.Reason, "not empty") {
			w.Errorf("got %+v, want a reason why it is not completed", l)
		}
		w.wantRequests("delete", "pods", 0)
	})
}

// TestNoWindow covers events that no shutdown follows.
func TestNoWindow(t *testing.T) {
	for name, change := range map[string]func(*world, *spot.Interruption){
		"rehearsal":   func(_ *world, in *spot.Interruption) { in.Rehearsal = true },
		"hibernation": func(_ *world, in *spot.Interruption) { in.Kind = spot.SpotHibernate },
		"scheduled change": func(w *world, in *spot.Interruption) {
			in.Kind, in.Start = spot.ScheduledChange, w.event.Add(2*time.Minute)
		},
	} {
		subtest(t, name, func(w *world) {
			w.handler.Policy.ShutdownGrace, w.handler.Policy.DrainRehearsals = 20*time.Second, true
			w.handler.Policy.ScheduledChange = spot.RespondDrain
			w.pod("db-0", grace(20*time.Second))
			w.budget("db", 1)
			in := w.warning(spot.SpotTerminate)
			change(w, &in)
			w.wantStatus(w.handleEvent(in, spot.Incomplete), "db-0", spot.PodStillRunning)
		})
	}
}
