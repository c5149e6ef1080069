package handler_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func TestDrainLast(t *testing.T) {
	subtest(t, "after the other pods", func(w *world) {
		w.handler.Policy.DaemonSets = spot.DrainLast
		w.pod("web-1", exit(20*time.Second))
		w.pod("logs-1", daemonSet)
		w.pod("mesh-1", annotated(spot.AnnotationDrain, "last"))
		out := w.handle(spot.Drained)
		w.wantSIGTERM("web-1", 0)
		w.wantSIGTERM("logs-1", 20*time.Second)
		w.wantSIGTERM("mesh-1", 20*time.Second)
		w.wantStatus(out, "logs-1", spot.PodEvicted)
	})
	subtest(t, "in time for the grace period", func(w *world) {
		w.handler.Policy.DaemonSets = spot.DrainLast
		w.pod("slow-1", grace(300*time.Second), exit(time.Hour))
		w.pod("logs-1", daemonSet)
		w.handle(spot.Drained)
		if e := w.wantSIGTERM("logs-1", 85*time.Second); e.Grace != 30*time.Second {
			w.Errorf("got grace period %s, want 30s", e.Grace)
		}
	})
	subtest(t, "force-deleted", func(w *world) {
		w.pod("db-0", annotated(spot.AnnotationDrain, "last"))
		w.budget("db", 1)
		w.pod("slow-1", grace(300*time.Second), exit(time.Hour))
		w.wantStatus(w.handle(spot.Drained), "db-0", spot.PodForceDeleted)
		w.wantSIGTERM("db-0", 85*time.Second)
	})
}

func TestDaemonSetToleratesCordon(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.DaemonSets = spot.DrainLast
		w.pod("net-1", daemonSet, toleratesCordon)
		w.wantStatus(w.handle(spot.Drained), "net-1", spot.PodSkipped)
		w.wantWrites(1, 2)
	})
}

func TestDrainNever(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("job-1", annotated(spot.AnnotationDrain, "never"))
		w.pod("web-1")
		p := w.wantStatus(w.handle(spot.Drained), "job-1", spot.PodSkipped)
		if !strings.Contains(p.Reason, spot.AnnotationDrain) {
			w.Errorf("got reason %q, want %s", p.Reason, spot.AnnotationDrain)
		}
		w.wantRequests("create", "pods/eviction", 1)
	})
}

// TestForce checks that the pod's annotation overrides the policy.
func TestForce(t *testing.T) {
	for _, c := range []struct {
		policy     spot.Force
		annotation string
		force      bool
	}{
		{policy: spot.ForceAllow, force: true},
		{policy: spot.ForceNever},
		{policy: spot.ForceAllow, annotation: "never"},
		{policy: spot.ForceNever, annotation: "allow", force: true},
		{policy: spot.ForceAllow, annotation: "nevr", force: true},
	} {
		subtest(t, fmt.Sprintf("policy %s, annotation %q", c.policy, c.annotation), func(w *world) {
			w.handler.Policy.Force = c.policy
			w.pod("db-0", func(p *spottest.Pod) {
				if c.annotation != "" {
					annotated(spot.AnnotationForce, c.annotation)(p)
				}
			})
			w.budget("db", 1)
			var out spot.Outcome
			if c.force {
				out = w.handle(spot.Drained)
				w.wantStatus(out, "db-0", spot.PodForceDeleted)
			} else {
				out = w.handle(spot.Incomplete)
				const reason = "may not be force-deleted"
				if p := w.wantStatus(out, "db-0", spot.PodStillRunning); !strings.Contains(p.Reason, reason) {
					w.Errorf("got reason %q, want %q", p.Reason, reason)
				}
				w.wantRequests("delete", "pods", 0)
			}
			invalid := strings.Contains(strings.Join(out.Problems, "\n"), `"nevr": set it to`)
			if want := c.annotation == "nevr"; invalid != want {
				w.Errorf("got problems %q, want invalid annotation %v", out.Problems, want)
			}
		})
	}
}

func TestCordonOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Rebalance = spot.RespondCordon
		w.pod("web-1")
		preview, err := w.handler.Preview(w.Context(), w.warning(spot.Rebalance))
		if p := preview.Plan; err != nil || preview.Result != spot.Planned || !p.Cordon || p.Drain || len(p.Pods) != 0 {
			w.Errorf("got %v, %s; want a plan to cordon only", err, toJSON(preview))
		}
		w.wantWrites(0, 0)
		out := w.handleEvent(w.warning(spot.Rebalance), spot.Cordoned)
		w.wantWrites(1, 0)
		n := w.node()
		_, excluded := n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]
		if excluded || !n.Unschedulable || out.Timings.Cordoned == nil {
			w.Errorf("got %+v, %s; want a cordoned node in load balancers", n, toJSON(out))
		}
	})
}

// TestRehearsal checks that a rehearsal forces and replaces nothing, and restores the node.
func TestRehearsal(t *testing.T) {
	for drain, want := range map[bool]spot.Result{false: spot.Planned, true: spot.Incomplete} {
		subtest(t, fmt.Sprintf("drain %v", drain), func(w *world) {
			w.handler.Policy.DrainRehearsals = drain
			before := w.node()
			w.pod("web-1")
			w.pod("db-0")
			w.budget("db", 1)
			in := w.warning(spot.SpotTerminate)
			in.Rehearsal = true
			if out := w.handleEvent(in, want); !out.Event.Rehearsal {
				w.Errorf("got %s, want it marked as a rehearsal", toJSON(out))
			}
			w.wantAWSWrites(0)
			w.wantRequests("delete", "pods", 0)
			if after := w.node(); !sameNode(after, before) {
				w.Errorf("got %+v, want %+v", after, before)
			}
			if drain {
				w.wantRequests("patch", "nodes", 2)
				w.wantSIGTERM("web-1", 0)
			} else {
				w.wantRequests("patch", "nodes", 0)
			}
		})
	}
}

// TestRehearsalsOneAtATime: a rehearsal drains no node while another rehearsal drains one, and restores its own.
func TestRehearsalsOneAtATime(t *testing.T) {
	for name, c := range map[string]struct {
		rehearsal bool
		ends      time.Duration // of the event on the other node
		want      spot.Result
	}{
		"another rehearsal":           {true, time.Minute, spot.Skipped},
		"another rehearsal has ended": {true, -time.Second, spot.Drained},
		"a warning":                   {false, time.Minute, spot.Drained},
	} {
		subtest(t, name, func(w *world) {
			w.handler.Policy.DrainRehearsals = true
			in, before := w.warning(spot.SpotTerminate), w.node()
			in.Rehearsal = c.rehearsal
			w.cluster.WriteNode(other, func(n *spot.Node) { *n = spot.Cordon(*n, in, spot.Plan{Deadline: w.event.Add(c.ends)}) })
			w.pod("web-1")
			in.EventID, in.Rehearsal = "e2", true
			out := w.handleEvent(in, c.want)
			if skipped := out.Reason == "a rehearsal is draining node "+other+": rehearse one node after the other"; skipped != (c.want == spot.Skipped) {
				w.Errorf("reason: %s", out.Reason)
			}
			if after := w.node(); !sameNode(after, before) {
				w.Errorf("got %+v, want %+v", after, before)
			}
			if c.want == spot.Skipped {
				w.wantRequests("create", "pods/eviction", 0)
			}
		})
	}
	subtest(t, "one that begins at the same time", func(w *world) {
		w.handler.Policy.DrainRehearsals = true
		w.pod("web-1")
		in := w.warning(spot.SpotTerminate)
		in.Rehearsal = true
		begun := false
		w.cluster.BeforeNodeWrite(func(node string) {
			if node == instance && !begun {
				begun = true
				w.cluster.WriteNode(other, func(n *spot.Node) { *n = spot.Cordon(*n, in, spot.Plan{Deadline: w.event.Add(time.Minute)}) })
			}
		})
		own := in
		own.EventID = "e2"
		w.handleEvent(own, spot.Skipped)
		w.wantRequests("create", "pods/eviction", 0)
	})
	subtest(t, "the others cannot be listed", func(w *world) {
		w.handler.Policy.DrainRehearsals = true
		w.pod("web-1")
		in := w.warning(spot.SpotTerminate)
		in.Rehearsal = true
		w.handler.Cluster = unlisted{w.cluster}
		if out := w.handleEvent(in, spot.Incomplete); !strings.HasPrefix(out.Reason, "other rehearsals could not be listed") {
			w.Errorf("reason: %s", out.Reason)
		}
		w.wantRequests("create", "pods/eviction", 0)
	})
}

// unlisted is a cluster that does not let the handler list nodes.
type unlisted struct{ spot.Cluster }

func (unlisted) CordonedNodes(context.Context) ([]spot.Node, error) { return nil, spot.ErrPermanent }

// TestWarningAfterRebalance checks that a warning force-deletes what a rebalance recommendation could not evict, and
// does not shorten the grace periods of what it evicted.
func TestWarningAfterRebalance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Rebalance = spot.RespondDrain
		w.pod("slow-1", grace(600*time.Second), exit(100*time.Second))
		w.pod("db-0")
		w.budget("db", 1)
		rebalance := w.warning(spot.Rebalance)
		rebalance.EventID = "e0"
		done := make(chan error, 1)
		go func() {
			_, err := w.handler.Handle(w.Context(), rebalance)
			done <- err
		}()
		time.Sleep(30 * time.Second)
		w.newEvent()
		w.wantStatus(w.handle(spot.Drained), "db-0", spot.PodForceDeleted)
		w.wantSIGTERM("db-0", 85*time.Second)
		if e := w.termination("slow-1"); e.Grace != 600*time.Second {
			w.Errorf("got grace period %s, want 600s", e.Grace)
		}
		if got := w.node().Annotations["kops-spot.cast.ai/event"]; got != "e1" {
			w.Errorf("got event %s, want e1", got)
		}
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
}
