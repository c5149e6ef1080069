package handler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func annotated(key, value string) func(*spottest.Pod) {
	return func(p *spottest.Pod) { p.Annotations = map[string]string{key: value} }
}

func daemon(p *spottest.Pod) {
	p.Owner.Kind, p.Replacement = "DaemonSet", nil
}

// TestTheLastPodsWaitForTheOthers, as long as they can still have their own time.
func TestTheLastPodsWaitForTheOthers(t *testing.T) {
	t.Run("until these have gone", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Policy.DaemonSets = spot.DrainLast
			w.pod("web-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
			w.pod("logs-1", daemon)
			w.pod("mesh-1", annotated(spot.AnnotationDrain, "last"))
			out := w.handle(spot.Drained)
			w.after("the SIGTERM of web-1", w.ended("web-1").SIGTERM, 0)
			w.after("the SIGTERM of the DaemonSet's pod", w.ended("logs-1").SIGTERM, 20*time.Second)
			w.after("the SIGTERM of the annotated pod", w.ended("mesh-1").SIGTERM, 20*time.Second)
			if p := podResult(t, out, "logs-1"); p.Status != spot.PodEvicted {
				t.Errorf("%+v", p)
			}
		})
	})
	t.Run("until their own time begins to run out", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Policy.DaemonSets = spot.DrainLast
			w.pod("slow-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 300*time.Second, time.Hour })
			w.pod("logs-1", daemon)
			w.handle(spot.Drained)
			if e := w.ended("logs-1"); e.Grace != 30*time.Second {
				t.Errorf("it got %s", e.Grace)
			} else {
				w.after("its SIGTERM", e.SIGTERM, 85*time.Second)
			}
		})
	})
	t.Run("and are forced like others", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("db-0", annotated(spot.AnnotationDrain, "last"))
			w.guard("db", 1)
			w.pod("slow-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 300*time.Second, time.Hour })
			out := w.handle(spot.Drained)
			w.after("its SIGTERM", w.ended("db-0").SIGTERM, 85*time.Second)
			if p := podResult(t, out, "db-0"); p.Status != spot.PodForceDeleted {
				t.Errorf("%+v", p)
			}
		})
	})
}

// TestDaemonSetsThatTolerateTheCordonStay, since they would be back at once, whatever the policy says.
func TestDaemonSetsThatTolerateTheCordonStay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.DaemonSets = spot.DrainLast
		w.pod("net-1", daemon, func(p *spottest.Pod) { p.ToleratesCordon = true })
		if out := w.handle(spot.Drained); podResult(t, out, "net-1").Status != spot.PodSkipped {
			t.Error(told(out))
		}
		w.wrote(1, 2)
	})
}

// TestAPodMayAskToStay until the machine ends.
func TestAPodMayAskToStay(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("job-1", annotated(spot.AnnotationDrain, "never"))
		w.pod("web-1")
		out := w.handle(spot.Drained)
		if p := podResult(t, out, "job-1"); p.Status != spot.PodSkipped || !strings.Contains(p.Reason, spot.AnnotationDrain) {
			t.Errorf("%+v", p)
		}
		if n := w.cluster.Count("create", "pods/eviction"); n != 1 {
			t.Errorf("%d evictions", n)
		}
	})
}

// TestForceIsThePodsThenThePolicys.
func TestForceIsThePodsThenThePolicys(t *testing.T) {
	for _, c := range []struct {
		policy spot.Force
		pod    string
		forced bool
	}{
		{policy: spot.ForceAllow, forced: true},
		{policy: spot.ForceNever},
		{policy: spot.ForceAllow, pod: "never"},
		{policy: spot.ForceNever, pod: "allow", forced: true},
		{policy: spot.ForceAllow, pod: "nevr", forced: true},
	} {
		t.Run(fmt.Sprintf("policy %s, pod %q", c.policy, c.pod), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.handler.Policy.Force = c.policy
				w.pod("db-0", func(p *spottest.Pod) {
					if c.pod != "" {
						p.Annotations = map[string]string{spot.AnnotationForce: c.pod}
					}
				})
				w.guard("db", 1)
				want := spot.Incomplete
				if c.forced {
					want = spot.Drained
				}
				out := w.handle(want)
				p := podResult(t, out, "db-0")
				switch {
				case c.forced && p.Status != spot.PodForceDeleted:
					t.Errorf("%+v", p)
				case !c.forced && (p.Status != spot.PodStillRunning || w.cluster.Count("delete", "pods") != 0 || !strings.Contains(p.Reason, "may not be force-deleted")):
					t.Errorf("%+v", p)
				}
				if misread := strings.Contains(strings.Join(out.Problems, "\n"), `"nevr": set it to`); misread != (c.pod == "nevr") {
					t.Errorf("the problems are %q", out.Problems)
				}
			})
		})
	}
}

// TestOnlyCordoned: a policy that only cordons asks no pod, and says so before.
func TestOnlyCordoned(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Rebalance = spot.RespondCordon
		w.pod("web-1")
		planned, err := w.handler.Preview(w.Context(), w.warning(spot.Rebalance))
		if err != nil || planned.Result != spot.Planned || !planned.Plan.Cordon || planned.Plan.Drain || len(planned.Plan.Pods) != 0 {
			t.Errorf("%v: %s", err, told(planned))
		}
		w.wrote(0, 0)
		out := w.handleEvent(w.warning(spot.Rebalance), spot.Cordoned)
		w.wrote(1, 0)
		n, _ := w.cluster.Node(instance)
		if _, excluded := n.Labels["node.kubernetes.io/exclude-from-external-load-balancers"]; excluded || !n.Unschedulable || out.Timings.Cordoned == nil {
			t.Errorf("%+v: %s", n, told(out))
		}
	})
}

// TestARehearsal drains with respect, asks nobody, and leaves the node as it was.
func TestARehearsal(t *testing.T) {
	for _, act := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.handler.Policy.DrainRehearsals = act
			before, _ := w.cluster.Node(instance)
			w.pod("web-1")
			w.pod("db-0")
			w.guard("db", 1)
			in := w.warning(spot.SpotTerminate)
			in.Rehearsal = true
			want := map[bool]spot.Result{false: spot.Planned, true: spot.Incomplete}[act]
			out := w.handleEvent(in, want)
			if n := len(w.aws.Calls("CreateTags", "DetachInstances")); n != 0 || w.cluster.Count("delete", "pods") != 0 {
				t.Errorf("act %v: %d writes to AWS, %d forced", act, n, w.cluster.Count("delete", "pods"))
			}
			after, _ := w.cluster.Node(instance)
			before.Version, after.Version = "", ""
			if !same(before, after) && act || w.cluster.Count("patch", "nodes") != map[bool]int{false: 0, true: 2}[act] {
				t.Errorf("act %v: the node was %+v, is %+v: %s", act, before, after, told(out))
			}
			if act {
				w.after("the SIGTERM of web-1", w.ended("web-1").SIGTERM, 0)
			}
		})
	}
}
