package app

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
)

// warn lets the handler handle a warning that EC2 does not carry out, and waits until the instance is overdue.
func (w *checkWorld) warn() {
	w.Helper()
	h := handler.Handler{Cluster: w.cluster, Cloud: w.aws.Cloud(), Policy: w.checker.cfg.Policy}
	ctx, cancel := context.WithTimeout(w.Context(), 15*time.Minute)
	defer cancel()
	out, err := h.Handle(ctx, spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Region: "us-east-1", Time: time.Now()})
	if err != nil || out.Result != spot.Drained || out.Replacement.At == nil {
		w.Fatalf("the warning: %+v, %v", out, err)
	}
	time.Sleep(18 * time.Minute)
}

// TestOverdue: an overdue instance fails a check until it is terminated or its node is restored. The self-check does
// neither.
func TestOverdue(t *testing.T) {
	for name, settle := range map[string]func(w *checkWorld){
		"terminated": func(w *checkWorld) { w.aws.SetState(warned, "terminated") },
		"restored":   func(w *checkWorld) { w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Restore(*n) }) },
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				deadline := time.Now().Add(2 * time.Minute).UTC().Truncate(time.Second)
				w.warn()
				calls := len(w.aws.Calls())
				result := w.run(NotReady)
				want := spot.OverdueInstance{Node: warned, Instance: warned, Since: deadline}
				if len(result.Overdue) != 1 || result.Overdue[0] != want {
					w.Errorf("overdue are %+v, want %+v", result.Overdue, want)
				}
				if failed := failedChecks(result); !slices.Equal(failed, []string{"overdue: " + warned}) {
					w.Errorf("failed checks: %q", failed)
				}
				check := w.check(result, "overdue: "+warned)
				if !strings.Contains(check.Detail, "instance "+warned+" of node "+warned+" is still running") ||
					!strings.Contains(check.Detail, deadline.Format(time.RFC3339)) {
					w.Errorf("detail: %q", check.Detail)
				}
				if !strings.Contains(check.Advice, "aws ec2 terminate-instances --instance-ids "+warned) ||
					!strings.Contains(check.Advice, "kops-spot restore "+warned) {
					w.Errorf("advice: %q", check.Advice)
				}
				if m := result.metrics(); m[0].value != 0 || m[1].Name != "Overdue" || m[1].value != 1 {
					w.Errorf("metrics: %v", m)
				}
				for _, c := range w.aws.Calls()[calls:] {
					if !strings.HasPrefix(c.Operation, "Describe") {
						w.Errorf("the self-check called %s", c.Operation)
					}
				}
				settle(w)
				if result := w.run(Ready); len(result.Overdue) != 0 {
					w.Errorf("still overdue: %+v", result.Overdue)
				}
			})
		})
	}
}

// TestNotOverdue: before the deadline, or if another program drains the node.
func TestNotOverdue(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.cluster.WriteNode(warned, func(n *spot.Node) {
			n.Labels = map[string]string{"autoscaling.cast.ai/draining": "spot-interruption"}
		})
		time.Sleep(time.Hour)
		if result := w.run(Ready); len(result.Overdue) != 0 {
			w.Errorf("drained by others: %+v", result.Overdue)
		}
		in := spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Time: time.Now()}
		w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Cordon(*n, in, spot.Plan{Deadline: time.Now().Add(2 * time.Minute)}) })
		time.Sleep(16 * time.Minute)
		if result := w.run(Ready); len(result.Overdue) != 0 {
			w.Errorf("not yet: %+v", result.Overdue)
		}
	})
}

// cordon cordons the node for an event with the deadline.
func (w *checkWorld) cordon(in spot.Interruption, deadline time.Time) {
	in.EventID, in.Instance, in.Time = "e", warned, time.Now()
	w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Cordon(*n, in, spot.Plan{Deadline: deadline}) })
}

// TestCordonStays checks that the self-check warns about a working node that is cordoned an hour after the event.
func TestCordonStays(t *testing.T) {
	for name, c := range map[string]struct {
		kind     spot.Kind
		after    time.Duration
		notReady bool
		want     bool
	}{
		"rebalance":              {spot.Rebalance, 61 * time.Minute, false, true},
		"a stop that never came": {spot.SpotStop, 61 * time.Minute, false, true},
		"too early":              {spot.Rebalance, 59 * time.Minute, false, false},
		"stopped":                {spot.SpotStop, 61 * time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				w.cordon(spot.Interruption{Kind: c.kind}, time.Now())
				w.cluster.WriteNode(warned, func(n *spot.Node) { n.NotReady = c.notReady })
				time.Sleep(c.after)
				result := w.run(Ready)
				if got := len(result.Warnings) == 1 && strings.Contains(result.Warnings[0], "kops-spot restore "+warned); got != c.want {
					w.Errorf("warnings: %q", result.Warnings)
				}
				if n, _ := w.cluster.Node(warned); !n.Unschedulable {
					w.Error("the self-check uncordoned the node")
				}
			})
		})
	}
}

// TestStaleRehearsal checks that the self-check restores a node after a rehearsal that was killed, in act mode only and
// not if a real event has come since.
func TestStaleRehearsal(t *testing.T) {
	rehearsal := spot.Interruption{Kind: spot.SpotTerminate, Rehearsal: true}
	for name, c := range map[string]struct {
		mode  Mode
		after time.Duration
		real  bool
		want  bool // restored
	}{
		"restored":   {Act, 11 * time.Minute, false, true},
		"too early":  {Act, 9 * time.Minute, false, false},
		"observe":    {Observe, 11 * time.Minute, false, false},
		"a real one": {Act, 11 * time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				before, _ := w.cluster.Node(warned)
				w.checker.cfg.Mode = c.mode
				w.cordon(rehearsal, time.Now())
				time.Sleep(c.after)
				if c.real {
					w.cluster.BeforeNodeWrite(func(string) {
						w.cluster.BeforeNodeWrite(nil)
						w.cordon(spot.Interruption{Kind: spot.SpotTerminate}, time.Now().Add(2*time.Minute))
					})
				}
				w.run(Ready)
				n, _ := w.cluster.Node(warned)
				if restored := !n.Unschedulable && len(n.Annotations) == len(before.Annotations); restored != c.want {
					w.Errorf("the node is %+v, want restored %v", n, c.want)
				}
			})
		})
	}
}
