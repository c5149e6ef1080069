package app

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func at(s spot.Seconds) *spot.Seconds { return &s }

// TestMetrics has the form that CloudWatch documents as its embedded metric format: every metric that is named has its
// value as a member of the root.
func TestMetrics(t *testing.T) {
	var b bytes.Buffer
	err := writeMetrics(&b, spot.Outcome{Result: spot.Emptied, Cluster: "prod.example.com",
		Replacement: &spot.ReplaceTold{Action: spot.ReplaceDetach},
		Times:       spot.TimesTold{Began: at(0.5), Cordoned: at(0.75), LastEviction: at(86), Empty: at(90)},
		Pods:        []spot.PodTold{{End: spot.PodEvicted}, {End: spot.PodGone}, {End: spot.PodForced}, {End: spot.PodLeft}}}, time.UnixMilli(1767225600123))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || bytes.Count(b.Bytes(), []byte("\n")) != 1 {
		t.Fatalf("%s: %v", b.String(), err)
	}
	want := map[string]any{"Cluster": "prod.example.com", "Result": "emptied", "Interruptions": 1.0, "NotEmptied": 0.0, "Replaced": 1.0,
		"PodsMoved": 2.0, "PodsForced": 1.0, "PodsRemaining": 0.0, "EventAge": 0.5, "TimeToCordon": 0.75, "TimeToLastEviction": 86.0, "TimeToEmpty": 90.0}
	aws := got["_aws"].(map[string]any)
	delete(got, "_aws")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if aws["Timestamp"] != 1767225600123.0 {
		t.Errorf("the timestamp is %v", aws["Timestamp"])
	}
	directive := aws["CloudWatchMetrics"].([]any)[0].(map[string]any)
	for _, m := range directive["Metrics"].([]any) {
		name := m.(map[string]any)["Name"].(string)
		if _, ok := got[name]; !ok {
			t.Errorf("%s is named and has no value", name)
		}
	}
	if n := len(directive["Metrics"].([]any)); n != 10 {
		t.Errorf("%d metrics are named", n)
	}
}

func TestNoMetricsOfMomentsThatNeverCame(t *testing.T) {
	for _, m := range metricsOf(spot.Outcome{Result: spot.NotEmptied, Times: spot.TimesTold{Began: at(1), Empty: at(2)}}) {
		if m.Unit == "Seconds" && m.Name != "EventAge" {
			t.Errorf("%s: %v", m.Name, m.value)
		}
	}
}

func TestNoMetricsOfEventsThatAreNotOurs(t *testing.T) {
	for _, result := range []spot.Result{spot.ForeignOne, spot.StaleOne, spot.Ignored, spot.Planned} {
		var b bytes.Buffer
		if err := writeMetrics(&b, spot.Outcome{Result: result}, time.Now()); err != nil || b.Len() != 0 {
			t.Errorf("%s: %s, %v", result, b.String(), err)
		}
	}
}
