package handler_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func (w *world) changed(state string) spot.Interruption {
	return spot.Interruption{EventID: "e5", Kind: spot.StateChange, State: state, Instance: instance, Region: "us-east-1", Time: time.Now().UTC().Truncate(time.Second)}
}

// lose ends the instance and its machine, and returns a StatefulSet's pod with a volume that was left on it.
func (w *world) lose(state string) spot.Pod {
	p := w.pod("db-0", func(p *spottest.Pod) {
		p.Owner.Kind, p.Volumes, p.Volume = "StatefulSet", true, "data-db-0"
	})
	w.pod("logs-1", daemon)
	w.cluster.WriteNode(instance, func(n *spot.Node) {
		n.Labels = maps.Clone(n.Labels)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels["node-role.kubernetes.io/spot-worker"] = "true"
	})
	time.Sleep(time.Second)
	w.cluster.PowerOff(instance)
	w.aws.SetState(instance, state)
	return p
}

// TestWhatAMachineLeavesIsGivenFree: the pod runs elsewhere with its volume, once, and the node is gone.
func TestWhatAMachineLeavesIsGivenFree(t *testing.T) {
	inWorld(t, func(w *world) {
		old := w.lose("terminated")
		out := w.handleEvent(w.changed("terminated"), spot.CleanedUp)
		r := out.Cleanup
		if r == nil || r.Tainted == nil || r.PodsDeleted == nil || r.VolumesDetached == nil || r.NodeDeleted == nil {
			t.Fatalf("%+v", r)
		}
		if *r.Tainted > *r.PodsDeleted || *r.PodsDeleted > *r.VolumesDetached || *r.VolumesDetached > *r.NodeDeleted {
			t.Errorf("the order is wrong: %s", told(out))
		}
		if p := podResult(t, out, "db-0"); p.Status != spot.PodDeleted {
			t.Errorf("%+v", p)
		}
		time.Sleep(time.Minute) // for whoever would still delete by name
		p, ok := w.cluster.Pod("default/db-0")
		if !ok || p.UID == old.UID || p.Terminating || p.Pending {
			t.Errorf("its successor is %+v, %v", p, ok)
		}
		if n := w.cluster.Successors("default/db-0"); n != 1 {
			t.Errorf("it had %d successors", n)
		}
		if _, ok := w.cluster.Node(instance); ok {
			t.Error("the node is still there")
		}
	})
}

// TestAPodThatWasEndingWhenItsMachineDied costs its successor nothing: the taint-eviction controller deletes it by name
// all the same.
func TestAPodThatWasEndingWhenItsMachineDied(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.pod("db-0", func(p *spottest.Pod) {
			p.Owner.Kind, p.Volumes, p.Volume, p.Exit, p.GracePeriod = "StatefulSet", true, "data-db-0", time.Hour, 2*time.Hour
		})
		if err := w.cluster.Evict(w.Context(), p, 2*time.Hour, false); err != nil {
			t.Fatal(err)
		}
		told := len(w.cluster.Terminations())
		w.cluster.WriteNode(instance, func(n *spot.Node) { n.Labels = map[string]string{"node-role.kubernetes.io/spot-worker": "true"} })
		w.cluster.PowerOff(instance)
		w.aws.SetState(instance, "terminated")
		w.handleEvent(w.changed("terminated"), spot.CleanedUp)
		time.Sleep(time.Minute)
		if now, ok := w.cluster.Pod("default/db-0"); !ok || now.UID == p.UID || now.Terminating {
			t.Errorf("its successor is %+v, %v", now, ok)
		}
		if n := len(w.cluster.Terminations()); n != told {
			t.Errorf("the successor was told to end: %+v", w.cluster.Terminations())
		}
		if n := w.cluster.Successors("default/db-0"); n != 1 {
			t.Errorf("it had %d successors", n)
		}
	})
}

// TestAStoppedInstanceKeepsItsNode, which is clean when it returns.
func TestAStoppedInstanceKeepsItsNode(t *testing.T) {
	inWorld(t, func(w *world) {
		before, _ := w.cluster.Node(instance)
		w.handleEvent(w.warning(spot.SpotStop), spot.Drained)
		w.lose("stopped")
		out := w.handleEvent(w.changed("stopped"), spot.CleanedUp)
		n, ok := w.cluster.Node(instance)
		if !ok || out.Cleanup.NodeDeleted != nil {
			t.Fatal("the node of a stopped instance was deleted")
		}
		if !hasTaint(n, "node.kubernetes.io/out-of-service") {
			t.Errorf("it is not marked: %+v", n.Taints)
		}
		if _, ok := w.cluster.Pod("default/logs-1"); !ok {
			t.Error("a DaemonSet's pod was deleted from a node that may return")
		}
		w.aws.StartInstance(instance)
		time.Sleep(20 * time.Second)
		w.cluster.PowerOn(instance)
		w.handleEvent(w.changed("running"), spot.Recovered)
		after, _ := w.cluster.Node(instance)
		before.Version, after.Version = "", ""
		delete(after.Labels, "node-role.kubernetes.io/spot-worker")
		if fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("it returned as %+v, was %+v", after, before)
		}
	})
}

// TestStatesThatReleaseNothing change nothing, whatever the event says.
func TestStatesThatReleaseNothing(t *testing.T) {
	for _, c := range []struct{ event, state string }{
		{"stopping", "stopping"}, {"shutting-down", "shutting-down"},
		{"terminated", "running"}, {"stopped", "running"}, {"stopped", "stopped"}, {"running", "running"},
	} {
		t.Run(c.event+" of one that is "+c.state, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				w.aws.SetState(instance, c.state)
				w.handleEvent(w.changed(c.event), spot.Ignored)
				w.wrote(0, 0)
				if c.event == "running" { // as every new instance is, before its node registers
					w.cluster.RemoveNode(instance)
					w.handleEvent(w.changed(c.event), spot.Ignored)
					if n := w.cluster.Count("list", "nodes"); n != 0 {
						t.Errorf("%d lists of nodes", n)
					}
				}
			})
		})
	}
}

// TestEC2IsAskedUntilItIsCertain: it may describe an instance as it was for a while.
func TestEC2IsAskedUntilItIsCertain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lose("shutting-down")
		time.AfterFunc(30*time.Second, func() { w.aws.SetState(instance, "terminated") })
		out := w.handleEvent(w.changed("terminated"), spot.CleanedUp)
		if at := *out.Cleanup.Tainted; at < 29 {
			t.Errorf("the node was marked %v s after the event, before the end was certain", at)
		}
	})
}

// TestAWarnedMachineThatStillRunsKeepsItsMarks: "running" may be told late, of its beginning.
func TestAWarnedMachineThatStillRunsKeepsItsMarks(t *testing.T) {
	inWorld(t, func(w *world) {
		running := w.changed("running")
		time.Sleep(3 * time.Second)
		w.event = time.Now().UTC().Truncate(time.Second)
		w.handleEvent(w.warning(spot.SpotStop), spot.Drained)
		w.handleEvent(running, spot.Ignored)
		if n, _ := w.cluster.Node(instance); !n.Unschedulable {
			t.Error("the marks of a warning are gone")
		}
	})
}

// TestVolumesThatStayKeepTheNode: deleted first, it would make them wait for minutes.
func TestVolumesThatStayKeepTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lose("terminated")
		w.cluster.Disturb(spottest.Disturbance{Resource: "volumeattachments", Err: errors.New("EOF")})
		out := w.handleEvent(w.changed("terminated"), spot.CleanedUp)
		if out.Cleanup.NodeDeleted != nil || len(out.Problems) == 0 {
			t.Errorf("%+v, %q", out.Cleanup, out.Problems)
		}
		if _, ok := w.cluster.Node(instance); !ok {
			t.Error("the node was deleted")
		}
	})
}

// TestPodsThatAreNotKnownKeepTheNode, and are not told as free.
func TestPodsThatAreNotKnownKeepTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lose("terminated")
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods", Err: errors.New("EOF")})
		out := w.handleEvent(w.changed("terminated"), spot.CleanedUp)
		if out.Cleanup.PodsDeleted != nil || out.Cleanup.NodeDeleted != nil || len(out.Problems) == 0 {
			t.Errorf("%+v, %q", out.Cleanup, out.Problems)
		}
		if _, ok := w.cluster.Node(instance); !ok {
			t.Error("the node was deleted")
		}
	})
}

// TestAnAftermathThatCanDoNothingIsAnError, so that it is tried again.
func TestAnAftermathThatCanDoNothingIsAnError(t *testing.T) {
	for name, harm := range map[string]func(w *world){
		"EC2 cannot be asked": func(w *world) { w.aws.Fail("DescribeInstances", 1000, spottest.Throttled()) },
		"the cluster cannot be asked": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Resource: "nodes", Err: spot.Permanent(errors.New("403"))})
		},
		"the node cannot be marked": func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "patch", Resource: "nodes", Err: spot.Permanent(errors.New("403"))})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.lose("terminated")
				harm(w)
				if out, err := w.handler.Handle(w.Context(), w.changed("terminated")); err == nil {
					t.Errorf("no error: %s", told(out))
				}
			})
		})
	}
}

// TestForeignStateChanges are told apart without a list of nodes.
func TestForeignStateChanges(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.AddInstance(spottest.Instance{ID: "i-0fffffffffffffff1", State: "terminated", Tags: map[string]string{spot.TagCluster: "other.example.com"}})
		in := w.changed("terminated")
		in.Instance = "i-0fffffffffffffff1"
		w.handleEvent(in, spot.OtherCluster)
		w.wrote(0, 0)
		if n := w.cluster.Count("list", "nodes"); n != 0 {
			t.Errorf("%d lists of nodes", n)
		}
	})
}

// TestPreviewOfAnAftermath says what would be given free, and changes nothing.
func TestPreviewOfAnAftermath(t *testing.T) {
	for _, c := range []struct {
		event, state string
		want         spot.Result
		because      string
	}{
		{"terminated", "terminated", spot.Planned, "delete the node and its pods"},
		{"stopped", "stopped", spot.Ignored, "without a warning"},
		{"terminated", "shutting-down", spot.Ignored, "is shutting-down"},
		{"stopping", "stopping", spot.Ignored, "is stopping"},
		{"running", "running", spot.Ignored, "no node to uncordon"},
	} {
		t.Run(c.event+" of one that is "+c.state, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.lose(c.state)
				out, err := w.handler.Preview(w.Context(), w.changed(c.event))
				if err != nil || out.Result != c.want || !strings.Contains(out.Reason, c.because) {
					t.Errorf("%v: %s", err, told(out))
				}
				w.wrote(0, 0)
			})
		})
	}
}
