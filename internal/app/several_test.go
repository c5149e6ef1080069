package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// functionOf returns a function that handles interruptions with handle, and its log.
func functionOf(handle func(context.Context, spot.Interruption) (spot.Outcome, error)) (*Function, *bytes.Buffer) {
	logged := new(bytes.Buffer)
	return &Function{cluster: "prod.example.com", handle: handle, stdout: logged, log: Logger(logged)}, logged
}

// healthOf returns an AWS Health event about these instances.
func healthOf(t *testing.T, instances ...string) json.RawMessage {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "eventbridge", "testdata", "health-scheduled-change.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	var entities []any
	for _, i := range instances {
		entities = append(entities, map[string]any{"entityValue": i})
	}
	e["detail"].(map[string]any)["affectedEntities"] = entities
	if b, err = json.Marshal(e); err != nil {
		t.Fatal(err)
	}
	return b
}

func instanceNamed(i int) string { return fmt.Sprintf("i-%017x", i+1) }

// metricLines returns the metrics in a log.
func metricLines(t *testing.T, logged *bytes.Buffer) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(logged.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line["_aws"] != nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestSeveralInstances: the result of an event is its worst outcome; the outcomes are in the event's order.
func TestSeveralInstances(t *testing.T) {
	results := []spot.Result{spot.OtherCluster, spot.Drained, spot.Incomplete, spot.NodeNotFound, spot.Skipped, spot.Expired}
	var instances []string
	for i := range results {
		instances = append(instances, instanceNamed(i))
	}
	f, logged := functionOf(func(_ context.Context, in spot.Interruption) (spot.Outcome, error) {
		return spot.Outcome{Version: 1, Result: results[slices.Index(instances, in.Instance)], Cluster: "prod.example.com", Event: spot.EventInfo{Instance: in.Instance}}, nil
	})
	result, err := f.Handle(t.Context(), healthOf(t, instances...))
	if err != nil {
		t.Fatal(err)
	}
	out := result.(spot.Outcome)
	if out.Result != spot.Incomplete || out.Event.Instance != instances[2] {
		t.Errorf("got %s of %s", out.Result, out.Event.Instance)
	}
	for i, one := range out.Outcomes {
		if one.Result != results[i] || one.Event.Instance != instances[i] || one.Outcomes != nil {
			t.Errorf("%d: %+v", i, one)
		}
	}
	lines := metricLines(t, logged)
	if len(out.Outcomes) != len(results) || len(lines) != 4 {
		t.Errorf("%d outcomes, but %d metrics: %v", len(out.Outcomes), len(lines), lines)
	}
	if n := strings.Count(logged.String(), `"msg":"outcome"`); n != 1 {
		t.Errorf("%d logged outcomes", n)
	}
}

func TestWorstResult(t *testing.T) {
	order := []spot.Result{spot.Missed, spot.Incomplete, spot.NodeNotFound, spot.ReplacementFailed, spot.Drained, spot.Cordoned, spot.CleanedUp, spot.Recovered, spot.Skipped, spot.Planned,
		spot.Expired, spot.Ignored, spot.OtherCluster}
	for i := range order[1:] {
		pair := []spot.Result{order[i+1], order[i]}
		f, _ := functionOf(func(_ context.Context, in spot.Interruption) (spot.Outcome, error) {
			return spot.Outcome{Result: pair[map[string]int{"a": 0, "b": 1}[in.Instance]]}, nil
		})
		out, err := f.handleAll(t.Context(), []spot.Interruption{{Instance: "a"}, {Instance: "b"}})
		if err != nil || out.Result != order[i] {
			t.Errorf("%v: got %s, %v", pair, out.Result, err)
		}
	}
}

// TestOneInstance: the outcome has no list.
func TestOneInstance(t *testing.T) {
	f, logged := functionOf(func(_ context.Context, in spot.Interruption) (spot.Outcome, error) {
		return spot.Outcome{Result: spot.Drained, Event: spot.EventInfo{ID: in.EventID}}, nil
	})
	result, err := f.Handle(t.Context(), healthOf(t, instanceNamed(0)))
	if out := result.(spot.Outcome); err != nil || out.Outcomes != nil || out.Event.ID == "" {
		t.Errorf("got %+v, %v", result, err)
	}
	if lines := metricLines(t, logged); len(lines) != 1 || lines[0]["Result"] != "drained" {
		t.Errorf("metrics: %v", lines)
	}
}

// TestSomeFail: an event fails, and is retried, only if nothing was changed.
func TestSomeFail(t *testing.T) {
	down := errors.New("the API server does not answer")
	for name, c := range map[string]struct {
		results []spot.Result // empty: it fails
		fails   bool
		want    spot.Result
	}{
		"all fail":                       {results: []spot.Result{"", ""}, fails: true},
		"the other is another cluster's": {results: []spot.Result{"", spot.OtherCluster}, fails: true},
		"the other is expired":           {results: []spot.Result{spot.Expired, ""}, fails: true},
		"the other is ignored":           {results: []spot.Result{spot.Ignored, ""}, fails: true},
		"the other is drained":           {results: []spot.Result{"", spot.Drained}, want: spot.Incomplete},
		"the other is skipped":           {results: []spot.Result{spot.Skipped, ""}, want: spot.Incomplete},
		"none fails":                     {results: []spot.Result{spot.OtherCluster, spot.Expired}, want: spot.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			f, logged := functionOf(func(_ context.Context, in spot.Interruption) (spot.Outcome, error) {
				r := c.results[slices.Index([]string{instanceNamed(0), instanceNamed(1)}, in.Instance)]
				if r == "" {
					return spot.Outcome{}, down
				}
				return spot.Outcome{Result: r}, nil
			})
			result, err := f.Handle(t.Context(), healthOf(t, instanceNamed(0), instanceNamed(1)))
			if c.fails {
				if !errors.Is(err, down) || result != nil || len(metricLines(t, logged)) != 0 {
					t.Fatalf("got %+v, %v, metrics %v", result, err, metricLines(t, logged))
				}
				if !strings.Contains(err.Error(), "instance "+instanceNamed(slices.Index(c.results, ""))) {
					t.Errorf("the instance is missing: %v", err)
				}
				return
			}
			if err != nil || result.(spot.Outcome).Result != c.want {
				t.Fatalf("got %+v, %v", result, err)
			}
			for i, one := range result.(spot.Outcome).Outcomes {
				if c.results[i] != "" {
					continue
				}
				if one.Result != spot.Incomplete || one.Cluster != "prod.example.com" || one.Event.Instance != instanceNamed(i) || one.Event.Kind != spot.ScheduledChange ||
					len(one.Problems) != 1 || !strings.Contains(one.Problems[0], down.Error()) {
					t.Errorf("the failure is reported as %+v", one)
				}
			}
		})
	}
}

// TestManyInstances: they are handled in parallel, with a limit.
func TestManyInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		f, _ := functionOf(func(context.Context, spot.Interruption) (spot.Outcome, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Minute)
			return spot.Outcome{Result: spot.OtherCluster}, nil
		})
		began := time.Now()
		out, err := f.handleAll(t.Context(), make([]spot.Interruption, 120))
		if err != nil || len(out.Outcomes) != 120 {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Minute || most.Load() != 50 {
			t.Errorf("%d in parallel, in %s", most.Load(), took)
		}
	})
}

// TestRehearsalMetrics: a rehearsal does not count as an interruption.
func TestRehearsalMetrics(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "eventbridge", "testdata", "rehearsal-spot-terminate.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, logged := functionOf(func(_ context.Context, in spot.Interruption) (spot.Outcome, error) {
		return spot.Outcome{Result: spot.Incomplete, Cluster: "prod.example.com"}, nil
	})
	if _, err := f.Handle(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	lines := metricLines(t, logged)
	if len(lines) != 1 || lines[0]["Rehearsals"] != 1.0 || lines[0]["Incomplete"] != nil || lines[0]["Interruptions"] != nil {
		t.Errorf("metrics: %v", lines)
	}
}

// TestIgnoredEvent: the outcome has the reason and the cluster.
func TestIgnoredEvent(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "eventbridge", "testdata", "health-backup.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, logged := functionOf(nil)
	result, err := f.Handle(t.Context(), b)
	if out := result.(spot.Outcome); err != nil || out.Result != spot.Ignored || !strings.Contains(out.Reason, "backup") || out.Event.DetailType != "AWS Health Event" || out.Cluster != "prod.example.com" {
		t.Errorf("got %+v, %v", result, err)
	}
	if len(metricLines(t, logged)) != 0 || !strings.Contains(logged.String(), `"msg":"outcome"`) {
		t.Errorf("logged %s", logged)
	}
}
