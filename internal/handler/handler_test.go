package handler_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

var errRefused = errors.New("connection refused")

func TestHandle(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("web-2")
		w.pod("logs-1", daemonSet)
		out := w.handle(spot.Drained)

		n := w.node()
		if !n.Unschedulable || n.Labels["autoscaling.cast.ai/draining"] != "spot-interruption" || len(n.Taints) != 2 {
			w.Errorf("got %+v, want a cordoned node", n)
		}
		if p := w.wantStatus(out, "web-1", spot.PodEvicted); !strings.Contains(p.Reason, "ReplicaSet web") {
			w.Errorf("got reason %q, want ReplicaSet web", p.Reason)
		}
		w.wantStatus(out, "web-2", spot.PodEvicted)
		w.wantStatus(out, "logs-1", spot.PodSkipped)
		w.wantReplacement(out, spot.ReplaceDetach)
		if got := w.aws.Group(group).Desired; got != 2 {
			w.Errorf("got desired capacity %d, want 2", got)
		}
		if i, _ := w.aws.Instance(instance); i.Tags[spot.TagDetached] != group || i.Tags[spot.TagInterruptedAt] == "" {
			w.Errorf("got tags %v, want those of a detach", i.Tags)
		}
		if got := *out.Timings.Empty; got < 2 || got > 4 {
			w.Errorf("got empty after %vs, want 3s", got)
		}
		want := spot.InstanceInfo{Group: group, Type: "m5.large", Zone: "us-east-1a", Lifecycle: "spot"}
		if out.Instance != want || out.Event.Rehearsal {
			w.Errorf("got %+v, %+v; want %+v, no rehearsal", out.Instance, out.Event, want)
		}
	})
}

// TestRequestCount limits the requests per pod and the round trips before the first eviction.
func TestRequestCount(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"a-1", "b-1", "c-1"} {
			w.pod(name)
		}
		const roundTrip = 10 * time.Millisecond
		w.cluster.Disturb(spottest.Disturbance{Delay: roundTrip})
		w.aws.Delay(spottest.AnyOperation, time.Second) // the eviction must not wait for AWS
		w.handle(spot.Drained)
		events := w.cluster.Count("create", "events")
		if got := len(w.cluster.Requests()) - events; got > 3+5 || events > 3+2 {
			w.Errorf("got %d requests and %d Events, want at most 8 and 5: %+v", got, events, w.cluster.Requests())
		}
		var cordoned, evicted time.Time
		for _, r := range w.cluster.Requests() {
			switch {
			case r.Verb == "patch":
				cordoned = r.Answered
			case r.Resource == "pods/eviction" && evicted.IsZero():
				evicted = r.Asked
			}
		}
		if evicted.Before(cordoned) {
			w.Errorf("got first eviction at %s, want after the cordon at %s", evicted, cordoned)
		}
		if got := evicted.Sub(w.event); got > 3*roundTrip {
			w.Errorf("got first eviction after %s, want the third round trip", got)
		}
	})
}

func TestNodeName(t *testing.T) {
	for name, lists := range map[string]int{"ip-10-0-1-2.ec2.internal": 0, "worker-7": 1} {
		subtest(t, name, func(w *world) {
			w.renameNode(name)
			if out := w.handle(spot.Drained); out.Node != name {
				w.Errorf("got node %s, want %s", out.Node, name)
			}
			w.wantRequests("list", "nodes", lists)
		})
	}
}

// TestReusedName checks that a node with the name or address of the instance, but another provider ID, is not changed.
func TestReusedName(t *testing.T) {
	for _, name := range []string{"ip-10-0-1-2.ec2.internal", instance} {
		subtest(t, name, func(w *world) {
			n := newNode(name, "i-0bbbbbbbbbbbbbbb0")
			n.InternalIP = "10.0.1.2"
			w.cluster.RemoveNode(instance)
			w.cluster.AddNode(n)
			w.wantReplacement(w.handle(spot.NodeNotFound), spot.ReplaceDetach)
			w.wantRequests("patch", "nodes", 0)
		})
	}
}

func TestNodeWithoutProviderID(t *testing.T) {
	inWorld(t, func(w *world) {
		w.cluster.WriteNode(instance, func(n *spot.Node) { n.ProviderID, n.InternalIP = "", "10.0.1.2" })
		w.handle(spot.Drained)
	})
}

func TestNodeRegistersLate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.cluster.RemoveNode(instance)
		time.AfterFunc(6*time.Second, func() {
			w.cluster.AddNode(newNode(instance, instance))
			w.pod("web-1")
		})
		out := w.handle(spot.Drained)
		w.wantStatus(out, "web-1", spot.PodEvicted)
		if got := *out.Timings.Cordoned; got > 9 {
			w.Errorf("got cordoned after %vs, want at most 9s", got)
		}
		if got := *out.Replacement.At; got > 5 {
			w.Errorf("got replacement after %vs, want at most 5s", got)
		}
	})
}

func TestOtherCluster(t *testing.T) {
	for name, tags := range map[string]map[string]string{
		"other cluster":       {spot.TagCluster: "other.example.com"},
		"not created by kOps": {"Name": "jenkins"},
	} {
		subtest(t, name, func(w *world) {
			in := w.warning(spot.SpotTerminate)
			in.Instance = w.foreignInstance("", tags)
			out := w.handleEvent(in, spot.OtherCluster)
			w.wantWrites(0, 0)
			w.wantRequests("list", "nodes", 0)
			if got := *out.Timings.Finished; got > 1 {
				w.Errorf("got finished after %vs, want at most 1s", got)
			}
		})
	}
	subtest(t, "API server unreachable", func(w *world) {
		in := w.warning(spot.SpotTerminate)
		in.Instance = w.foreignInstance("", map[string]string{spot.TagCluster: "other.example.com"})
		w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		if got := *w.handleEvent(in, spot.OtherCluster).Timings.Finished; got > 10 {
			w.Errorf("got finished after %vs, want at most 10s", got)
		}
	})
}

func TestExpired(t *testing.T) {
	for name, change := range map[string]func(*spot.Interruption){
		"replay":    func(in *spot.Interruption) { in.Replayed = true },
		"rehearsal": func(in *spot.Interruption) { in.Rehearsal, in.Time = true, in.Time.Add(-2*time.Minute) },
	} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			in := w.warning(spot.SpotTerminate)
			change(&in)
			w.handleEvent(in, spot.Expired)
			w.wantWrites(0, 0)
		})
	}
	subtest(t, "already drained", func(w *world) {
		w.pod("web-1")
		w.handle(spot.Drained)
		w.cluster.RemoveNode(instance)
		time.Sleep(2 * time.Minute)
		w.handle(spot.Expired)
	})
}

// TestMissed handles a warning after its deadline. The pods of an instance that still runs get SIGTERM.
func TestMissed(t *testing.T) {
	for name, c := range map[string]struct {
		late     time.Duration // after the deadline
		state    string
		want     spot.Result
		evicted  bool
		rehearse bool // a rehearsal cordoned the node
	}{
		"still running":         {late: 10 * time.Second, state: "running", want: spot.Missed, evicted: true},
		"spared":                {late: 61 * time.Second, state: "running", want: spot.Expired},
		"terminated":            {late: 10 * time.Minute, state: "terminated", want: spot.Missed},
		"after a rehearsal":     {late: 10 * time.Minute, state: "terminated", want: spot.Missed, rehearse: true},
		"shutting down already": {late: 10 * time.Second, state: "shutting-down", want: spot.Missed},
	} {
		subtest(t, name, func(w *world) {
			if c.rehearse {
				rehearsal := w.warning(spot.SpotTerminate)
				rehearsal.EventID, rehearsal.Rehearsal = "rehearsal", true
				w.cluster.WriteNode(instance, func(n *spot.Node) {
					*n = spot.Cordon(*n, rehearsal, spot.Plan{Deadline: w.event.Add(time.Hour)})
				})
			}
			w.pod("long-1", grace(5*time.Minute), exit(time.Second))
			w.pod("guarded-1")
			w.budget("guarded", 1)
			w.aws.SetState(instance, c.state)
			time.Sleep(2*time.Minute + c.late)
			out := w.handle(c.want)
			if got := len(w.cluster.Terminations()) > 0; got != c.evicted {
				w.Errorf("evicted: got %v, want %v: %s", got, c.evicted, toJSON(out))
			}
			if c.evicted && w.termination("long-1").Grace != 5*time.Minute || w.cluster.Count("delete", "pods") != 0 {
				w.Errorf("got %+v, want an eviction with the pod's own grace period", w.cluster.Terminations())
			}
			if got := w.aws.Calls("DetachInstances"); len(got) != 0 {
				w.Errorf("got %v, want no detach", got)
			}
		})
	}
}

func TestPreviewMatchesHandle(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("slow-1", grace(10*time.Minute))
		w.pod("logs-1", daemonSet)
		in := w.warning(spot.SpotTerminate)
		preview, err := w.handler.Preview(w.Context(), in)
		if err != nil || preview.Result != spot.Planned {
			w.Fatalf("got %s, %v; want %s", preview.Result, err, spot.Planned)
		}
		w.wantWrites(0, 0)
		w.roundTrip(preview)
		if out := w.handleEvent(in, spot.Drained); !reflect.DeepEqual(preview.Plan, out.Plan) {
			w.Errorf("got preview %s, want the plan of %s", toJSON(preview), toJSON(out))
		}
	})
}

func TestStop(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("guarded-1")
		w.budget("guarded", 1)
		w.pod("long-1", grace(300*time.Second))
		w.wantReplacement(w.handleEvent(w.warning(spot.SpotStop), spot.Drained), spot.ReplaceNone)
		w.wantAWSWrites(1) // a tag
		if got := w.termination("guarded-1").Grace; got != 30*time.Second {
			w.Errorf("got grace period %s, want 30s", got)
		}
	})
}

func TestHibernate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("guarded-1")
		w.budget("guarded", 1)
		w.pod("long-1", grace(300*time.Second))
		out := w.handleEvent(w.warning(spot.SpotHibernate), spot.Incomplete)
		w.wantReplacement(out, spot.ReplaceNone)
		w.wantAWSWrites(1) // a tag
		if got := w.termination("long-1").Grace; got != 300*time.Second {
			w.Errorf("got grace period %s, want 300s", got)
		}
		if p := w.wantStatus(out, "guarded-1", spot.PodStillRunning); p.Refusals != 1 {
			w.Errorf("got %d refusals, want 1", p.Refusals)
		}
		if got := *out.Timings.Finished; got > 21 {
			w.Errorf("got finished after %vs, want at most 21s", got)
		}
	})
}

// TestUnreachable checks that the drain does not depend on AWS, nor the replacement on the API server.
func TestUnreachable(t *testing.T) {
	subtest(t, "API server", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		out := w.handle(spot.Incomplete)
		if r := w.wantReplacement(out, spot.ReplaceDetach); *r.At > 5 {
			w.Errorf("got detach after %vs, want at most 5s", *r.At)
		}
		if !strings.Contains(strings.Join(out.Problems, " "), errRefused.Error()) {
			w.Errorf("got problems %q, want %q", out.Problems, errRefused)
		}
	})
	subtest(t, "API server for 20s", func(w *world) {
		w.pod("web-1")
		time.AfterFunc(20*time.Second, w.cluster.Disturb(spottest.Disturbance{Err: errRefused}))
		if got := *w.handle(spot.Drained).Timings.Cordoned; got > 26 {
			w.Errorf("got cordoned after %vs, want at most 26s", got)
		}
	})
	subtest(t, "AWS", func(w *world) {
		w.pod("web-1")
		w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
		out := w.handle(spot.Drained)
		if got := *out.Timings.Empty; got > 10 {
			w.Errorf("got empty after %vs, want at most 10s", got)
		}
		const reason = "could not be read from EC2"
		if r := w.wantReplacement(out, spot.ReplaceNone); !strings.Contains(r.Reason, reason) {
			w.Errorf("got reason %q, want %q", r.Reason, reason)
		}
	})
	subtest(t, "AWS, node named by address", func(w *world) {
		w.renameNode("ip-10-0-1-2.ec2.internal")
		w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
		w.handle(spot.Drained)
	})
	subtest(t, "both", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
		w.wantError(w.Context(), w.warning(spot.SpotTerminate), errRefused.Error(), "reading instance "+instance)
		if got := time.Since(w.event); got < 110*time.Second || got > 121*time.Second {
			w.Errorf("got error after %s, want 110s to 121s", got)
		}
	})
}

// TestDenied checks that denied requests are retried until the deadline, but not often.
func TestDenied(t *testing.T) {
	denied := spot.Permanent(errors.New("401"))
	subtest(t, "by the API server", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: denied})
		if got := *w.handle(spot.Incomplete).Timings.Finished; got < 119 {
			w.Errorf("got finished after %vs, want 120s", got)
		}
		if n := w.cluster.Count("get", "nodes"); n < 24 || n > 70 {
			w.Errorf("got %d requests, want 24 to 70", n)
		}
	})
	subtest(t, "by both", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: denied})
		w.aws.Fail(spottest.AnyOperation, -1, spottest.Denied())
		w.wantError(w.Context(), w.warning(spot.SpotTerminate))
		if got := time.Since(w.event); got < 119*time.Second {
			w.Errorf("got error after %s, want 120s", got)
		}
	})
	subtest(t, "pods", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: denied})
		out := w.handle(spot.Incomplete)
		if out.Cordon.At == nil || len(out.Problems) == 0 || *out.Timings.Finished < 119 {
			w.Errorf("got %s, want a cordon and a problem after 120s", toJSON(out))
		}
	})
}

func TestShortInvocation(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1", exit(time.Hour))
		ctx := w.timeout(20 * time.Second)
		out := w.handleIn(ctx, w.warning(spot.SpotTerminate), spot.Incomplete)
		if got := *out.Timings.Finished; ctx.Err() != nil || got > 16 {
			w.Errorf("got finished after %vs, want at most 16s", got)
		}
	})
}

func TestFutureEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("db-0", notRecreated)
		w.budget("db", 1)
		in := w.warning(spot.SpotTerminate)
		in.Time = in.Time.Add(time.Minute)
		out := w.handleEvent(in, spot.Drained)
		w.wantAt("deadline", out.Deadline, 2*time.Minute)
		w.wantSIGTERM("db-0", 85*time.Second)
		if got := *out.Timings.Started; got != 0 {
			w.Errorf("got started after %vs, want 0s", got)
		}
	})
}

func TestTerminatedInstance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.cluster.RemoveNode(instance)
		w.aws.SetState(instance, "terminated")
		if got := *w.handle(spot.NodeNotFound).Timings.Finished; got > 5 {
			w.Errorf("got finished after %vs, want at most 5s", got)
		}
	})
}

// TestRejectedOnce: a credential or request that is rejected for three seconds costs a few seconds.
func TestRejectedOnce(t *testing.T) {
	err := spot.Permanent(errors.New("401"))
	for name, d := range map[string]spottest.Disturbance{
		"get node":   {Verb: "get", Resource: "nodes", Err: err},
		"patch node": {Verb: "patch", Resource: "nodes", Err: err},
		"list pods":  {Verb: "list", Resource: "pods", Err: err},
		"evict":      {Resource: "pods/eviction", Err: err},
		"all":        {Err: err},
	} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			time.AfterFunc(3*time.Second, w.cluster.Disturb(d))
			if out := w.handle(spot.Drained); *out.Timings.Empty > 12 || len(out.Problems) != 0 {
				w.Errorf("got %s, want empty within 12s and no problems", toJSON(out))
			}
		})
	}
}

// TestErrors checks that an error names everything that failed, and that there is none if something may have changed.
func TestErrors(t *testing.T) {
	subtest(t, "detach denied", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		w.aws.Fail("DetachInstances", -1, spottest.Denied())
		w.wantError(w.Context(), w.warning(spot.SpotTerminate), "DetachInstances", errRefused.Error())
	})
	subtest(t, "responses to the detach lost", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		w.aws.Fail("DetachInstances", -1, spottest.AnswerLost())
		w.handle(spot.Incomplete)
	})
	subtest(t, "responses to the cordon lost", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Lost: true, Err: errors.New("EOF")})
		w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: errors.New("EOF")})
		w.handleEvent(w.warning(spot.SpotStop), spot.Incomplete)
	})
	subtest(t, "timeout too short", func(w *world) {
		w.wantError(w.timeout(3*time.Second), w.warning(spot.SpotTerminate), "set the function's timeout")
	})
}

// TestTwoInvocations handles the same event twice.
func TestTwoInvocations(t *testing.T) {
	for _, apart := range []time.Duration{0, 300 * time.Millisecond, time.Minute} {
		subtest(t, apart.String(), func(w *world) {
			w.pod("web-1", exit(20*time.Second))
			w.pod("long-1", grace(300*time.Second), exit(70*time.Second))
			w.pod("guarded-1", notRecreated)
			w.budget("guarded", 1)
			outs := make([]spot.Outcome, 2)
			go func() { outs[0] = w.handle(spot.Drained) }()
			time.Sleep(apart)
			go func() { outs[1] = w.handle(spot.Drained) }()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if got := w.cluster.Count("patch", "nodes"); got > 2 {
				w.Errorf("got %d changes of the node, want at most 2", got)
			}
			detached := 0
			for _, c := range w.aws.Calls("DetachInstances") {
				if c.Err == nil {
					detached++
				}
			}
			if detached != 1 {
				w.Errorf("got %d detaches, want 1: %v", detached, w.aws.Calls())
			}
			if got := w.cluster.Terminations(); len(got) != 3 {
				w.Errorf("got %+v, want 3 terminations", got)
			}
			if a, b := outs[0].Deadline, outs[1].Deadline; !a.Equal(b) {
				w.Errorf("got deadlines %v and %v, want the same", a, b)
			}
		})
	}
}
