package handler_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestEvents checks the Events of a drain, and that they are sent after the first request for each pod.
func TestEvents(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 1
		w.pod("web-1")
		w.pod("web-2")
		w.pod("db-0", notRecreated)
		w.pod("logs-1", daemonSet)
		w.budget("db", 1)
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: 100 * time.Millisecond})
		w.handle(spot.Drained)
		got := map[string]int{}
		warnings := 0
		for _, e := range w.cluster.Events() {
			if e.Reason == "" || e.Message == "" {
				w.Errorf("got %+v, want a reason and a message", e)
			}
			if e.Warning {
				warnings++
			}
			if e.Pod != nil {
				got[e.Pod.Name]++
			} else {
				got[e.Node.Name+" "+e.Reason]++
			}
		}
		want := []string{"web-1", "web-2", "db-0", instance + " SpotInterruption", instance + " SpotDrained"}
		for _, about := range want {
			if got[about] != 1 {
				w.Errorf("got %d Events about %s, want 1", got[about], about)
			}
		}
		if len(got) != len(want) || warnings != 2 { // the interruption and the force deletion
			w.Errorf("got Events %v with %d warnings, want %v with 2", got, warnings, want)
		}
		evictions := 0
		for _, r := range w.cluster.Requests() {
			switch {
			case r.Resource == "pods/eviction":
				evictions++
			case r.Resource == "events" && evictions < 3:
				w.Fatalf("got an Event after %d evictions, want after 3", evictions)
			}
		}
	})
}

// TestNoDrainedEvent checks that a node whose pods cannot be listed is not reported as drained.
func TestNoDrainedEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: spot.Permanent(errors.New("403"))})
		w.handle(spot.Incomplete)
		for _, e := range w.cluster.Events() {
			if e.Reason == "SpotDrained" {
				w.Errorf("got Event %s, %q; want none", e.Reason, e.Message)
			}
		}
	})
}

// TestEventErrors checks that Events that cannot be sent do not delay the drain, and are reported.
func TestEventErrors(t *testing.T) {
	for name, d := range map[string]spottest.Disturbance{
		"denied":        {Resource: "events", Err: errors.New("forbidden")},
		"no response":   {Resource: "events", Delay: time.Hour},
		"response lost": {Resource: "events", Err: errors.New("EOF"), Lost: true},
	} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			w.cluster.Disturb(d)
			out := w.handle(spot.Drained)
			if empty, finished := *out.Timings.Empty, *out.Timings.Finished; empty > 5 || finished > 12 {
				w.Errorf("got empty after %vs, finished after %vs; want at most 5s, 12s", empty, finished)
			}
			const problem = "Kubernetes Events could not be sent"
			if !strings.Contains(strings.Join(out.Problems, " "), problem) {
				w.Errorf("got problems %q, want %q", out.Problems, problem)
			}
		})
	}
}
