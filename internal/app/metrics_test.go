package app

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func at(s spot.Seconds) *spot.Seconds { return &s }

// values returns an outcome's metrics by name.
func values(in spot.Interruption, out spot.Outcome) map[string]float64 {
	m := map[string]float64{}
	for _, one := range metricsOf(in, out) {
		m[one.Name] = one.value
	}
	return m
}

// TestMetrics covers the metrics of each result.
func TestMetrics(t *testing.T) {
	drained := spot.Outcome{Result: spot.Drained,
		Replacement: &spot.ReplacementResult{Action: spot.ReplaceDetach, At: at(1)},
		Timings:     spot.Timings{Started: at(0.5), Cordoned: at(0.75), LastEviction: at(86), Empty: at(90)},
		Pods:        []spot.PodResult{{Status: spot.PodEvicted}, {Status: spot.PodTerminated}, {Status: spot.PodForceDeleted}, {Status: spot.PodSkipped}}}
	whole := map[string]float64{"Interruptions": 1, "Incomplete": 0, "ReplacementRequested": 1,
		"PodsTerminated": 2, "PodsForceDeleted": 1, "PodsStillRunning": 0, "EventAge": 0.5, "TimeToCordon": 0.75, "TimeToLastEviction": 86, "TimeToEmpty": 90}
	but := func(changes map[string]float64, gone ...string) map[string]float64 {
		m := maps.Clone(whole)
		maps.Copy(m, changes)
		for _, name := range gone {
			delete(m, name)
		}
		return m
	}
	with := func(change func(*spot.Outcome)) spot.Outcome {
		out := drained
		change(&out)
		return out
	}
	for name, c := range map[string]struct {
		out       spot.Outcome
		rehearsal bool
		want      map[string]float64
	}{
		"drained": {out: drained, want: whole},
		"incomplete": {out: with(func(o *spot.Outcome) {
			o.Result, o.Pods = spot.Incomplete, []spot.PodResult{{Status: spot.PodStillRunning}}
		}),
			want: but(map[string]float64{"Incomplete": 1, "PodsTerminated": 0, "PodsForceDeleted": 0, "PodsStillRunning": 1}, "TimeToEmpty")},
		"left to the kubelet": {out: with(func(o *spot.Outcome) {
			o.Pods = append([]spot.PodResult{{Status: spot.PodLeftToKubelet}, {Status: spot.PodLeftToKubelet}}, o.Pods...)
			o.Timings.Empty = nil
		}),
			want: but(map[string]float64{"PodsLeftToKubelet": 2}, "TimeToEmpty")},
		"missing timings": {out: with(func(o *spot.Outcome) {
			o.Result, o.Timings, o.Pods = spot.NodeNotFound, spot.Timings{Started: at(1)}, nil
		}),
			want: but(map[string]float64{"EventAge": 1, "PodsTerminated": 0, "PodsForceDeleted": 0}, "TimeToCordon", "TimeToLastEviction", "TimeToEmpty")},
		"cordoned": {out: with(func(o *spot.Outcome) {
			o.Result, o.Pods, o.Timings.Empty, o.Timings.LastEviction = spot.Cordoned, nil, nil, nil
		}),
			want: but(map[string]float64{"PodsTerminated": 0, "PodsForceDeleted": 0}, "TimeToLastEviction", "TimeToEmpty")},
		"replacement already requested": {out: with(func(o *spot.Outcome) {
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceAlready, Group: "g"}
		}),
			want: but(map[string]float64{"ReplacementRequested": 0})},
		"replacement by Karpenter": {out: with(func(o *spot.Outcome) { o.Replacement = &spot.ReplacementResult{Action: spot.ReplacePending} }),
			want: but(map[string]float64{"ReplacementRequested": 0})},
		"autoscaler notified": {out: with(func(o *spot.Outcome) { o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceNotify, At: at(2)} }),
			want: but(nil)},
		"no replacement": {out: with(func(o *spot.Outcome) { o.Replacement = nil }), want: but(map[string]float64{"ReplacementRequested": 0})},
		"skipped": {out: spot.Outcome{Result: spot.Skipped, Timings: drained.Timings, Replacement: &spot.ReplacementResult{Action: spot.ReplaceNotify, At: at(1)}},
			want: map[string]float64{"Skipped": 1, "ReplacementRequested": 1}},
		"cleaned up": {out: spot.Outcome{Result: spot.CleanedUp, Pods: []spot.PodResult{{Status: spot.PodDeleted}, {Status: spot.PodDeleted}},
			Cleanup: &spot.CleanupResult{PodsDeleted: at(2), VolumesDetached: at(4)}},
			want: map[string]float64{"CleanedUp": 1, "CleanUpIncomplete": 0, "PodsDeleted": 2, "TimeToPodsDeleted": 2, "TimeToVolumesDetached": 4}},
		"cleaned up partly": {out: spot.Outcome{Result: spot.CleanedUp, Pods: []spot.PodResult{{Status: spot.PodStillRunning}}, Cleanup: &spot.CleanupResult{VolumesDetached: at(4)}},
			want: map[string]float64{"CleanedUp": 1, "CleanUpIncomplete": 1, "PodsDeleted": 0, "TimeToVolumesDetached": 4}},
		"cleaned up, nothing found": {out: spot.Outcome{Result: spot.CleanedUp, Cleanup: &spot.CleanupResult{NodeDeletedBy: spot.DeletedByCloudController}},
			want: map[string]float64{"CleanedUp": 1, "CleanUpIncomplete": 0, "PodsDeleted": 0}},
		"attached volumes": {out: spot.Outcome{Result: spot.CleanedUp, Cleanup: &spot.CleanupResult{PodsDeleted: at(1)}},
			want: map[string]float64{"CleanedUp": 1, "CleanUpIncomplete": 1, "PodsDeleted": 0, "TimeToPodsDeleted": 1}},
		"replacement failed":              {out: spot.Outcome{Result: spot.ReplacementFailed}, want: map[string]float64{"ReplacementFailed": 1}},
		"recovered":                       {out: spot.Outcome{Result: spot.Recovered}, want: map[string]float64{"Recovered": 1}},
		"other cluster":                   {out: spot.Outcome{Result: spot.OtherCluster}},
		"expired":                         {out: spot.Outcome{Result: spot.Expired}},
		"ignored":                         {out: spot.Outcome{Result: spot.Ignored}},
		"observed":                        {out: with(func(o *spot.Outcome) { o.Result = spot.Planned })},
		"a rehearsal":                     {out: drained, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a rehearsal's plan":              {out: spot.Outcome{Result: spot.Planned}, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a rehearsal for another cluster": {out: spot.Outcome{Result: spot.OtherCluster}, rehearsal: true},
		"an incomplete rehearsal":         {out: with(func(o *spot.Outcome) { o.Result = spot.Incomplete }), rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a skipped rehearsal":             {out: spot.Outcome{Result: spot.Skipped}, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := values(spot.Interruption{Rehearsal: c.rehearsal}, c.out); len(got)+len(c.want) > 0 && !maps.Equal(got, c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
			for _, m := range metricsOf(spot.Interruption{}, c.out) {
				moment := slices.ContainsFunc([]string{"EventAge", "TimeTo"}, func(begin string) bool { return len(m.Name) >= len(begin) && m.Name[:len(begin)] == begin })
				if want := map[bool]string{true: "Seconds", false: "Count"}[moment]; m.Unit != want {
					t.Errorf("%s is measured in %s", m.Name, m.Unit)
				}
			}
		})
	}
}

// TestFailuresAreCounted: the metric of each failure counts it.
func TestFailuresAreCounted(t *testing.T) {
	for _, r := range spot.Results {
		if got := values(spot.Interruption{}, spot.Outcome{Result: r.Result}); r.Metric != "" && (got[r.Metric] != 1 || !r.Failed) {
			t.Errorf("%s: got %v, want %s", r.Result, got, r.Metric)
		}
	}
}

// TestMetricFormat checks CloudWatch's embedded metric format: one line, in which every metric and every dimension is a
// member of the root object.
func TestMetricFormat(t *testing.T) {
	for _, of := range []spot.Outcome{{}, {Result: spot.Drained}, {Result: spot.ReplacementFailed, Event: spot.EventInfo{Group: "nodes"}}} {
		var b bytes.Buffer
		of.Cluster = "prod.example.com"
		dimensions := []any{[]any{"Cluster"}}
		err := writeMetrics(&b, of, []metric{{"Ready", "Count", 1}, {"EventAge", "Seconds", 0.5}}, time.UnixMilli(1767225600123))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("%s: %v", b.String(), err)
		}
		want := map[string]any{"Cluster": "prod.example.com", "Ready": 1.0, "EventAge": 0.5}
		if of.Result != "" {
			want["Result"] = string(of.Result)
			dimensions = append(dimensions, []any{"Cluster", "Result"})
		}
		if of.Event.Group != "" {
			want["AutoScalingGroupName"] = "nodes"
			dimensions = append(dimensions, []any{"Cluster", "AutoScalingGroupName"})
		}
		want["_aws"] = map[string]any{
			"Timestamp": 1767225600123.0,
			"CloudWatchMetrics": []any{map[string]any{"Namespace": "kops-spot", "Dimensions": dimensions, "Metrics": []any{
				map[string]any{"Name": "Ready", "Unit": "Count"}, map[string]any{"Name": "EventAge", "Unit": "Seconds"}}}}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	var b bytes.Buffer
	if err := writeMetrics(&b, spot.Outcome{}, nil, time.Now()); err != nil || b.Len() != 0 {
		t.Errorf("without metrics: %s, %v", b.String(), err)
	}
}
