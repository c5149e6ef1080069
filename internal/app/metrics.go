package app

import (
	"encoding/json"
	"io"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// metricsNamespace is the CloudWatch namespace of the metrics.
const metricsNamespace = "kops-spot"

// metric is one measurement.
type metric struct {
	Name  string `json:"Name"`
	Unit  string `json:"Unit"`
	value float64
}

// writeMetrics writes metrics to the log in CloudWatch's embedded metric format, which requires no request and no
// permission. Dimensions are the cluster and, if any, the result and the group.
func writeMetrics(w io.Writer, of spot.Outcome, metrics []metric, now time.Time) error {
	if len(metrics) == 0 {
		return nil
	}
	line := map[string]any{"Cluster": of.Cluster}
	dimensions := [][]string{{"Cluster"}}
	for _, d := range [][2]string{{"Result", string(of.Result)}, {"AutoScalingGroupName", of.Event.Group}} { // as in AWS's metrics
		if d[1] != "" {
			line[d[0]] = d[1]
			dimensions = append(dimensions, []string{"Cluster", d[0]})
		}
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

// metricsOf returns the metrics of one outcome. Instances of other clusters have none: every function in the region
// receives every event, and metrics cost money. A rehearsal is only counted: it must not affect alarms and averages.
func metricsOf(in spot.Interruption, out spot.Outcome) []metric {
	var m measured
	switch out.Result {
	case spot.Drained, spot.Incomplete, spot.NodeNotFound, spot.Cordoned:
		m.interruption(out)
	case spot.Missed:
		m.count("Interruptions", 1)
		m.count("Missed", 1)
	case spot.Skipped:
		m.count("Skipped", 1)
		m.replacement(out)
	case spot.CleanedUp:
		m.cleanup(out)
	case spot.Recovered:
		m.count("Recovered", 1)
	case spot.ReplacementFailed:
		m.count("ReplacementFailed", 1)
	}
	if in.Rehearsal && (len(m) > 0 || out.Result == spot.Planned) {
		m = nil
		m.count("Rehearsals", 1)
	}
	if out.Unpublished > 0 {
		m.count("Unpublished", out.Unpublished)
	}
	return m
}

type measured []metric

func (m *measured) count(name string, n int) { *m = append(*m, metric{name, "Count", float64(n)}) }

// moment omits times that are not known: a zero would look like the best value.
func (m *measured) moment(name string, at *spot.Seconds) {
	if at != nil {
		*m = append(*m, metric{name, "Seconds", float64(*at)})
	}
}

func (m *measured) interruption(out spot.Outcome) {
	count := out.PodCounts()
	m.count("Interruptions", 1)
	m.count("Incomplete", boolToInt(out.Result == spot.Incomplete))
	m.replacement(out)
	m.count("PodsTerminated", count[spot.PodEvicted]+count[spot.PodTerminated])
	m.count("PodsForceDeleted", count[spot.PodForceDeleted])
	m.count("PodsStillRunning", count[spot.PodStillRunning])
	if n := count[spot.PodLeftToKubelet]; n > 0 { // no metric to pay for without a shutdown window
		m.count("PodsLeftToKubelet", n)
	}
	m.moment("EventAge", out.Timings.Started)
	m.moment("TimeToCordon", out.Timings.Cordoned)
	m.moment("TimeToLastEviction", out.Timings.LastEviction)
	if out.Result == spot.Drained {
		m.moment("TimeToEmpty", out.Timings.Empty)
	}
}

// replacement counts replacements that the function requested, not those that another program requested or that
// Karpenter launches for pending pods.
func (m *measured) replacement(out spot.Outcome) {
	r := out.Replacement
	asked := r != nil && r.At != nil
	m.count("ReplacementRequested", boolToInt(asked))
}

func (m *measured) cleanup(out spot.Outcome) {
	var r spot.CleanupResult
	if out.Cleanup != nil {
		r = *out.Cleanup
	}
	m.count("CleanedUp", 1)
	// Without either time, nothing was found under the name of a deleted node, or another node has it.
	nothing := r.PodsDeleted == nil && r.VolumesDetached == nil && len(out.Pods)+len(out.Problems) == 0
	m.count("CleanUpIncomplete", boolToInt(!nothing && (r.PodsDeleted == nil || r.VolumesDetached == nil)))
	m.count("PodsDeleted", out.PodCounts()[spot.PodDeleted])
	m.moment("TimeToPodsDeleted", r.PodsDeleted)
	m.moment("TimeToVolumesDetached", r.VolumesDetached)
}

func boolToInt(is bool) int {
	if is {
		return 1
	}
	return 0
}
