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

// values are an outcome's measurements by name.
func values(in spot.Interruption, out spot.Outcome) map[string]float64 {
	m := map[string]float64{}
	for _, one := range metricsOf(in, out) {
		m[one.Name] = one.value
	}
	return m
}

// TestMetrics: what is measured of each result, and nothing else.
func TestMetrics(t *testing.T) {
	drained := spot.Outcome{Result: spot.Emptied,
		Replacement: &spot.ReplaceTold{Action: spot.ReplaceDetach, At: at(1), Instance: "i-1", Launched: at(3), Registered: at(60)},
		Times:       spot.TimesTold{Began: at(0.5), Cordoned: at(0.75), LastEviction: at(86), Empty: at(90)},
		Pods:        []spot.PodTold{{End: spot.PodEvicted}, {End: spot.PodGone}, {End: spot.PodForced}, {End: spot.PodLeft}}}
	whole := map[string]float64{"Interruptions": 1, "NotEmptied": 0, "Replaced": 1, "ReplacementLaunched": 1, "TimeToLaunch": 3, "TimeToReplacement": 60,
		"PodsMoved": 2, "PodsForced": 1, "PodsRemaining": 0, "EventAge": 0.5, "TimeToCordon": 0.75, "TimeToLastEviction": 86, "TimeToEmpty": 90}
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
	launch := []string{"ReplacementLaunched", "TimeToLaunch", "TimeToReplacement"}
	for name, c := range map[string]struct {
		out       spot.Outcome
		rehearsal bool
		want      map[string]float64
	}{
		"emptied": {out: drained, want: whole},
		"not emptied": {out: with(func(o *spot.Outcome) { o.Result, o.Pods = spot.NotEmptied, []spot.PodTold{{End: spot.PodRemaining}} }),
			want: but(map[string]float64{"NotEmptied": 1, "PodsMoved": 0, "PodsForced": 0, "PodsRemaining": 1}, "TimeToEmpty")},
		"moments that never came": {out: with(func(o *spot.Outcome) { o.Result, o.Times, o.Pods = spot.NoNode, spot.TimesTold{Began: at(1)}, nil }),
			want: but(map[string]float64{"EventAge": 1, "PodsMoved": 0, "PodsForced": 0}, "TimeToCordon", "TimeToLastEviction", "TimeToEmpty")},
		"cordoned": {out: with(func(o *spot.Outcome) {
			o.Result, o.Pods, o.Times.Empty, o.Times.LastEviction = spot.Cordoned, nil, nil, nil
		}),
			want: but(map[string]float64{"PodsMoved": 0, "PodsForced": 0}, "TimeToLastEviction", "TimeToEmpty")},
		"a group that launches nothing": {out: with(func(o *spot.Outcome) {
			o.Replacement = &spot.ReplaceTold{Action: spot.ReplaceDetach, At: at(1), Answer: "InsufficientInstanceCapacity"}
		}),
			want: but(map[string]float64{"ReplacementLaunched": 0}, launch[1:]...)},
		"replaced by somebody else": {out: with(func(o *spot.Outcome) { o.Replacement = &spot.ReplaceTold{Action: spot.ReplaceAlready, Group: "g"} }),
			want: but(map[string]float64{"Replaced": 0}, launch...)},
		"left to Karpenter": {out: with(func(o *spot.Outcome) { o.Replacement = &spot.ReplaceTold{Action: spot.ReplacePending} }),
			want: but(map[string]float64{"Replaced": 0}, launch...)},
		"told to the autoscaler": {out: with(func(o *spot.Outcome) { o.Replacement = &spot.ReplaceTold{Action: spot.ReplaceTell, At: at(2)} }),
			want: but(nil, launch...)},
		"nobody": {out: with(func(o *spot.Outcome) { o.Replacement = nil }), want: but(map[string]float64{"Replaced": 0}, launch...)},
		"noted": {out: spot.Outcome{Result: spot.LeftAsIs, Times: drained.Times, Replacement: &spot.ReplaceTold{Action: spot.ReplaceTell, At: at(1)}},
			want: map[string]float64{"Noted": 1, "Replaced": 1}},
		"released": {out: spot.Outcome{Result: spot.Released, Pods: []spot.PodTold{{End: spot.PodReleased}, {End: spot.PodReleased}},
			Release: &spot.ReleaseTold{PodsFreed: at(2), VolumesFree: at(4)}},
			want: map[string]float64{"Released": 1, "ReleaseIncomplete": 0, "PodsReleased": 2, "TimeToPodsFreed": 2, "TimeToVolumesFree": 4}},
		"half released": {out: spot.Outcome{Result: spot.Released, Pods: []spot.PodTold{{End: spot.PodRemaining}}, Release: &spot.ReleaseTold{VolumesFree: at(4)}},
			want: map[string]float64{"Released": 1, "ReleaseIncomplete": 1, "PodsReleased": 0, "TimeToVolumesFree": 4}},
		"volumes that stay": {out: spot.Outcome{Result: spot.Released, Release: &spot.ReleaseTold{PodsFreed: at(1)}},
			want: map[string]float64{"Released": 1, "ReleaseIncomplete": 1, "PodsReleased": 0, "TimeToPodsFreed": 1}},
		"returned":             {out: spot.Outcome{Result: spot.Returned}, want: map[string]float64{"Returned": 1}},
		"foreign":              {out: spot.Outcome{Result: spot.ForeignOne}},
		"stale":                {out: spot.Outcome{Result: spot.StaleOne}},
		"ignored":              {out: spot.Outcome{Result: spot.Ignored}},
		"observed":             {out: with(func(o *spot.Outcome) { o.Result = spot.Planned })},
		"a rehearsal":          {out: drained, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a rehearsal's plan":   {out: spot.Outcome{Result: spot.Planned}, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a foreign rehearsal":  {out: spot.Outcome{Result: spot.ForeignOne}, rehearsal: true},
		"a rehearsal in vain":  {out: with(func(o *spot.Outcome) { o.Result = spot.NotEmptied }), rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
		"a rehearsal's noting": {out: spot.Outcome{Result: spot.LeftAsIs}, rehearsal: true, want: map[string]float64{"Rehearsals": 1}},
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

// TestTheMetricsForm is what CloudWatch documents as its embedded metric format: one line, in which every metric that is
// named has its value as a member of the root, as has every dimension.
func TestTheMetricsForm(t *testing.T) {
	for result, dimensions := range map[string]any{"emptied": []any{[]any{"Cluster"}, []any{"Cluster", "Result"}}, "": []any{[]any{"Cluster"}}} {
		var b bytes.Buffer
		err := writeMetrics(&b, "prod.example.com", result, []metric{{"Ready", "Count", 1}, {"EventAge", "Seconds", 0.5}}, time.UnixMilli(1767225600123))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("%s: %v", b.String(), err)
		}
		want := map[string]any{"Cluster": "prod.example.com", "Ready": 1.0, "EventAge": 0.5, "_aws": map[string]any{
			"Timestamp": 1767225600123.0,
			"CloudWatchMetrics": []any{map[string]any{"Namespace": "kops-spot", "Dimensions": dimensions, "Metrics": []any{
				map[string]any{"Name": "Ready", "Unit": "Count"}, map[string]any{"Name": "EventAge", "Unit": "Seconds"}}}}}}
		if result != "" {
			want["Result"] = result
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
	var b bytes.Buffer
	if err := writeMetrics(&b, "prod.example.com", "foreign", nil, time.Now()); err != nil || b.Len() != 0 {
		t.Errorf("no metrics made %s, %v", b.String(), err)
	}
}
