package handler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const castaiInstance = "i-0ca57ca57ca57ca50"

// castaiNode adds a node that CAST AI manages, in no Auto Scaling group, and returns its warning.
func (w *world) castaiNode() (*autoscaler, spot.Interruption) {
	a := w.withAutoscaler()
	w.cluster.WriteNode(instance, func(n *spot.Node) { n.Labels = nil })
	w.aws.AddInstance(spottest.Instance{ID: castaiInstance, PrivateIP: "10.0.9.9", Spot: true,
		Tags: map[string]string{spot.TagCluster: cluster}})
	n := newNode(castaiInstance, castaiInstance)
	n.Labels = map[string]string{"provisioner.cast.ai/node-id": "n1"}
	w.cluster.AddNode(n)
	in := w.warning(spot.SpotTerminate)
	in.Instance = castaiInstance
	return a, in
}

var errReset = errors.New("connection reset by peer")

// TestNotifyAfterOutage: whatever delays the first read of the node, CAST AI is notified of its node.
func TestNotifyAfterOutage(t *testing.T) {
	for name, disturb := range map[string]func(w *world){
		"first read fails": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Times: 1, Err: errReset})
		},
		"first read is slow": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Times: 1, Delay: 4 * time.Second})
		},
		"API server down for 5 s": func(w *world) {
			time.AfterFunc(5*time.Second, w.cluster.Disturb(spottest.Disturbance{Err: errReset}))
		},
		"node registers late": func(w *world) {
			n, _ := w.cluster.Node(castaiInstance)
			w.cluster.RemoveNode(castaiInstance)
			time.AfterFunc(6*time.Second, func() { w.cluster.AddNode(n) })
		},
		"EC2 down": func(w *world) { w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable()) },
		"named by the policy": func(w *world) {
			w.handler.Policy.Replace = spot.ReplacerAutoscaler
			w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Times: 1, Err: errReset})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				a, in := w.castaiNode()
				w.aws.Delay(spottest.AnyOperation, 100*time.Millisecond)
				disturb(w)
				if out := w.handleEvent(in, spot.Drained); len(a.events) != 1 {
					t.Errorf("notified %q: %+v", a.events, out.Replacement)
				}
			})
		})
	}
}

// TestReplacerAfterOutage: a first read that fails does not hide who replaces the node.
func TestReplacerAfterOutage(t *testing.T) {
	once := spottest.Disturbance{Verb: "get", Resource: "nodes", Times: 1, Err: errReset}
	t.Run("cluster-autoscaler", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Taints = []spot.Taint{{Key: "ToBeDeletedByClusterAutoscaler", Effect: "NoSchedule"}}
			})
			w.cluster.Disturb(once)
			if out := w.handle(spot.Drained); out.Replacement.Action == spot.ReplaceDetach {
				t.Errorf("detached: %+v", out.Replacement)
			}
		})
	})
	t.Run("Karpenter", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Labels, n.NodeClaim = map[string]string{"karpenter.sh/nodepool": "spot"}, "spot-x7"
			})
			w.cluster.AddClaim("spot-x7")
			w.handler.Policy.Replace = spot.ReplacerKarpenter
			w.cluster.Disturb(once)
			if out := w.handle(spot.Drained); len(w.cluster.Claims()) != 0 {
				t.Errorf("NodeClaim not deleted: %+v", out.Replacement)
			}
		})
	})
}

// TestRejectedForAWhile: ten seconds of 401 or 403, from an API server that has just started, cost ten seconds.
func TestRejectedForAWhile(t *testing.T) {
	for name, d := range map[string]spottest.Disturbance{
		"everything": {}, "listing pods": {Verb: "list", Resource: "pods"}, "cordoning": {Verb: "patch", Resource: "nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("slow-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
				d.Err = spot.Permanent(errors.New("401"))
				time.AfterFunc(10*time.Second, w.cluster.Disturb(d))
				out := w.handle(spot.Drained)
				if n, _ := w.cluster.Node(instance); !n.Unschedulable || *out.Timings.Empty > 38 {
					t.Errorf("unschedulable %v: %s", n.Unschedulable, toJSON(out))
				}
			})
		})
	}
}

// TestAcceptedWithoutEffect: a webhook turns evictions into dry runs. The pod still gets SIGTERM in time.
func TestAcceptedWithoutEffect(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("db-0")
		w.handler.Cluster = dryRunWebhook{w.cluster}
		out := w.handle(spot.Drained)
		w.wantSIGTERM("db-0", 85*time.Second)
		p := w.wantStatus(out, "db-0", spot.PodForceDeleted)
		reads := 0 // of the pod, which may be terminating although the watch does not show it
		for _, r := range w.cluster.Requests() {
			if r.Verb == "list" && r.Resource == "pods" && r.Name == "default/db-0" {
				reads++
			}
		}
		if p.Refusals < 10 || reads < p.Refusals {
			t.Errorf("got %d reads before repeated requests, %+v", reads, p)
		}
	})
}

type dryRunWebhook struct{ *spottest.Cluster }

func (dryRunWebhook) Evict(context.Context, spot.Pod, time.Duration, bool) error { return nil }

// TestEvictionOutage: after an outage, a pod is evicted once more before it is force-deleted.
func TestEvictionOutage(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"db-0", "db-1", "db-2"} {
			w.pod(name, func(p *spottest.Pod) { p.Exit = time.Second })
		}
		w.budget("db", 0)
		time.AfterFunc(86*time.Second, w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Err: errReset}))
		out := w.handle(spot.Drained)
		for _, name := range []string{"db-0", "db-1", "db-2"} {
			w.wantStatus(out, name, spot.PodEvicted)
		}
	})
}

// TestRetryAfterTenSeconds: the API server sends it even where milliseconds would do.
func TestRetryAfterTenSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		first := true
		w.cluster.OnEviction(func(spot.Pod) *spot.Refusal {
			if !first {
				return nil
			}
			first = false
			return &spot.Refusal{Code: 429, RetryAfter: 10 * time.Second, Message: "still being processed by the server"}
		})
		w.pod("web-1")
		if at := *w.wantStatus(w.handle(spot.Drained), "web-1", spot.PodEvicted).RequestedAt; at > 3 {
			t.Errorf("evicted after %v s", at)
		}
	})
}

// TestOwnerIgnoresCordon: pods that are bound to the node again and again are not evicted again and again.
func TestOwnerIgnoresCordon(t *testing.T) {
	t.Run("bound by its owner", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.pod("eds-1", func(p *spottest.Pod) { p.Exit, p.Replacement = time.Second, &spottest.Replacement{Node: instance} })
			w.handle(spot.Drained)
			if n := w.cluster.Count("create", "pods/eviction"); n > 7 {
				t.Errorf("%d evictions", n)
			}
		})
	})
	t.Run("the cordon is refused", func(t *testing.T) {
		inWorld(t, func(w *world) {
			for _, name := range []string{"a-1", "b-1", "c-1", "d-1", "e-1"} {
				w.pod(name, func(p *spottest.Pod) {
					p.Exit, p.Replacement = time.Second, &spottest.Replacement{Node: instance, Ready: time.Second}
				})
			}
			w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Resource: "nodes", Err: spot.Permanent(errors.New("403"))})
			if _, err := w.handler.Handle(w.timeout(25*time.Second), w.warning(spot.SpotTerminate)); err != nil {
				t.Fatal(err)
			}
			if n := w.cluster.Count("create", "pods/eviction"); n > 5*5 {
				t.Errorf("%d evictions", n)
			}
		})
	})
}

// TestAfterWork: an API server that stops responding at the end of the invocation does not cost the outcome.
func TestAfterWork(t *testing.T) {
	for _, rehearsal := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.handler.Policy.Rebalance, w.handler.Policy.DrainRehearsals = spot.RespondDrain, true
			w.pod("db-0", func(p *spottest.Pod) { p.Volumes = true })
			w.budget("db", 1)
			time.AfterFunc(170*time.Second, func() { w.cluster.Disturb(spottest.Disturbance{Delay: time.Hour}) })
			in := w.warning(spot.Rebalance)
			in.Rehearsal = rehearsal
			ctx := w.timeout(3 * time.Minute)
			out, err := w.handler.Handle(ctx, in)
			if d := time.Since(w.event); ctx.Err() != nil || d > 179*time.Second || err != nil || out.Result != spot.Incomplete {
				t.Errorf("rehearsal %v: returned after %s: %s, %v", rehearsal, d, out.Result, err)
			}
		})
	}
}

// TestRehearsalAndWarning: a rehearsal never uncordons a node that is really interrupted.
func TestRehearsalAndWarning(t *testing.T) {
	event := func(w *world, id string, rehearsal bool) spot.Interruption {
		in := w.warning(spot.SpotTerminate)
		in.EventID, in.Rehearsal, in.Time = id, rehearsal, time.Now()
		return in
	}
	cordonedFor := func(w *world, id string) {
		w.Helper()
		if n, _ := w.cluster.Node(instance); !n.Unschedulable || n.Annotations["kops-spot.cast.ai/event"] != id {
			w.Errorf("unschedulable %v, annotations %v", n.Unschedulable, n.Annotations)
		}
	}
	slow := func(p *spottest.Pod) { p.GracePeriod, p.Exit = 110*time.Second, 100*time.Second }
	t.Run("warning during a rehearsal", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Policy.DrainRehearsals = true
			w.pod("slow-1", slow)
			go w.handler.Handle(w.timeout(15*time.Minute), event(w, "rehearsal", true))
			time.Sleep(60 * time.Second)
			go w.handler.Handle(w.timeout(15*time.Minute), event(w, "real", false))
			time.Sleep(65 * time.Second)
			cordonedFor(w, "real")
			time.Sleep(3 * time.Minute)
		})
	})
	t.Run("rehearsal after a warning", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.handler.Policy.DrainRehearsals = true
			w.pod("slow-1", slow)
			go w.handler.Handle(w.timeout(15*time.Minute), event(w, "real", false))
			time.Sleep(10 * time.Second)
			out, err := w.handler.Handle(w.timeout(15*time.Minute), event(w, "rehearsal", true))
			if err != nil || out.Result != spot.Skipped {
				t.Errorf("%s, %v", out.Result, err)
			}
			cordonedFor(w, "real")
			time.Sleep(3 * time.Minute)
		})
	})
}

// TestPendingMember: an instance that is still joining its group is detached when it is InService.
func TestPendingMember(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.SetLifecycle(instance, "Pending:Wait")
		time.AfterFunc(5*time.Second, func() { w.aws.SetLifecycle(instance, "InService") })
		w.pod("web-1", func(p *spottest.Pod) { p.Exit = 20 * time.Second })
		if out := w.handle(spot.Drained); out.Replacement.Action != spot.ReplaceDetach {
			t.Errorf("%+v", out.Replacement)
		}
	})
}

// TestNewInstance: EC2 does not know a new instance at first, and its node has another name.
func TestNewInstance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.renameNode("ip-10-0-1-2.ec2.internal")
		w.aws.Fail("DescribeInstances", 1, spottest.Answer(spottest.AWSError{Code: "InvalidInstanceID.NotFound", Message: "x",
			HTTPStatus: 400, Means: spot.ErrNotFound}))
		w.handle(spot.Drained)
	})
}

// TestManyInterruptions: what does not grow with the number of interrupted nodes and clusters.
func TestManyInterruptions(t *testing.T) {
	t.Run("no list after throttling", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.renameNode("ip-10-0-1-2.ec2.internal")
			w.aws.Fail("DescribeInstances", 1, spottest.Throttled())
			w.handle(spot.Drained)
			if n := w.cluster.Count("list", "nodes"); n != 0 {
				t.Errorf("%d lists of nodes", n)
			}
		})
	})
	t.Run("one list without EC2", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.renameNode("ip-10-0-1-2.ec2.internal")
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
			out := w.handle(spot.Drained)
			if n := w.cluster.Count("list", "nodes"); n != 1 || *out.Timings.Located < 10 || *out.Timings.Located > 35 {
				t.Errorf("%d lists of nodes, located after %v s", n, *out.Timings.Located)
			}
		})
	})
	t.Run("few lists while a node registers", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.RemoveNode(instance)
			w.handle(spot.NodeNotFound)
			if n := w.cluster.Count("list", "nodes"); n < 2 || n > 25 {
				t.Errorf("%d lists of nodes", n)
			}
		})
	})
	t.Run("another cluster's instances", func(t *testing.T) {
		inWorld(t, func(w *world) {
			const other = "i-0cccccccccccccccc"
			w.aws.AddGroup(spottest.Group{Name: "nodes.other.example.com", Desired: 1, Max: 1,
				Tags: map[string]string{spot.TagCluster: "other.example.com"}}, spottest.Instance{ID: other, Spot: true})
			w.aws.Delay(spottest.AnyOperation, 50*time.Millisecond)
			in := w.warning(spot.SpotTerminate)
			in.Instance = other
			for range 1000 {
				in.Time = time.Now()
				began := time.Now()
				w.handleEvent(in, spot.OtherCluster)
				if d := time.Since(began); d > 300*time.Millisecond {
					t.Fatalf("took %s", d)
				}
			}
			if n := len(w.aws.Calls("DescribeInstances")); n != 1000 || len(w.aws.Calls()) != n {
				t.Errorf("%d DescribeInstances of %d calls, want 1000", n, len(w.aws.Calls()))
			}
		})
	})
}

// TestLifecycleOutages: heartbeats start before anything is known, and EC2 is not needed.
func TestLifecycleOutages(t *testing.T) {
	t.Run("API server down for longer than the heartbeat", func(t *testing.T) {
		withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
			w.pod("web-1", onLeaving)
			time.AfterFunc(6*time.Minute, w.cluster.Disturb(spottest.Disturbance{Err: errReset}))
			w.handleEvent(in, spot.Drained)
			if n := len(w.aws.Calls("RecordLifecycleActionHeartbeat")); n < 2 {
				t.Errorf("%d heartbeats", n)
			}
		})
	})
	t.Run("EC2 down", func(t *testing.T) {
		withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
			w.pod("web-1", onLeaving)
			w.aws.Fail("DescribeInstances", -1, spottest.Unreachable())
			if out := w.handleEvent(in, spot.Drained); *out.Timings.Cordoned > 5 {
				t.Errorf("cordoned after %v s", *out.Timings.Cordoned)
			}
		})
	})
	for _, heartbeat := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute} {
		t.Run("a heartbeat of "+heartbeat.String()+" forces nothing", func(t *testing.T) {
			withHook(t, heartbeat, func(w *world, in spot.Interruption) {
				w.pod("db-0", onLeaving, func(p *spottest.Pod) { p.GracePeriod = 60 * time.Second })
				w.budget("db", 1)
				time.AfterFunc(90*time.Second, func() { w.cluster.RemoveBudget("db") })
				w.wantStatus(w.handleEvent(in, spot.Drained), "db-0", spot.PodEvicted)
			})
		})
	}
}

// deletedMeanwhile lets somebody else delete the pod just before its condition is set.
type deletedMeanwhile struct{ *spottest.Cluster }

func (c deletedMeanwhile) Disrupt(ctx context.Context, p spot.Pod) (spot.Pod, error) {
	if err := c.Cluster.Delete(ctx, p, p.GracePeriod, false); err != nil {
		return p, err
	}
	return c.Cluster.Disrupt(ctx, p)
}

// TestDeletedBeforeForceDelete: inWorld checks that the force deletion does not shorten the other grace period.
func TestDeletedBeforeForceDelete(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cluster = deletedMeanwhile{w.cluster}
		w.pod("db-0", grace(2*time.Minute), notRecreated)
		w.budget("db", 1)
		w.handle(spot.Drained)
		if n := w.cluster.Count("delete", "pods"); n != 1 {
			w.Errorf("got %d deletions, want the other one", n)
		}
	})
}

// TestUncordoned: somebody uncordons the node during the drain.
func TestUncordoned(t *testing.T) {
	uncordon := func(w *world) {
		w.cluster.WriteNode(instance, func(n *spot.Node) { n.Unschedulable, n.Taints = false, nil })
	}
	slow := func(w *world) { w.pod("slow-1", grace(110*time.Second), exit(100*time.Second)) }
	cordons := func(w *world) int { return w.cluster.Count("patch", "nodes") }
	subtest(t, "once", func(w *world) {
		slow(w)
		time.AfterFunc(10*time.Second, func() { uncordon(w) })
		time.AfterFunc(11*time.Second, func() {
			if !w.node().Unschedulable {
				w.Error("not cordoned again within a second")
			}
		})
		out := w.handle(spot.Drained)
		if !w.node().Unschedulable || cordons(w) != 2 || len(out.Problems) != 1 {
			w.Errorf("got %d cordons, problems %q", cordons(w), out.Problems)
		}
	})
	subtest(t, "again and again", func(w *world) {
		slow(w)
		for s := 10; s < 90; s++ {
			time.AfterFunc(time.Duration(s)*time.Second, func() { uncordon(w) })
		}
		if out := w.handle(spot.Drained); !strings.Contains(strings.Join(out.Problems, "\n"), "5 times") {
			w.Errorf("got problems %q, want 5 more cordons", out.Problems)
		}
		var last time.Time
		for _, r := range w.cluster.Requests() {
			if r.Verb != "patch" || r.Resource != "nodes" || r.Err != nil {
				continue
			}
			if pause := r.Asked.Sub(last); !last.IsZero() && pause < 5*time.Second {
				w.Errorf("cordoned again after %s, want a pause of 5 s", pause)
			}
			last = r.Asked
		}
	})
	subtest(t, "by kops-spot restore", func(w *world) {
		slow(w)
		time.AfterFunc(10*time.Second, func() { w.cluster.WriteNode(instance, func(n *spot.Node) { *n = spot.Restore(*n) }) })
		if w.handle(spot.Drained); w.node().Unschedulable {
			w.Error("got the node cordoned again")
		}
	})
	subtest(t, "after a recommendation", func(w *world) {
		w.handler.Policy.Rebalance = spot.RespondDrain
		slow(w)
		time.AfterFunc(10*time.Second, func() { uncordon(w) })
		if w.handleEvent(w.warning(spot.Rebalance), spot.Drained); w.node().Unschedulable {
			w.Error("got the node cordoned again")
		}
	})
}

// TestDeadKubelet: a lifecycle action does not wait for pods that nothing stops any more.
func TestDeadKubelet(t *testing.T) {
	for name, c := range map[string]struct {
		notReady time.Duration // after the event
		want     spot.Seconds
	}{"before the event": {-time.Second, 30}, "during the drain": {50 * time.Second, 50}} {
		t.Run(name, func(t *testing.T) {
			withHook(t, 5*time.Minute, func(w *world, in spot.Interruption) {
				w.pod("web-1", onLeaving)
				w.cluster.PowerOff(leaving)
				notReady := func() { w.cluster.WriteNode(leaving, func(n *spot.Node) { n.NotReady = true }) }
				if c.notReady < 0 {
					notReady()
				} else {
					time.AfterFunc(c.notReady, notReady)
				}
				out := w.handleEvent(in, spot.Incomplete)
				if at := *out.Timings.Finished; at < c.want || at > c.want+10 || out.Lifecycle.Completed == nil {
					w.Errorf("got finished after %v s, %+v; want a completed action after %v s", at, out.Lifecycle, c.want)
				}
			})
		})
	}
}

// TestClosedWatches: a server that closes every watch does not keep the invocation at work after the node is empty.
func TestClosedWatches(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.handler.Cluster = &closedWatches{Cluster: w.cluster, after: 300 * time.Millisecond}
		if out := w.handle(spot.Drained); *out.Timings.Finished > 15 {
			w.Errorf("finished after %v s", *out.Timings.Finished)
		}
	})
}
