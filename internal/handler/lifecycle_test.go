package handler_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const (
	hookName = "drain"
	leaving  = "i-0bbbbbbbbbbbbbbb0" // the instance that the group terminates
)

// withHook runs test in a world in which a group terminates an instance, and a lifecycle hook delays the termination.
func withHook(t *testing.T, heartbeat time.Duration, test func(w *world, in spot.Interruption)) {
	inWorld(t, func(w *world) {
		hook := spottest.Hook{Name: hookName, Transition: spottest.HookTerminating, Heartbeat: heartbeat}
		w.aws.AddGroup(spottest.Group{Name: "leaving." + cluster, Min: 0, Max: 1, Desired: 1,
			Tags: map[string]string{spot.TagCluster: cluster}, Hooks: []spottest.Hook{hook}},
			spottest.Instance{ID: leaving, PrivateIP: "10.0.1.9"})
		w.cluster.AddNode(newNode(leaving, leaving))
		w.handler.Policy.Hooks = []string{hookName}
		test(w, spot.Interruption{EventID: "e9", Kind: spot.LifecycleTerminate, Instance: leaving, Region: "us-east-1",
			Time: w.event, Action: w.aws.TerminateMember(leaving)[0]})
	})
}

func onLeaving(p *spottest.Pod) { p.Node = leaving }

func TestLifecycleAction(t *testing.T) {
	withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("web-1", onLeaving, exit(20*time.Second))
		l := w.handleEvent(in, spot.Drained).Lifecycle
		if l == nil || l.Completed == nil || *l.Completed < 20 || l.Hook != hookName {
			w.Fatalf("got %+v, want hook %s completed after 20s", l, hookName)
		}
		if until, ok := w.aws.HeldUntil(in.Action.Token); ok {
			w.Errorf("got the instance held until %s", until)
		}
		w.wantAWSWrites(0)
	})
}

// TestHeartbeats checks that a refused pod is not force-deleted as long as heartbeats move the deadline.
func TestHeartbeats(t *testing.T) {
	withHook(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("db-0", onLeaving)
		w.budget("db", 1)
		time.AfterFunc(8*time.Minute, func() { w.cluster.RemoveBudget("db") })
		out := w.handleEvent(in, spot.Drained)
		w.wantStatus(out, "db-0", spot.PodEvicted)
		w.wantSIGTERM("db-0", 8*time.Minute+time.Second) // evictions are retried every 2 s
		if l := out.Lifecycle; l.Heartbeats < 5 || l.Completed == nil {
			w.Errorf("got %+v, want 5 heartbeats or more, completed", l)
		}
	})
}

func TestHeartbeatsUntilLimit(t *testing.T) {
	withHook(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("db-0", onLeaving, exit(time.Second))
		w.budget("db", 1)
		if _, err := w.handler.Handle(w.timeout(10*time.Minute), in); err != nil {
			w.Fatal(err)
		}
		e := w.termination("db-0")
		if at := e.SIGTERM.Sub(w.event); e.Grace != 30*time.Second || at < 9*time.Minute {
			w.Errorf("got grace period %s after %s, want 30s after 9m or later", e.Grace, at)
		}
	})
}

func TestHeartbeatsDenied(t *testing.T) {
	withHook(t, 3*time.Minute, func(w *world, in spot.Interruption) {
		w.aws.Fail("RecordLifecycleActionHeartbeat", 1000, spottest.Denied())
		w.pod("db-0", onLeaving)
		w.budget("db", 1)
		w.pod("mq-0", onLeaving, annotated(spot.AnnotationForce, "never"))
		w.budget("mq", 1)
		out := w.handleEvent(in, spot.Incomplete)
		w.wantSIGTERM("db-0", 180*time.Second-35*time.Second)
		if got := *out.Timings.Finished; got < 179 || got > 190 {
			w.Errorf("got finished after %vs, want 180s", got)
		}
		const problem = "sending a lifecycle heartbeat"
		if !strings.Contains(strings.Join(out.Problems, "\n"), problem) {
			w.Errorf("got problems %q, want %q", out.Problems, problem)
		}
	})
}

// TestOthersLifecycleActions covers actions that are known not to be ours without a request.
func TestOthersLifecycleActions(t *testing.T) {
	const theirs = "nodes.other.example.com"
	for name, c := range map[string]struct {
		hooks []string
		group string
		want  spot.Result
	}{
		"another hook":                          {[]string{"another"}, "leaving." + cluster, spot.Skipped},
		"another cluster's group":               {[]string{hookName}, theirs, spot.OtherCluster},
		"another cluster's group, another hook": {[]string{"another"}, theirs, spot.OtherCluster},
		"no hook":                               {nil, theirs, spot.OtherCluster},
	} {
		t.Run(name, func(t *testing.T) {
			withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
				w.handler.Policy.Hooks, in.Action.Group = c.hooks, c.group
				w.pod("web-1", onLeaving)
				w.handleEvent(in, c.want)
				if calls, requests := w.aws.Calls(), w.cluster.Requests(); len(calls) != 0 || len(requests) != 0 {
					w.Errorf("got requests %v, %v; want none", calls, requests)
				}
			})
		})
	}
}

// TestNTHTag checks that the tag of aws-node-termination-handler, which stays on instances after the program is gone,
// does not matter.
func TestNTHTag(t *testing.T) {
	withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.pod("web-1", onLeaving)
		tags := map[string]string{"aws-node-termination-handler/managed": ""}
		if err := w.aws.CreateTags(w.Context(), []string{leaving}, tags); err != nil {
			w.Fatal(err)
		}
		w.wantStatus(w.handleEvent(in, spot.Drained), "web-1", spot.PodEvicted)
	})
}

// TestTakeOver: before, during and after a take-over from aws-node-termination-handler, each hook of an instance that an
// AZ rebalance terminates is completed once, when its node is empty. The function gets the events of all hooks.
func TestTakeOver(t *testing.T) {
	const theirs, ours = "nodes-NTHLifecycleHook", "kops-spot"
	for name, c := range map[string]struct{ hooks, handled []string }{
		"before":                  {[]string{theirs}, nil},
		"the setting is deployed": {[]string{theirs}, []string{ours}},
		"both hooks":              {[]string{theirs, ours}, []string{ours}},
		"after":                   {[]string{ours}, []string{ours}},
	} {
		subtest(t, name, func(w *world) {
			g := spottest.Group{Name: "leaving." + cluster, Min: 0, Max: 1, Desired: 1, Tags: map[string]string{spot.TagCluster: cluster}}
			for _, hook := range c.hooks {
				g.Hooks = append(g.Hooks, spottest.Hook{Name: hook, Transition: spottest.HookTerminating, Heartbeat: 5 * time.Minute})
			}
			w.aws.AddGroup(g, spottest.Instance{ID: leaving, PrivateIP: "10.0.1.9"})
			w.cluster.AddNode(newNode(leaving, leaving))
			w.handler.Policy.Hooks = c.handled
			pod := w.pod("web-1", onLeaving, exit(20*time.Second))
			var running sync.WaitGroup
			for _, action := range w.aws.TerminateMember(leaving) {
				if action.Hook == theirs { // their program drains like kubectl
					running.Go(func() {
						if err := w.cluster.Evict(w.Context(), pod, pod.GracePeriod, false); err != nil {
							w.Error(err)
						}
						time.Sleep(25 * time.Second)
						if err := w.aws.CompleteLifecycleAction(w.Context(), action); err != nil {
							w.Errorf("their hook was completed before: %v", err)
						}
					})
				}
				running.Go(func() {
					out := w.handleEvent(spot.Interruption{EventID: action.Token, Kind: spot.LifecycleTerminate, Instance: leaving,
						Region: "us-east-1", Time: w.event, Action: action},
						map[string]spot.Result{theirs: spot.Skipped, ours: spot.Drained}[action.Hook])
					if handled := out.Lifecycle != nil && out.Lifecycle.Completed != nil; handled != (action.Hook == ours) {
						w.Errorf("hook %s: got %+v", action.Hook, out.Lifecycle)
					}
				})
			}
			running.Wait()
			w.wantSIGTERM("web-1", 0)
			if m := w.aws.Group(g.Name).Members; slices.ContainsFunc(m, func(m spottest.Member) bool { return m.State == "Terminating:Wait" }) {
				w.Errorf("got %+v, want nobody in Terminating:Wait", m)
			}
			if took := time.Since(w.event); took > time.Minute {
				w.Errorf("got the hooks completed after %s", took)
			}
		})
	}
}

func TestIncompleteLifecycleAction(t *testing.T) {
	withHook(t, time.Minute, func(w *world, in spot.Interruption) {
		w.pod("slow-1", onLeaving, grace(2*time.Hour), exit(time.Hour))
		l := w.handleIn(w.timeout(5*time.Minute), in, spot.Incomplete).Lifecycle
		if l.Completed != nil || l.Reason == "" {
			w.Errorf("got %+v, want a reason why it is not completed", l)
		}
		if _, ok := w.aws.HeldUntil(in.Action.Token); !ok {
			w.Error("got the lifecycle action completed")
		}
	})
}

func TestLifecycleActionWithoutNode(t *testing.T) {
	withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
		w.cluster.RemoveNode(leaving)
		l := w.handleEvent(in, spot.NodeNotFound).Lifecycle
		if l.Completed == nil || *l.Completed > 10 {
			w.Errorf("got %+v, want completed within 10s", l)
		}
	})
}

func TestLifecycleActionOver(t *testing.T) {
	withHook(t, time.Minute, func(w *world, in spot.Interruption) {
		in.Action.Token = "another"
		w.pod("web-1", onLeaving)
		l := w.handleEvent(in, spot.Drained).Lifecycle
		if l.Completed != nil || !strings.Contains(l.Reason, "completing the lifecycle action") {
			w.Errorf("got %+v, want the reason why it is not completed", l)
		}
	})
}
