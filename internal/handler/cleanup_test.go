package handler_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

const spotWorker = "node-role.kubernetes.io/spot-worker"

func (w *world) stateChange(state string) spot.Interruption {
	return spot.Interruption{EventID: "e5", Kind: spot.StateChange, State: state, Instance: instance, Region: "us-east-1",
		Time: time.Now().UTC().Truncate(time.Second)}
}

func statefulSet(p *spottest.Pod) {
	p.Owner.Kind, p.Volumes, p.Volume = "StatefulSet", true, "data-db-0"
}

// powerOff stops the instance of a Spot node.
func (w *world) powerOff(state string) {
	w.cluster.WriteNode(instance, func(n *spot.Node) {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[spotWorker] = "true"
	})
	time.Sleep(time.Second)
	w.cluster.PowerOff(instance)
	w.aws.SetState(instance, state)
}

// powerOffWithPods is powerOff with a pod of a StatefulSet, which it returns, and one of a DaemonSet on the node.
func (w *world) powerOffWithPods(state string) spot.Pod {
	p := w.pod("db-0", statefulSet)
	w.pod("logs-1", daemonSet)
	w.powerOff(state)
	return p
}

// wantSuccessor checks that db-0 was recreated once and keeps running.
func (w *world) wantSuccessor(old spot.Pod) {
	w.Helper()
	time.Sleep(time.Minute) // for the controllers that delete pods by name
	p, ok := w.cluster.Pod("default/db-0")
	if !ok || p.UID == old.UID || p.Terminating || p.Pending {
		w.Errorf("got pod %+v, %v; want a running successor", p, ok)
	}
	if got := w.cluster.Successors("default/db-0"); got != 1 {
		w.Errorf("got %d successors, want 1", got)
	}
}

func TestCleanup(t *testing.T) {
	inWorld(t, func(w *world) {
		old := w.powerOffWithPods("terminated")
		out := w.handleEvent(w.stateChange("terminated"), spot.CleanedUp)
		r := out.Cleanup
		if r == nil || r.Tainted == nil || r.PodsDeleted == nil || r.VolumesDetached == nil || r.NodeDeleted == nil {
			w.Fatalf("got %+v, want all steps", r)
		}
		if *r.Tainted > *r.PodsDeleted || *r.PodsDeleted > *r.VolumesDetached || *r.VolumesDetached > *r.NodeDeleted {
			w.Errorf("got %s, want the steps in order", toJSON(out))
		}
		w.wantStatus(out, "db-0", spot.PodDeleted)
		w.wantSuccessor(old)
		if n, ok := w.cluster.Node(instance); ok {
			w.Errorf("got node %+v, want none", n)
		}
	})
}

// TestCleanupTerminatingPod cleans up a pod that was terminating when its instance stopped.
func TestCleanupTerminatingPod(t *testing.T) {
	inWorld(t, func(w *world) {
		old := w.pod("db-0", statefulSet, exit(time.Hour), grace(2*time.Hour))
		if err := w.cluster.Evict(w.Context(), old, 2*time.Hour, false); err != nil {
			w.Fatal(err)
		}
		want := len(w.cluster.Terminations())
		w.powerOff("terminated")
		w.handleEvent(w.stateChange("terminated"), spot.CleanedUp)
		w.wantSuccessor(old)
		if got := w.cluster.Terminations(); len(got) != want {
			w.Errorf("got terminations %+v, want %d", got, want)
		}
	})
}

func TestStoppedInstance(t *testing.T) {
	inWorld(t, func(w *world) {
		before := w.node()
		w.handleEvent(w.warning(spot.SpotStop), spot.Drained)
		w.powerOffWithPods("stopped")
		out := w.handleEvent(w.stateChange("stopped"), spot.CleanedUp)
		n, ok := w.cluster.Node(instance)
		if !ok || out.Cleanup.NodeDeleted != nil {
			w.Fatal("got the node deleted")
		}
		taint := spot.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: "NoExecute"}
		if !slices.Contains(n.Taints, taint) {
			w.Errorf("got taints %+v, want %+v", n.Taints, taint)
		}
		if _, ok := w.cluster.Pod("default/logs-1"); !ok {
			w.Error("got the pod of the DaemonSet deleted")
		}
		w.aws.StartInstance(instance)
		time.Sleep(20 * time.Second)
		w.cluster.PowerOn(instance)
		w.handleEvent(w.stateChange("running"), spot.Recovered)
		after := w.node()
		delete(after.Labels, spotWorker)
		if !sameNode(after, before) {
			w.Errorf("got %+v, want %+v", after, before)
		}
	})
}

// TestIgnoredStates checks that nothing is cleaned up unless the instance has stopped, whatever the event says.
func TestIgnoredStates(t *testing.T) {
	for _, c := range []struct{ event, state string }{
		{"stopping", "stopping"}, {"shutting-down", "shutting-down"},
		{"terminated", "running"}, {"stopped", "running"}, {"stopped", "stopped"}, {"running", "running"},
	} {
		subtest(t, c.event+" event, instance "+c.state, func(w *world) {
			w.pod("web-1")
			w.aws.SetState(instance, c.state)
			w.handleEvent(w.stateChange(c.event), spot.Ignored)
			w.wantWrites(0, 0)
			if c.event == "running" { // also before the node of a new instance registers
				w.cluster.RemoveNode(instance)
				w.handleEvent(w.stateChange(c.event), spot.Ignored)
				w.wantRequests("list", "nodes", 0)
			}
		})
	}
}

// TestStaleState checks that the clean-up waits until EC2 describes the new state, but holds no Lambda slot for it.
func TestStaleState(t *testing.T) {
	inWorld(t, func(w *world) {
		w.powerOffWithPods("shutting-down")
		time.AfterFunc(14*time.Second, func() { w.aws.SetState(instance, "terminated") }) // seen 5.25 s later at most
		if got := *w.handleEvent(w.stateChange("terminated"), spot.CleanedUp).Cleanup.Tainted; got < 13 {
			w.Errorf("got tainted after %vs, want at least 13s", got)
		}
	})
	inWorld(t, func(w *world) {
		w.powerOffWithPods("shutting-down")
		in, began := w.stateChange("terminated"), time.Now()
		w.wantError(w.Context(), in)
		if took := time.Since(began); took > 21*time.Second {
			w.Errorf("failed after %s, want 20s", took)
		}
		w.aws.SetState(instance, "terminated")
		time.Sleep(time.Minute)
		w.handleEvent(in, spot.CleanedUp)
	})
}

// TestLateRunningEvent handles the event of the instance's first start after a warning.
func TestLateRunningEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		running := w.stateChange("running")
		time.Sleep(3 * time.Second)
		w.newEvent()
		w.handleEvent(w.warning(spot.SpotStop), spot.Drained)
		w.handleEvent(running, spot.Ignored)
		if n := w.node(); !n.Unschedulable {
			w.Errorf("got %+v, want a cordoned node", n)
		}
	})
}

// TestCleanupKeepsNode checks that the node is not deleted before its pods and volumes: the volumes would stay attached
// for minutes.
func TestCleanupKeepsNode(t *testing.T) {
	for _, resource := range []string{"volumeattachments", "pods"} {
		subtest(t, resource, func(w *world) {
			w.powerOffWithPods("terminated")
			w.cluster.Disturb(spottest.Disturbance{Resource: resource, Err: errors.New("EOF")})
			out := w.handleEvent(w.stateChange("terminated"), spot.CleanedUp)
			r := out.Cleanup
			if r.NodeDeleted != nil || resource == "pods" && r.PodsDeleted != nil || len(out.Problems) == 0 {
				w.Errorf("got %s, want a problem and the node kept", toJSON(out))
			}
			if _, ok := w.cluster.Node(instance); !ok {
				w.Error("got the node deleted")
			}
		})
	}
}

// TestCleanupOfUnreadableNode checks that no pod is deleted if its node cannot be read after the taint, and that all are
// reported.
func TestCleanupOfUnreadableNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.powerOffWithPods("terminated")
		w.cluster.BeforeNodeWrite(func(string) {
			w.cluster.Disturb(spottest.Disturbance{Verb: "get", Resource: "nodes", Err: errRefused})
		})
		out := w.handleEvent(w.stateChange("terminated"), spot.CleanedUp)
		w.wantStatus(out, "db-0", spot.PodStillRunning)
		w.wantRequests("delete", "pods", 0)
		if got := strings.Join(out.Problems, "; "); !strings.Contains(got, "checking that the node exists") || strings.Contains(got, "listing the remaining") {
			w.Errorf("got problems %q", out.Problems)
		}
	})
}

func TestCleanupErrors(t *testing.T) {
	deny := func(w *world, verb string) {
		w.cluster.Disturb(spottest.Disturbance{Verb: verb, Resource: "nodes", Err: spot.Permanent(errors.New("403"))})
	}
	for name, disturb := range map[string]func(w *world){
		"EC2":        func(w *world) { w.aws.Fail("DescribeInstances", 1000, spottest.Throttled()) },
		"nodes":      func(w *world) { deny(w, "") },
		"patch node": func(w *world) { deny(w, "patch") },
	} {
		subtest(t, name, func(w *world) {
			w.powerOffWithPods("terminated")
			disturb(w)
			began := time.Now()
			w.wantError(w.Context(), w.stateChange("terminated"))
			if took := time.Since(began); took > 26*time.Second { // and one request that does not end
				w.Errorf("failed after %s, want 20s", took)
			}
		})
	}
}

func TestCleanupOtherCluster(t *testing.T) {
	inWorld(t, func(w *world) {
		in := w.stateChange("terminated")
		in.Instance = w.foreignInstance("terminated", map[string]string{spot.TagCluster: "other.example.com"})
		w.handleEvent(in, spot.OtherCluster)
		w.wantWrites(0, 0)
		w.wantRequests("list", "nodes", 0)
	})
}

// TestCleanupOfDeletedNode cleans up after the cloud controller has deleted the node.
func TestCleanupOfDeletedNode(t *testing.T) {
	remove := func(w *world) { w.cluster.RemoveNode(instance) }
	const replaced = "another node has the name"
	const anybody = "by the cloud controller or an earlier invocation"
	for name, c := range map[string]struct {
		change func(w *world)
		want   spot.Result
		reason string // of a clean-up that deletes nothing
	}{
		"deleted before the event": {remove, spot.CleanedUp, ""},
		"deleted before the taint": {func(w *world) {
			w.cluster.BeforeNodeWrite(func(string) { w.cluster.BeforeNodeWrite(nil); remove(w) })
		}, spot.CleanedUp, ""},
		"another name, deleted before the event": {func(w *world) {
			w.renameNode("ip-10-0-1-2.ec2.internal")
			w.cluster.RemoveNode("ip-10-0-1-2.ec2.internal")
			for _, p := range []string{"default/web-1", "default/web-2", "default/logs-1"} { // they are on the other name
				w.cluster.RemovePod(p)
			}
		}, spot.CleanedUp, anybody + ", and nothing is left under the name " + instance},
		"only pods of DaemonSets left": {func(w *world) {
			remove(w)
			for _, p := range []string{"default/web-1", "default/web-2"} {
				w.cluster.RemovePod(p)
			}
		}, spot.CleanedUp, anybody},
		"only stopped": {func(w *world) { w.aws.SetState(instance, "stopped"); remove(w) }, spot.Ignored, "no node"},
		"the name belongs to another node": {func(w *world) {
			remove(w)
			w.cluster.AddNode(newNode(instance, other))
		}, spot.CleanedUp, replaced},
		"the name belonged to another node": {func(w *world) {
			remove(w)
			w.cluster.AddNode(newNode(instance, other))
			w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Delay: 3 * time.Second})
			time.AfterFunc(2*time.Second, func() { remove(w) })
		}, spot.CleanedUp, replaced},
		"the name comes back": {func(w *world) {
			remove(w)
			w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Delay: 3 * time.Second})
			time.AfterFunc(2*time.Second, func() { w.cluster.AddNode(newNode(instance, other)) })
		}, spot.CleanedUp, replaced},
	} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			w.pod("logs-1", daemonSet)
			w.powerOff("terminated")
			in := w.stateChange("terminated")
			time.Sleep(time.Second)
			w.pod("web-2") // of another instance
			c.change(w)
			out := w.handleEvent(in, c.want)
			deletedBy, published := spot.DeletedByCloudController, "Finished"
			if strings.HasPrefix(c.reason, anybody) {
				deletedBy, published = "", ""
			}
			if r := out.Cleanup; c.want == spot.CleanedUp && (r.NodeDeletedBy != deletedBy || r.Tainted != nil || w.bus.names() != published) {
				w.Errorf("got %s, published %q; want the node deleted by %q, published %q", toJSON(out), w.bus.names(), deletedBy, published)
			}
			if c.reason != "" {
				w.wantRequests("delete", "pods", 0)
				if !strings.Contains(out.Reason, c.reason) {
					w.Errorf("got reason %q, want %q", out.Reason, c.reason)
				}
				if r, found := out.Cleanup, strings.HasPrefix(name, "only pods"); r != nil &&
					(r.PodsDeleted != nil != found || r.VolumesDetached != nil != found) {
					w.Errorf("got %s, want times only if something was found under the name", toJSON(out))
				}
				return
			}
			w.wantStatus(out, "web-1", spot.PodDeleted)
			if r := out.Cleanup; len(out.Pods) != 1 || r.PodsDeleted == nil || *r.PodsDeleted > 5 || r.VolumesDetached == nil {
				w.Errorf("got %s, want one pod deleted at once", toJSON(out))
			}
		})
	}
}

// TestRepeatedEvent cleans up again after an earlier invocation: people are notified once, and the cloud controller is
// not said to have deleted the node.
func TestRepeatedEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.powerOffWithPods("terminated")
		in := w.stateChange("terminated")
		for _, want := range []spot.NodeDeletedBy{spot.DeletedByKopsSpot, "", ""} {
			out := w.handleEvent(in, spot.CleanedUp)
			if out.Cleanup.NodeDeletedBy != want || w.bus.names() != "Finished" {
				w.Errorf("got %s, published %q; want the node deleted by %q, published once", toJSON(out), w.bus.names(), want)
			}
		}
	})
}

// TestNodeDeletedBeforeTaint covers nodes that are cleaned up because of their annotations, and that the cloud controller
// deletes just before the taint.
func TestNodeDeletedBeforeTaint(t *testing.T) {
	const id = leaving
	for name, c := range map[string]struct {
		instance *spottest.Instance // as EC2 has it
		deleted  bool               // the pods of an instance that does not come back
	}{
		"on demand":      {&spottest.Instance{State: "terminated"}, true},
		"unknown to EC2": {nil, true},
		"stopped":        {&spottest.Instance{State: "stopped", Spot: true}, false},
	} {
		subtest(t, name, func(w *world) {
			n := newNode(id, id)
			n.Annotations = map[string]string{"kops-spot.cast.ai/applied": "cordon", "kops-spot.cast.ai/kind": string(spot.SpotStop)}
			w.cluster.AddNode(n)
			w.pod("web-1", onLeaving)
			w.cluster.PowerOff(id)
			in := w.stateChange("terminated")
			in.Instance = id
			if i := c.instance; i != nil {
				i.ID, i.Tags, in.State = id, map[string]string{spot.TagCluster: cluster}, i.State
				w.aws.AddInstance(*i)
			}
			time.Sleep(time.Second)
			in.Time = time.Now().UTC()
			w.cluster.BeforeNodeWrite(func(string) { w.cluster.BeforeNodeWrite(nil); w.cluster.RemoveNode(id) })
			out := w.handleEvent(in, spot.CleanedUp)
			if r := out.Cleanup; r.NodeDeletedBy != spot.DeletedByCloudController || out.Node != id || w.bus.names() != "Finished" {
				w.Errorf("got %s, want the node deleted by the cloud controller", toJSON(out))
			}
			if c.deleted {
				w.wantStatus(out, "web-1", spot.PodDeleted)
			} else if w.wantRequests("delete", "pods", 0); len(out.Pods) > 0 {
				w.Errorf("got %s, want the pods left alone", toJSON(out))
			}
		})
	}
}

// moments are the times at which a clean-up of about a second is disturbed.
func moments(t *testing.T, name string, test func(w *world, in spot.Interruption, after func(func()))) {
	const step, end = 20 * time.Millisecond, 1500 * time.Millisecond
	for at := time.Duration(0); at < end; at += step {
		subtest(t, name+" after "+at.String(), func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Delay: 30 * time.Millisecond}) // of each request
			test(w, w.stateChange("terminated"), func(do func()) { time.AfterFunc(at, do) })
		})
	}
}

// TestNodeDeletedDuringCleanup lets the cloud controller delete the node at any moment of the clean-up.
func TestNodeDeletedDuringCleanup(t *testing.T) {
	first := map[spot.NodeDeletedBy]int{}
	waiting := 0
	moments(t, "deleted", func(w *world, in spot.Interruption, after func(func())) {
		old := w.powerOffWithPods("terminated")
		in.Time = time.Now().UTC()
		want := spot.DeletedByKopsSpot
		after(func() {
			if _, ok := w.cluster.Node(instance); ok {
				w.cluster.RemoveNode(instance)
				want = spot.DeletedByCloudController
			}
		})
		out := w.handleEvent(in, spot.CleanedUp)
		synctest.Wait() // the race detector knows no other order
		r := out.Cleanup
		if first[want]++; r.NodeDeletedBy != want {
			w.Errorf("got %s, want the node deleted by %s", toJSON(out), want)
		}
		if len(out.Pods) > 0 {
			w.wantStatus(out, "db-0", spot.PodDeleted)
		}
		if p, ok := w.cluster.Pod("default/db-0"); r.PodsDeleted == nil || ok && p.UID == old.UID {
			w.Errorf("got %s, want the pod deleted", toJSON(out))
		}
		if r.NodeDeletedBy == spot.DeletedByKopsSpot != (r.NodeDeleted != nil) {
			w.Errorf("got %s, want a time if kops-spot deleted the node", toJSON(out))
		}
		if late := len(out.AttachedVolumes) > 0; late != (r.VolumesDetached == nil) ||
			late != strings.Contains(strings.Join(out.Problems, "; "), "six minutes") {
			w.Errorf("got %s, want the attached volumes reported", toJSON(out))
		} else if late {
			waiting++
		}
	})
	if len(first) != 2 || waiting == 0 {
		t.Errorf("got nodes deleted by %v, %d times with volumes; want each", first, waiting)
	}
}

// TestNodeReplacedDuringCleanup gives the node's name to another instance at any moment of the clean-up.
func TestNodeReplacedDuringCleanup(t *testing.T) {
	for _, name := range []string{instance, "ip-10-0-1-2.ec2.internal"} {
		moments(t, name+" replaced", func(w *world, in spot.Interruption, after func(func())) {
			w.cluster.RemoveNode(instance)
			n := newNode(name, instance)
			n.Labels = map[string]string{spotWorker: "true"}
			w.cluster.AddNode(n)
			on := func(p *spottest.Pod) { p.Node = name }
			w.pod("db-0", statefulSet, on)
			w.cluster.PowerOff(name)
			w.aws.SetState(instance, "terminated")
			time.Sleep(time.Second)
			in.Time = time.Now().UTC()
			var added spot.Node
			var pods []spot.Pod
			after(func() {
				if _, ok := w.cluster.Node(name); ok {
					w.cluster.RemoveNode(name)
				}
				added = w.cluster.AddNode(newNode(name, other))
				volume := func(p *spottest.Pod) { p.Volume = "data-api-0" }
				pods = append(pods, w.pod("api-1", on), w.pod("api-0", on, statefulSet, volume))
			})
			out := w.handleEvent(in, spot.CleanedUp)
			time.Sleep(2 * time.Second)
			synctest.Wait() // as above
			if now, _ := w.cluster.Node(name); now.UID != added.UID || len(now.Taints) > 0 || now.Unschedulable {
				w.Errorf("got %+v, want the new node untouched", now)
			}
			for _, p := range pods {
				if now, ok := w.cluster.Pod("default/" + p.Name); !ok || now.UID != p.UID || now.Terminating {
					w.Errorf("got pod %+v, %v; want it untouched", now, ok)
				}
			}
			if strings.Contains(strings.Join(append(out.Problems, out.AttachedVolumes...), " "), "api-0") {
				w.Errorf("got %s, want nothing of the new instance", toJSON(out))
			}
		})
	}
}

// TestDeletedNodeWithAddress leaves the pods of a deleted node to Kubernetes if another instance may reuse its name.
func TestDeletedNodeWithAddress(t *testing.T) {
	const name = "ip-10-0-1-2.ec2.internal"
	inWorld(t, func(w *world) {
		w.renameNode(name)
		p := w.pod("web-1", func(p *spottest.Pod) { p.Node = name })
		w.cluster.WriteNode(name, func(n *spot.Node) { n.Labels = map[string]string{spotWorker: "true"} })
		w.cluster.PowerOff(name)
		w.aws.SetState(instance, "terminated")
		time.Sleep(time.Second)
		w.cluster.BeforeNodeWrite(func(string) { w.cluster.BeforeNodeWrite(nil); w.cluster.RemoveNode(name) })
		out := w.handleEvent(w.stateChange("terminated"), spot.CleanedUp)
		w.wantStatus(out, "web-1", spot.PodSkipped)
		w.wantRequests("delete", "pods", 0)
		if r := out.Cleanup; r.PodsDeleted != nil || r.NodeDeletedBy != spot.DeletedByCloudController || out.Node != name {
			w.Errorf("got %s, want the pods left", toJSON(out))
		}
		time.Sleep(2 * time.Minute)
		if now, ok := w.cluster.Pod("default/web-1"); ok && now.UID == p.UID {
			w.Errorf("got %+v, want it collected", now)
		}
	})
}

// TestStoppedInstanceWithoutNode leaves the pods of a stopped instance alone if its node disappears: it may start
// again.
func TestStoppedInstanceWithoutNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handleEvent(w.warning(spot.SpotStop), spot.Drained)
		w.powerOffWithPods("stopped")
		w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Delay: 2 * time.Second})
		time.AfterFunc(time.Second, func() { w.cluster.RemoveNode(instance) })
		out := w.handleEvent(w.stateChange("stopped"), spot.CleanedUp)
		w.wantStatus(out, "db-0", spot.PodSkipped)
		w.wantRequests("delete", "pods", 0)
	})
}

func TestCleanupPreview(t *testing.T) {
	for _, c := range []struct {
		event, state string
		want         spot.Result
		reason       string
	}{
		{"terminated", "terminated", spot.Planned, "delete the node and its pods"},
		{"stopped", "stopped", spot.Ignored, "without a warning"},
		{"terminated", "shutting-down", spot.Ignored, "is shutting-down"},
		{"stopping", "stopping", spot.Ignored, "is stopping"},
		{"running", "running", spot.Ignored, "no node to uncordon"},
	} {
		subtest(t, c.event+" event, instance "+c.state, func(w *world) {
			w.powerOffWithPods(c.state)
			out, err := w.handler.Preview(w.Context(), w.stateChange(c.event))
			if err != nil || out.Result != c.want || !strings.Contains(out.Reason, c.reason) {
				w.Errorf("got %s, %q, %v; want %s, %q", out.Result, out.Reason, err, c.want, c.reason)
			}
			w.wantWrites(0, 0)
		})
	}
}
