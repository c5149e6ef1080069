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

// warn has the handler see to a warning that EC2 never makes true, and waits until its instance is overdue.
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

// TestOverdueIsNotReady: an instance that should have ended long ago is a failed check, which names it and says what to do,
// until it is terminated or its node is restored. The self-check does neither.
func TestOverdueIsNotReady(t *testing.T) {
	for name, settle := range map[string]func(w *checkWorld){
		"terminated": func(w *checkWorld) { w.aws.SetState(warned, "terminated") },
		"restored":   func(w *checkWorld) { w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Restore(*n) }) },
	} {
		t.Run(name, func(t *testing.T) {
			inCheckWorld(t, func(w *checkWorld) {
				deadline := time.Now().Add(2 * time.Minute).UTC().Truncate(time.Second)
				w.warn()
				calls := len(w.aws.Calls())
				told := w.run(NotReady)
				want := spot.OverdueInstance{Node: warned, Instance: warned, Since: deadline}
				if len(told.Overdue) != 1 || told.Overdue[0] != want {
					w.Errorf("overdue are %+v, want %+v", told.Overdue, want)
				}
				if failed := failedChecks(told); !slices.Equal(failed, []string{"overdue: " + warned}) {
					w.Errorf("failed have %q", failed)
				}
				check := w.check(told, "overdue: "+warned)
				if !strings.Contains(check.Detail, "instance "+warned+" of node "+warned+" is still running") ||
					!strings.Contains(check.Detail, deadline.Format(time.RFC3339)) {
					w.Errorf("it says %q", check.Detail)
				}
				if !strings.Contains(check.Advice, "aws ec2 terminate-instances --instance-ids "+warned) ||
					!strings.Contains(check.Advice, "kops-spot restore "+warned) {
					w.Errorf("its advice is %q", check.Advice)
				}
				if m := told.metrics(); m[0].value != 0 || m[1].Name != "Overdue" || m[1].value != 1 {
					w.Errorf("metrics: %v", m)
				}
				for _, c := range w.aws.Calls()[calls:] {
					if !strings.HasPrefix(c.Operation, "Describe") {
						w.Errorf("the self-check calls %s", c.Operation)
					}
				}
				settle(w)
				if told := w.run(Ready); len(told.Overdue) != 0 {
					w.Errorf("it is overdue still: %+v", told.Overdue)
				}
			})
		})
	}
}

// TestNothingIsOverdueInTime, nor is a node that others drain.
func TestNothingIsOverdueInTime(t *testing.T) {
	inCheckWorld(t, func(w *checkWorld) {
		w.cluster.WriteNode(warned, func(n *spot.Node) {
			n.Labels = map[string]string{"autoscaling.cast.ai/draining": "spot-interruption"}
		})
		time.Sleep(time.Hour)
		if told := w.run(Ready); len(told.Overdue) != 0 {
			w.Errorf("drained by others: %+v", told.Overdue)
		}
		in := spot.Interruption{EventID: "e", Kind: spot.SpotTerminate, Instance: warned, Time: time.Now()}
		w.cluster.WriteNode(warned, func(n *spot.Node) { *n = spot.Cordon(*n, in, spot.Plan{Deadline: time.Now().Add(2 * time.Minute)}) })
		time.Sleep(16 * time.Minute)
		if told := w.run(Ready); len(told.Overdue) != 0 {
			w.Errorf("not yet: %+v", told.Overdue)
		}
	})
}
