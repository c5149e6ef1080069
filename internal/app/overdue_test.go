package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// warn has the handler see to a warning that EC2 never makes true, and waits until its instance is overdue.
func (w *checkWorld) warn() {
	w.Helper()
	h := spot.Handler{Cluster: w.cluster, Cloud: w.aws.Cloud(), Policy: w.checker.cfg.Policy}
	ctx, cancel := context.WithTimeout(w.Context(), 15*time.Minute)
	defer cancel()
	out, err := h.Handle(ctx, spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Region: "us-east-1", Time: time.Now()})
	if err != nil || out.Result != spot.Emptied || out.Replacement.At == nil {
		w.Fatalf("the warning: %+v, %v", out, err)
	}
	time.Sleep(18 * time.Minute)
}

// overdue demands that the warned instance is the only one overdue, and returns what is told of it.
func (w *checkWorld) overdue() spot.OverdueTold {
	w.Helper()
	told := w.run(Ready)
	if len(told.Overdue) != 1 || told.Overdue[0].Instance != warned || told.Overdue[0].Node != warned {
		w.Fatalf("overdue are %+v", told.Overdue)
	}
	return told.Overdue[0]
}

// ended demands that nothing but this was ended.
func (w *checkWorld) ended(want bool) {
	w.Helper()
	calls := w.aws.Calls("TerminateInstances")
	if i, _ := w.aws.Instance(warned); len(calls) > 0 != want || (i.State == "shutting-down") != want {
		w.Errorf("it is %s after %v", i.State, calls)
	}
}

// TestOverdueIsTold, and no more, unless it is asked for.
func TestOverdueIsTold(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		deadline := time.Now().Add(2 * time.Minute)
		w.warn()
		told := w.overdue()
		if told.Ended || told.Kept != "KOPS_SPOT_END_LEFTOVERS is never" || !told.Since.Equal(deadline) {
			w.Errorf("it says %+v", told)
		}
		w.ended(false)
		if m := w.run(Ready).metrics(); m[1].Name != "Overdue" || m[1].value != 1 {
			w.Errorf("metrics: %v", m)
		}
	})
}

// TestOverdueIsEnded where that is asked for, once.
func TestOverdueIsEnded(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.checker.cfg.EndLeftovers = true
		w.cluster.AddPod(sim.Pod{Node: warned, Pod: spot.Pod{Namespace: "kube-system", Name: "logs", Owner: spot.Owner{Kind: "DaemonSet", Name: "logs"}}})
		w.warn()
		if told := w.overdue(); !told.Ended || told.Kept != "" {
			w.Errorf("it says %+v", told)
		}
		w.ended(true)
		if told := w.run(Ready); len(told.Overdue) != 0 {
			w.Errorf("it is overdue still: %+v", told.Overdue)
		}
		if n := len(w.aws.Calls("TerminateInstances")); n != 1 {
			w.Errorf("it was ended %d times", n)
		}
		if !strings.Contains(w.logged.String(), warned) {
			w.Errorf("the log does not say so: %s", w.logged)
		}
	})
}

// TestOverdueIsKept where anything speaks for it.
func TestOverdueIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *checkWorld)
		want   string
	}{
		"observe mode": {func(w *checkWorld) { w.checker.cfg.Mode = Observe }, "KOPS_SPOT_MODE is observe: it would be ended"},
		"a pod": {func(w *checkWorld) {
			w.cluster.AddPod(sim.Pod{Node: warned, Pod: spot.Pod{Namespace: "default", Name: "late"}})
		}, "default/late"},
		"opened again": {func(w *checkWorld) { w.cluster.WriteNode(warned, func(n *spot.Node) { n.Unschedulable = false }) }, "opened its node again"},
		"surged by kOps": {func(w *checkWorld) {
			_ = w.aws.DeleteTags(w.Context(), []string{warned}, []string{spot.TagInterruptedAt})
		}, "not we who detached it"},
		"a group that cannot be asked": {func(w *checkWorld) { w.aws.Fail("DescribeAutoScalingInstances", -1, sim.Throttled()) }, "Auto Scaling group is not known"},
		"pods that cannot be listed": {func(w *checkWorld) {
			w.cluster.Disturb(sim.Disturbance{Verb: "list", Resource: "pods", Err: errors.New("no answer")})
		}, "pods are left on it is not known"},
		"an end that is refused": {func(w *checkWorld) { w.aws.Fail("TerminateInstances", -1, sim.Denied()) }, "it could not be ended: terminating instance"},
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				w.checker.cfg.EndLeftovers = true
				w.warn()
				c.change(w)
				if told := w.overdue(); told.Ended || !strings.Contains(told.Kept, c.want) {
					w.Errorf("it says %+v, want %q", told, c.want)
				}
				if i, _ := w.aws.Instance(warned); i.State != "running" {
					w.Errorf("it is %s", i.State)
				}
			})
		})
	}
}

// TestAMemberOfAGroupIsKept, though it was tagged when a detach was tried.
func TestAMemberOfAGroupIsKept(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.checker.cfg.EndLeftovers = true
		deadline := time.Now().Add(2 * time.Minute)
		in := spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Time: time.Now()}
		w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Cordon(*n, in, deadline) })
		if err := w.aws.CreateTags(w.Context(), []string{warned}, map[string]string{spot.TagInterruptedAt: in.Time.UTC().Format(time.RFC3339)}); err != nil {
			w.Fatal(err)
		}
		time.Sleep(18 * time.Minute)
		if told := w.overdue(); told.Ended || !strings.Contains(told.Kept, "it is in the Auto Scaling group "+group) {
			w.Errorf("it says %+v", told)
		}
		w.ended(false)
	})
}

// TestNothingIsOverdueInTime, nor is a node that others drain.
func TestNothingIsOverdueInTime(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.checker.cfg.EndLeftovers = true
		w.cluster.WriteNode(warned, func(n *spot.Node) {
			n.Labels = map[string]string{"autoscaling.cast.ai/draining": "spot-interruption"}
		})
		time.Sleep(time.Hour)
		if told := w.run(Ready); len(told.Overdue) != 0 {
			w.Errorf("drained by others: %+v", told.Overdue)
		}
		in := spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Time: time.Now()}
		w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Cordon(*n, in, time.Now().Add(2*time.Minute)) })
		time.Sleep(16 * time.Minute)
		if told := w.run(Ready); len(told.Overdue) != 0 {
			w.Errorf("not yet: %+v", told.Overdue)
		}
	})
}
