package handler_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestNotes are told on the node and on every pod that was asked to go, and only after every pod has been asked.
func TestNotes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Parallel = 1
		w.pod("web-1")
		w.pod("web-2")
		w.pod("db-0", func(p *spottest.Pod) { p.Replacement = nil })
		w.pod("logs-1", func(p *spottest.Pod) { p.Owner.Kind, p.Replacement = "DaemonSet", nil })
		w.guard("db", 1)
		w.cluster.Disturb(spottest.Disturbance{Resource: "pods/eviction", Delay: 100 * time.Millisecond})
		w.handle(spot.Drained)
		about := map[string]int{}
		warnings := 0
		for _, n := range w.cluster.Events() {
			if n.Reason == "" || n.Message == "" {
				t.Errorf("%+v", n)
			}
			if n.Warning {
				warnings++
			}
			if n.Pod != nil {
				about[n.Pod.Name]++
			} else {
				about[n.Node.Name+" "+n.Reason]++
			}
		}
		for _, name := range []string{"web-1", "web-2", "db-0", instance + " SpotInterruption", instance + " SpotDrained"} {
			if about[name] != 1 {
				t.Errorf("%d notes about %s", about[name], name)
			}
		}
		if len(about) != 5 || warnings != 2 { // the interruption, and the pod that was forced
			t.Errorf("%d warnings: %v", warnings, about)
		}
		var evicted int
		for _, r := range w.cluster.Requests() {
			switch {
			case r.Resource == "pods/eviction":
				evicted++
			case r.Resource == "events" && evicted < 3:
				t.Fatalf("a note was sent when %d of 3 pods had been asked", evicted)
			}
		}
	})
}

// TestNotesDoNotLie about a node whose pods nobody knows.
func TestNotesDoNotLie(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pod("web-1")
		w.cluster.Disturb(spottest.Disturbance{Verb: "list", Resource: "pods", Err: spot.Permanent(errors.New("403"))})
		w.handle(spot.Incomplete)
		for _, n := range w.cluster.Events() {
			if n.Reason == "SpotDrained" {
				t.Errorf("an Event says %q", n.Message)
			}
		}
	})
}

// TestEventsThatCannotBeSent cost the drain nothing, and stand in the outcome as what they are.
func TestEventsThatCannotBeSent(t *testing.T) {
	for name, d := range map[string]spottest.Disturbance{
		"refused":    {Resource: "events", Err: errors.New("forbidden")},
		"swallowed":  {Resource: "events", Delay: time.Hour},
		"unreadable": {Resource: "events", Err: errors.New("EOF"), Lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				w.cluster.Disturb(d)
				out := w.handle(spot.Drained)
				if *out.Timings.Empty > 5 || *out.Timings.Finished > 12 {
					t.Errorf("empty after %v s, ended after %v s", *out.Timings.Empty, *out.Timings.Finished)
				}
				if !strings.Contains(strings.Join(out.Problems, " "), "Kubernetes Events could not be sent") {
					t.Errorf("%v", out.Problems)
				}
			})
		})
	}
}
