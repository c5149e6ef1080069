package handler_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func TestHandleEmptiesTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("web-2")
		w.pod("logs-1", func(p *spottest.Pod) { p.Owner.Kind, p.Replacement = "DaemonSet", nil })
		out := w.handle(spot.Drained)

		n, _ := w.cluster.Node(instance)
		if !n.Unschedulable || n.Labels["autoscaling.cast.ai/draining"] != "spot-interruption" || len(n.Taints) != 2 {
			t.Errorf("the node is not cordoned: %+v", n)
		}
		for name, end := range map[string]spot.PodStatus{"web-1": spot.PodEvicted, "web-2": spot.PodEvicted, "logs-1": spot.PodSkipped} {
			if got := ends(out)[name]; got != end {
				t.Errorf("%s: %s, want %s", name, got, end)
			}
		}
		if p := podResult(t, out, "web-1"); !strings.Contains(p.Reason, "ReplicaSet web") {
			t.Errorf("why it was evicted is told as %q", p.Reason)
		}
		if out.Replacement.Action != spot.ReplaceDetach || w.aws.Group(group).Desired != 2 {
			t.Errorf("no replacement: %+v", out.Replacement)
		}
		inst, _ := w.aws.Instance(instance)
		if inst.Tags[spot.TagDetached] != group || inst.Tags[spot.TagInterruptedAt] == "" {
			t.Errorf("the instance was detached without its tags: %v", inst.Tags)
		}
		w.after("the node's emptiness", w.event.Add(time.Duration(float64(*out.Timings.Empty)*1e9)), 3*time.Second)
	})
}

// TestRequests counts what a node of N pods costs the API server, and in how many round trips it comes to the first
// eviction.
func TestRequests(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"a-1", "b-1", "c-1"} {
			w.pod(name)
		}
		const roundTrip = 10 * time.Millisecond
		w.cluster.Disturb(spottest.Disturbance{Delay: roundTrip})
		w.aws.Delay(spottest.AnyOperation, time.Second) // the node must not wait for AWS
		w.handle(spot.Drained)
		events := w.cluster.Count("create", "events")
		if n := len(w.cluster.Requests()) - events; n > 3+4 || events > 3+2 {
			t.Errorf("%d requests and %d events for a node of 3 pods: %+v", n, events, w.cluster.Requests())
		}
		var cordoned, evicting time.Time
		for _, r := range w.cluster.Requests() {
			switch {
			case r.Verb == "patch":
				cordoned = r.Answered
			case r.Resource == "pods/eviction" && evicting.IsZero():
				evicting = r.Asked
			}
		}
		if evicting.Before(cordoned) {
			t.Error("the first eviction was asked for before the cordon was in place")
		}
		if d := evicting.Sub(w.event); d > 3*roundTrip {
			t.Errorf("the first eviction was sent after %s: the third round trip is to be the eviction itself", d)
		}
	})
}

func TestNodeNamedByAddress(t *testing.T) {
	for name, lists := range map[string]int{"ip-10-0-1-2.ec2.internal": 0, "worker-7": 1} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.cluster.RemoveNode(instance)
				w.cluster.AddNode(spot.Node{Name: name, ProviderID: "aws:///us-east-1a/" + instance})
				if out := w.handle(spot.Drained); out.Node != name {
					t.Errorf("drained %s", out.Node)
				}
				if n := w.cluster.Count("list", "nodes"); n != lists {
					t.Errorf("listed all nodes %d times, want %d", n, lists)
				}
			})
		})
	}
}

// TestReusedName: an address, and so a name made of it, may belong to another instance by now. Whatever a node is
// called, its providerID says which instance it is.
func TestReusedName(t *testing.T) {
	for _, name := range []string{"ip-10-0-1-2.ec2.internal", instance} {
		inWorld(t, func(w *world) {
			w.cluster.RemoveNode(instance)
			w.cluster.AddNode(spot.Node{Name: name, ProviderID: "aws:///us-east-1a/i-0bbbbbbbbbbbbbbb0", InternalIP: "10.0.1.2"})
			out := w.handle(spot.NodeNotFound)
			if out.Replacement.Action != spot.ReplaceDetach {
				t.Errorf("%s: the instance was not detached: %+v", name, out.Replacement)
			}
			if n := w.cluster.Count("patch", "nodes"); n != 0 {
				t.Errorf("%s: another instance's node was changed", name)
			}
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
			w.cluster.AddNode(node(instance))
			w.pod("web-1")
		})
		out := w.handle(spot.Drained)
		if *out.Timings.Cordoned > 9 || ends(out)["web-1"] != spot.PodEvicted {
			t.Errorf("cordoned after %v s: %s", *out.Timings.Cordoned, told(out))
		}
		if *out.Replacement.At > 5 {
			t.Errorf("the replacement waited for the node: %v s", *out.Replacement.At)
		}
	})
}

func TestForeignInstancesAreLeftAlone(t *testing.T) {
	for name, tags := range map[string]map[string]string{
		"another cluster's": {spot.TagCluster: "other.example.com"},
		"none of kOps'":     {"Name": "jenkins"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.aws.AddInstance(spottest.Instance{ID: "i-0cccccccccccccccc", Tags: tags, PrivateIP: "10.0.1.2"})
				in := w.warning(spot.SpotTerminate)
				in.Instance = "i-0cccccccccccccccc"
				out := w.handleEvent(in, spot.OtherCluster)
				w.wrote(0, 0)
				if n := w.cluster.Count("list", "nodes"); n != 0 {
					t.Error("all nodes were listed for an instance that is not ours")
				}
				if *out.Timings.Finished > 1 {
					t.Errorf("it took %v s", *out.Timings.Finished)
				}
			})
		})
	}
}

func TestEventsOfThePastChangeNothing(t *testing.T) {
	for name, change := range map[string]func(*spot.Interruption){
		"a replay":          func(in *spot.Interruption) { in.Replayed = true },
		"past its deadline": func(in *spot.Interruption) { in.Time = in.Time.Add(-2 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				in := w.warning(spot.SpotTerminate)
				change(&in)
				w.handleEvent(in, spot.Expired)
				w.wrote(0, 0)
			})
		})
	}
}

func TestPreviewTellsTheSamePlanAndChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.pod("slow-1", func(p *spottest.Pod) { p.GracePeriod = 10 * time.Minute })
		w.pod("logs-1", func(p *spottest.Pod) { p.Owner.Kind, p.Replacement = "DaemonSet", nil })
		in := w.warning(spot.SpotTerminate)
		planned, err := w.handler.Preview(w.Context(), in)
		if err != nil || planned.Result != spot.Planned {
			t.Fatal(planned.Result, err)
		}
		w.wrote(0, 0)
		roundTrip(t, planned)
		done := w.handleEvent(in, spot.Drained)
		if !reflect.DeepEqual(planned.Plan, done.Plan) {
			t.Errorf("observed and acted on plans differ:\n%s\n%s", told(planned), told(done))
		}
	})
}

func TestStopAndHibernate(t *testing.T) {
	for _, kind := range []spot.Kind{spot.SpotStop, spot.SpotHibernate} {
		t.Run(string(kind), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				w.pod("guarded-1")
				w.pod("long-1", func(p *spottest.Pod) { p.GracePeriod = 300 * time.Second })
				w.guard("guarded", 1)
				result := spot.Drained
				if kind == spot.SpotHibernate {
					result = spot.Incomplete
				}
				out := w.handleEvent(w.warning(kind), result)
				if n := len(w.aws.Calls("CreateTags", "DetachInstances")); n != 0 || out.Replacement.Action != spot.ReplaceNone {
					t.Errorf("an instance that may come back was detached: %+v", out.Replacement)
				}
				if kind == spot.SpotStop {
					if e := w.ended("guarded-1"); e.Grace != 30*time.Second {
						t.Errorf("the guarded pod got %s", e.Grace)
					}
					return
				}
				if g := w.ended("long-1").Grace; g != 300*time.Second {
					t.Errorf("a hibernating machine cut a grace period to %s", g)
				}
				if p := podResult(t, out, "guarded-1"); p.Refusals != 1 || p.Status != spot.PodStillRunning {
					t.Errorf("the guarded pod was to be asked once: %+v", p)
				}
				if *out.Timings.Finished > 21 {
					t.Errorf("it stayed for %v s", *out.Timings.Finished)
				}
			})
		})
	}
}

// TestOneSideUnreachable: either half goes on alone, and only where neither can is it an error.
func TestOneSideUnreachable(t *testing.T) {
	down := errors.New("connection refused")
	t.Run("the API server", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: down})
			out := w.handle(spot.Incomplete)
			if out.Replacement.Action != spot.ReplaceDetach || *out.Replacement.At > 5 {
				t.Errorf("the instance was not detached in time: %+v", out.Replacement)
			}
			if !strings.Contains(strings.Join(out.Problems, " "), "connection refused") {
				t.Errorf("the outcome does not say what failed: %v", out.Problems)
			}
		})
	})
	t.Run("the API server for a while", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("web-1")
			end := w.cluster.Disturb(spottest.Disturbance{Err: down})
			time.AfterFunc(20*time.Second, end)
			if out := w.handle(spot.Drained); *out.Timings.Cordoned > 23 {
				t.Errorf("cordoned after %v s", *out.Timings.Cordoned)
			}
		})
	})
	t.Run("EC2", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("web-1")
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
			out := w.handle(spot.Drained)
			if *out.Timings.Empty > 10 {
				t.Errorf("the drain waited for EC2: %v s", *out.Timings.Empty)
			}
			if out.Replacement.Action != spot.ReplaceNone || !strings.Contains(out.Replacement.Reason, "could not be read from EC2") {
				t.Errorf("%+v", out.Replacement)
			}
		})
	})
	t.Run("EC2, and the node has another name", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.RemoveNode(instance)
			w.cluster.AddNode(spot.Node{Name: "ip-10-0-1-2.ec2.internal", ProviderID: "aws:///us-east-1a/" + instance})
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
			w.handle(spot.Drained)
		})
	})
	t.Run("both", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: down})
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
			_, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate))
			if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "reading instance "+instance) {
				t.Errorf("the error must name both: %v", err)
			}
			if d := time.Since(w.event); d < 110*time.Second || d > 121*time.Second {
				t.Errorf("it gave up after %s", d)
			}
		})
	})
}

// TestDenied: a credential that is not accepted will not be accepted in a second either.
func TestDenied(t *testing.T) {
	denied := spot.Permanent(errors.New("401"))
	t.Run("by the cluster", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: denied})
			out := w.handle(spot.Incomplete)
			if *out.Timings.Finished > 5 || w.cluster.Count("get", "nodes") != 1 {
				t.Errorf("it asked %d times in %v s", w.cluster.Count("get", "nodes"), *out.Timings.Finished)
			}
		})
	})
	t.Run("by both", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: denied})
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Denied())
			_, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate))
			if err == nil || time.Since(w.event) > 5*time.Second {
				t.Errorf("after %s: %v", time.Since(w.event), err)
			}
		})
	})
	t.Run("the pods", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: denied})
			out := w.handle(spot.Incomplete)
			if out.Cordon.At == nil || len(out.Problems) == 0 || *out.Timings.Finished > 5 {
				t.Errorf("%s", told(out))
			}
		})
	})
}

func TestInvocationEndsBeforeTheMachine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1", func(p *spottest.Pod) { p.Exit = time.Hour })
		ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
		defer cancel()
		out, err := w.handler.Handle(ctx, w.warning(spot.SpotTerminate))
		if err != nil || out.Result != spot.Incomplete {
			t.Fatal(out.Result, err)
		}
		if ctx.Err() != nil || *out.Timings.Finished > 16 {
			t.Errorf("no time was left to tell the outcome: it ended after %v s", *out.Timings.Finished)
		}
	})
}

// TestEventFromTheFuture: EC2's clock and ours differ; nobody is given more than the whole time.
func TestEventFromTheFuture(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("db-0", func(p *spottest.Pod) { p.Replacement = nil })
		w.guard("db", 1)
		in := w.warning(spot.SpotTerminate)
		in.Time = in.Time.Add(time.Minute)
		out := w.handleEvent(in, spot.Drained)
		w.after("the deadline", out.Deadline, 2*time.Minute)
		w.after("the forced delete", w.ended("db-0").SIGTERM, 85*time.Second)
		if *out.Timings.Started != 0 {
			t.Errorf("it began %v s after the event", *out.Timings.Started)
		}
	})
}

func TestTerminatedInstanceIsNotWaitedFor(t *testing.T) {
	inWorld(t, func(w *world) {
		w.cluster.RemoveNode(instance)
		w.aws.SetState(instance, "terminated")
		if out := w.handle(spot.NodeNotFound); *out.Timings.Finished > 5 {
			t.Errorf("it waited %v s for a node of a machine that is no more", *out.Timings.Finished)
		}
	})
}

// TestDoubtfulErrors pass: an authenticator that AWS throttles says no to a good credential.
func TestDoubtfulErrors(t *testing.T) {
	doubt := spot.PossiblyTransient(errors.New("401"))
	for name, d := range map[string]spottest.Disturbance{
		"reading the node":   {Verb: "get", Resource: "nodes", Err: doubt},
		"cordoning it":       {Verb: "patch", Resource: "nodes", Err: doubt},
		"listing its pods":   {Verb: "list", Resource: "pods", Err: doubt},
		"evicting":           {Resource: "pods/eviction", Err: doubt},
		"everything at once": {Err: doubt},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				time.AfterFunc(3*time.Second, w.cluster.Disturb(d))
				if out := w.handle(spot.Drained); *out.Timings.Empty > 12 || len(out.Problems) != 0 {
					t.Errorf("%s", told(out))
				}
			})
		})
	}
	t.Run("one that lasts is believed", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: doubt})
			if out := w.handle(spot.Incomplete); *out.Timings.Finished < 5 || *out.Timings.Finished > 10 {
				t.Errorf("it ended after %v s", *out.Timings.Finished)
			}
		})
	})
}

// TestForeignWithoutTheAPIServer: another cluster's instance must not hold the function for two minutes.
func TestForeignWithoutTheAPIServer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.AddInstance(spottest.Instance{ID: "i-0cccccccccccccccc", Tags: map[string]string{spot.TagCluster: "other.example.com"}})
		in := w.warning(spot.SpotTerminate)
		in.Instance = "i-0cccccccccccccccc"
		w.cluster.Disturb(spottest.Disturbance{Err: errors.New("connection refused")})
		if out := w.handleEvent(in, spot.OtherCluster); *out.Timings.Finished > 10 {
			t.Errorf("it took %v s", *out.Timings.Finished)
		}
	})
}

// TestErrorsNameAllThatFailed, and are none where something may have been done.
func TestErrorsNameAllThatFailed(t *testing.T) {
	t.Run("the replacement too", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: errors.New("connection refused")})
			w.aws.Fail("CreateTags", -1, spottest.Denied())
			_, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate))
			if err == nil || !strings.Contains(err.Error(), "CreateTags") || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("a group that refuses", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: errors.New("connection refused")})
			w.aws.Fail("DetachInstances", -1, spottest.Denied())
			_, err := w.handler.Handle(w.Context(), w.warning(spot.SpotTerminate))
			if err == nil || !strings.Contains(err.Error(), "DetachInstances") || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("tags whose answers were lost", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Err: errors.New("connection refused")})
			w.aws.Fail("CreateTags", -1, spottest.AnswerLost())
			w.handle(spot.Incomplete)
		})
	})
	t.Run("a cordon whose answers were lost", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Lost: true, Err: errors.New("EOF")})
			w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: errors.New("EOF")})
			w.handleEvent(w.warning(spot.SpotStop), spot.Incomplete)
		})
	})
	t.Run("a timeout that leaves no time", func(t *testing.T) {
		inWorld(t, func(w *world) {
			ctx, cancel := context.WithTimeout(w.Context(), 3*time.Second)
			defer cancel()
			if _, err := w.handler.Handle(ctx, w.warning(spot.SpotTerminate)); err == nil || !strings.Contains(err.Error(), "set the function's timeout") {
				t.Errorf("got %v", err)
			}
		})
	})
}

// TestTwice: the same event in two invocations, at once and one after the other.
func TestTwice(t *testing.T) {
	for name, apart := range map[string]time.Duration{"at once": 0, "a moment apart": 300 * time.Millisecond, "a minute apart": time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
				w.pod("long-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 300*time.Second, 70*time.Second })
				w.pod("guarded-1", func(p *spottest.Pod) { p.Replacement = nil })
				w.guard("guarded", 1)
				outs := make([]spot.Outcome, 2)
				go func() { outs[0] = w.handle(spot.Drained) }()
				time.Sleep(apart)
				go func() { outs[1] = w.handle(spot.Drained) }()
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if n := w.cluster.Count("patch", "nodes"); n > 2 {
					t.Errorf("%d changes of the node", n)
				}
				detached := 0
				for _, c := range w.aws.Calls("DetachInstances") {
					if c.Err == nil {
						detached++
					}
				}
				if detached != 1 {
					t.Errorf("%d detaches: %v", detached, w.aws.Calls())
				}
				if len(w.cluster.Terminations()) != 3 {
					t.Errorf("%+v", w.cluster.Terminations())
				}
				if !outs[0].Deadline.Equal(outs[1].Deadline) {
					t.Errorf("two deadlines: %v, %v", outs[0].Deadline, outs[1].Deadline)
				}
			})
		})
	}
}
