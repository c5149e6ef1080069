package handler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const (
	hookName = "drain"
	held     = "i-0bbbbbbbbbbbbbbb0"
)

// inHeldWorld is a world in which a group ends an instance, and a hook holds it.
func inHeldWorld(t *testing.T, heartbeat time.Duration, test func(w *world, in spot.Interruption)) {
	inWorld(t, func(w *world) {
		w.aws.AddGroup(spottest.Group{Name: "held." + cluster, Min: 0, Max: 1, Desired: 1, Tags: map[string]string{spot.TagCluster: cluster},
			Hooks: []spottest.Hook{{Name: hookName, Transition: spottest.HookTerminating, Heartbeat: heartbeat}}}, spottest.Instance{ID: held, PrivateIP: "10.0.1.9"})
		w.cluster.AddNode(node(held))
		w.handler.Policy.Hooks = []string{hookName}
		action := w.aws.TerminateMember(held)[0]
		test(w, spot.Interruption{EventID: "e9", Kind: spot.LifecycleTerminate, Instance: held, Region: "us-east-1", Time: w.event, Action: action})
	})
}

func onHeld(p *spottest.Pod) { p.Node = held }

// TestALifecycleActionIsCompletedWhenTheNodeIsEmpty, and not before.
func TestALifecycleActionIsCompletedWhenTheNodeIsEmpty(t *testing.T) {
	inHeldWorld(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("web-1", onHeld, func(p *spottest.Pod) { p.Exit = 20 * time.Second })
		out := w.handleEvent(in, spot.Drained)
		if l := out.Lifecycle; l == nil || l.Completed == nil || *l.Completed < 20 || l.Hook != hookName {
			t.Fatalf("%+v", l)
		}
		if _, on := w.aws.HeldUntil(in.Action.Token); on {
			t.Error("the hook still holds the instance")
		}
		if n := len(w.aws.Calls("CreateTags", "DetachInstances")); n != 0 {
			t.Errorf("%d writes that ask for a replacement", n)
		}
	})
}

// TestHeartbeatsPutTheEndOff: what a budget guards is not forced as long as the hook can be held.
func TestHeartbeatsPutTheEndOff(t *testing.T) {
	inHeldWorld(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("db-0", onHeld)
		w.guard("db", 1)
		time.AfterFunc(8*time.Minute, func() { w.cluster.RemoveBudget("db") })
		out := w.handleEvent(in, spot.Drained)
		if p := podResult(t, out, "db-0"); p.Status != spot.PodEvicted {
			t.Errorf("%+v", p)
		}
		w.after("its SIGTERM", w.ended("db-0").SIGTERM, 8*time.Minute+time.Second) // asked every 2 s
		if l := out.Lifecycle; l.Heartbeats < 5 || l.Completed == nil {
			t.Errorf("%+v", l)
		}
	})
}

// TestAtTheInvocationsEndAGuardedPodIsForced, while the hook still holds its machine.
func TestAtTheInvocationsEndAGuardedPodIsForced(t *testing.T) {
	inHeldWorld(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("db-0", onHeld, func(p *spottest.Pod) { p.Exit = time.Second })
		w.guard("db", 1)
		out, err := w.handler.Handle(w.limited(10*time.Minute), in)
		if err != nil {
			t.Fatal(err)
		}
		e := w.ended("db-0")
		if e.Grace != 30*time.Second || e.SIGTERM.Before(w.event.Add(9*time.Minute)) {
			t.Errorf("it got %s, %s after the event: %s", e.Grace, e.SIGTERM.Sub(w.event), told(out))
		}
	})
}

// TestWithoutHeartbeatsTheHooksTimeoutIsTheDeadline: what cannot be put off is worked with.
func TestWithoutHeartbeatsTheHooksTimeoutIsTheDeadline(t *testing.T) {
	inHeldWorld(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.aws.Fail("RecordLifecycleActionHeartbeat", 1000, spottest.Denied())
		w.pod("db-0", onHeld)
		w.guard("db", 1)
		w.pod("mq-0", onHeld, annotated(spot.AnnotationForce, "never"))
		w.guard("mq", 1)
		out := w.handleEvent(in, spot.Incomplete)
		w.after("its SIGTERM", w.ended("db-0").SIGTERM, 180*time.Second-35*time.Second)
		if at := *out.Timings.Finished; at < 179 || at > 190 {
			t.Errorf("the work went on until %v s, the machine ends after 180", at)
		}
		if !strings.Contains(strings.Join(out.Problems, "\n"), "sending a lifecycle heartbeat") {
			t.Errorf("the problems are %q", out.Problems)
		}
	})
}

// TestAHookThatNobodyNamedIsLeftAlone: nothing is asked, nothing is written.
func TestAHookThatNobodyNamedIsLeftAlone(t *testing.T) {
	inHeldWorld(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.handler.Policy.Hooks = []string{"another"}
		w.pod("web-1", onHeld)
		w.handleEvent(in, spot.Skipped)
		if n := len(w.aws.Calls()) + len(w.cluster.Requests()); n != 0 {
			t.Errorf("%d requests for an event that is none of ours", n)
		}
	})
}

// TestKOpsOwnHookIsLeftToItsDrainer where that is there, though it is named; and is ours where it is not.
func TestKOpsOwnHookIsLeftToItsDrainer(t *testing.T) {
	for _, managed := range []bool{true, false} {
		inHeldWorld(t, 5*time.Minute, func(w *world, in spot.Interruption) {
			in.Action.Hook = "nodes-NTHLifecycleHook"
			w.handler.Policy.Hooks = []string{in.Action.Hook}
			w.pod("web-1", onHeld)
			want := spot.Drained
			if managed {
				want = spot.Skipped
				if err := w.aws.CreateTags(w.Context(), []string{held}, map[string]string{"aws-node-termination-handler/managed": ""}); err != nil {
					t.Fatal(err)
				}
			}
			out := w.handleEvent(in, want)
			if n := w.cluster.Count("create", "pods/eviction"); (n == 0) != managed {
				t.Errorf("managed %v: %d evictions: %s", managed, n, told(out))
			}
		})
	}
}

// TestANodeThatIsNotEmptyIsNotLetGo: until the hook's own timeout its pods have their time.
func TestANodeThatIsNotEmptyIsNotLetGo(t *testing.T) {
	inHeldWorld(t, time.Minute, func(w *world, in spot.Interruption) {
		w.pod("slow-1", onHeld, func(p *spottest.Pod) { p.GracePeriod, p.Exit = 2*time.Hour, time.Hour })
		out, err := w.handler.Handle(w.limited(5*time.Minute), in)
		if err != nil || out.Result != spot.Incomplete {
			t.Fatalf("%v: %s", err, told(out))
		}
		if l := out.Lifecycle; l.Completed != nil || l.Reason == "" {
			t.Errorf("%+v", l)
		}
		if _, on := w.aws.HeldUntil(in.Action.Token); !on {
			t.Error("the hook has let the instance go")
		}
	})
}

// TestAnInstanceWithoutANodeIsLetGo: there is nothing to wait for.
func TestAnInstanceWithoutANodeIsLetGo(t *testing.T) {
	inHeldWorld(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.cluster.RemoveNode(held)
		out := w.handleEvent(in, spot.NodeNotFound)
		if out.Lifecycle.Completed == nil || *out.Lifecycle.Completed > 10 {
			t.Errorf("%+v", out.Lifecycle)
		}
	})
}

// TestReportsAnActionThatIsOver, and is no failure: the node is drained all the same.
func TestReportsAnActionThatIsOver(t *testing.T) {
	inHeldWorld(t, time.Minute, func(w *world, in spot.Interruption) {
		in.Action.Token = "another"
		w.pod("web-1", onHeld)
		out := w.handleEvent(in, spot.Drained)
		if l := out.Lifecycle; l.Completed != nil || !strings.Contains(l.Reason, "completing the lifecycle action") {
			t.Errorf("%+v", l)
		}
	})
}

// limited is the context of an invocation that ends after d.
func (w *world) limited(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}
