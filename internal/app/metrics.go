package app

import (
	"encoding/json"
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// metricsNamespace is where the function's metrics are found in CloudWatch.
const metricsNamespace = "kops-spot"

// metric is one measurement of an outcome.
type metric struct {
	Name  string `json:"Name"`
	Unit  string `json:"Unit"`
	value float64
}

// writeMetrics writes an outcome's metrics as a line of CloudWatch's embedded metric format, which CloudWatch Logs takes
// out of the function's log by itself: no call, no permission. Events that are not ours make none: every function in the
// region gets every event, and a metric costs money.
func writeMetrics(w io.Writer, out spot.Outcome, now time.Time) error {
	metrics := metricsOf(out)
	if len(metrics) == 0 {
		return nil
	}
	line := map[string]any{
		"Cluster": out.Cluster,
		"Result":  out.Result,
		"_aws": map[string]any{
			"Timestamp": now.UnixMilli(),
			"CloudWatchMetrics": []any{map[string]any{
				"Namespace":  metricsNamespace,
				"Dimensions": [][]string{{"Cluster"}, {"Cluster", "Result"}},
				"Metrics":    metrics,
			}},
		},
	}
	for _, m := range metrics {
		line[m.Name] = m.value
	}
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// metricsOf are the measurements of an interruption that was acted on. A moment that never came has none: a zero would
// look like the best of all.
func metricsOf(out spot.Outcome) []metric {
	switch out.Result {
	case spot.Emptied, spot.NotEmptied, spot.NoNode:
	default:
		return nil
	}
	var metrics []metric
	count := func(name string, n int) { metrics = append(metrics, metric{name, "Count", float64(n)}) }
	moment := func(name string, at *spot.Seconds) {
		if at != nil {
			metrics = append(metrics, metric{name, "Seconds", float64(*at)})
		}
	}
	ends := map[spot.PodEnd]int{}
	for _, p := range out.Pods {
		ends[p.End]++
	}
	count("Interruptions", 1)
	count("NotEmptied", one(out.Result == spot.NotEmptied))
	count("Replaced", one(out.Replacement != nil && out.Replacement.Action != spot.ReplaceNone))
	count("PodsMoved", ends[spot.PodEvicted]+ends[spot.PodGone])
	count("PodsForced", ends[spot.PodForced])
	count("PodsRemaining", ends[spot.PodRemaining])
	moment("EventAge", out.Times.Began)
	moment("TimeToCordon", out.Times.Cordoned)
	moment("TimeToLastEviction", out.Times.LastEviction)
	if out.Result == spot.Emptied {
		moment("TimeToEmpty", out.Times.Empty)
	}
	return metrics
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
