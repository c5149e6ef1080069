package app

import (
	"encoding/json"
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// metricsNamespace is where the function's metrics are found in CloudWatch.
const metricsNamespace = "kops-spot"

// metric is one measurement.
type metric struct {
	Name  string `json:"Name"`
	Unit  string `json:"Unit"`
	value float64
}

// writeMetrics writes metrics as a line of CloudWatch's embedded metric format, which CloudWatch Logs takes out of the
// function's log by itself: no call, no permission. They are found by cluster, and those of a result by that too.
func writeMetrics(w io.Writer, cluster, result string, metrics []metric, now time.Time) error {
	if len(metrics) == 0 {
		return nil
	}
	line := map[string]any{"Cluster": cluster}
	dimensions := [][]string{{"Cluster"}}
	if result != "" {
		line["Result"] = result
		dimensions = append(dimensions, []string{"Cluster", "Result"})
	}
	line["_aws"] = map[string]any{
		"Timestamp": now.UnixMilli(),
		"CloudWatchMetrics": []any{map[string]any{
			"Namespace":  metricsNamespace,
			"Dimensions": dimensions,
			"Metrics":    metrics,
		}},
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

// metricsOf are the measurements of one outcome. Events that are not ours make none: every function in the region gets
// every event, and a metric costs money. A rehearsal only counts as one: it must ring no alarm, and improve no average.
func metricsOf(in spot.Interruption, out spot.Outcome) []metric {
	var m measured
	switch out.Result {
	case spot.Drained, spot.Incomplete, spot.NodeNotFound, spot.Cordoned:
		m.interruption(out)
	case spot.Skipped:
		m.count("Skipped", 1)
		m.replacement(out)
	case spot.CleanedUp:
		m.release(out)
	case spot.Recovered:
		m.count("Recovered", 1)
	}
	if in.Rehearsal && (len(m) > 0 || out.Result == spot.Planned) {
		m = nil
		m.count("Rehearsals", 1)
	}
	return m
}

type measured []metric

func (m *measured) count(name string, n int) { *m = append(*m, metric{name, "Count", float64(n)}) }

// moment leaves out what never came: a zero would look like the best of all.
func (m *measured) moment(name string, at *spot.Seconds) {
	if at != nil {
		*m = append(*m, metric{name, "Seconds", float64(*at)})
	}
}

func (m *measured) interruption(out spot.Outcome) {
	ends := endsOf(out)
	m.count("Interruptions", 1)
	m.count("Incomplete", one(out.Result == spot.Incomplete))
	m.replacement(out)
	m.count("PodsTerminated", ends[spot.PodEvicted]+ends[spot.PodTerminated])
	m.count("PodsForceDeleted", ends[spot.PodForceDeleted])
	m.count("PodsStillRunning", ends[spot.PodStillRunning])
	m.moment("EventAge", out.Timings.Started)
	m.moment("TimeToCordon", out.Timings.Cordoned)
	m.moment("TimeToLastEviction", out.Timings.LastEviction)
	if out.Result == spot.Drained {
		m.moment("TimeToEmpty", out.Timings.Empty)
	}
}

// replacement measures what became of asking for another instance. It counts where we have asked, and not where somebody
// else had, or Karpenter does by itself; and only a group says what it launches.
func (m *measured) replacement(out spot.Outcome) {
	r := out.Replacement
	asked := r != nil && r.At != nil
	m.count("ReplacementRequested", one(asked))
	if asked && r.Action == spot.ReplaceDetach {
		m.count("ReplacementLaunched", one(r.Instance != ""))
		m.moment("TimeToLaunch", r.LaunchedAt)
		m.moment("TimeToReplacement", r.RegisteredAt)
	}
}

func (m *measured) release(out spot.Outcome) {
	var r spot.CleanupResult
	if out.Cleanup != nil {
		r = *out.Cleanup
	}
	m.count("CleanedUp", 1)
	m.count("CleanUpIncomplete", one(r.PodsDeleted == nil || r.VolumesDetached == nil))
	m.count("PodsDeleted", endsOf(out)[spot.PodDeleted])
	m.moment("TimeToPodsDeleted", r.PodsDeleted)
	m.moment("TimeToVolumesDetached", r.VolumesDetached)
}

func endsOf(out spot.Outcome) map[spot.PodStatus]int {
	ends := map[spot.PodStatus]int{}
	for _, p := range out.Pods {
		ends[p.Status]++
	}
	return ends
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
