package handler_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

var update = flag.Bool("update", false, "write docs/faults.md")

// faultRequests lists the requests of an interruption, and what must happen if one of them always fails. If it fails
// once or for 8 s, everything is done.
var faultRequests = []struct {
	request  string // verb and resource, or the operation of AWS
	always   string // what happens if it always fails; empty for everything
	tolerate string // parts of names of faults that do not prevent the effect
}{
	{request: "get nodes", always: "incomplete, detached"},
	{request: "patch nodes", always: "drained, not cordoned, detached", tolerate: "lost"},
	{request: "list pods", always: "incomplete, cordoned, detached"},
	{request: "watch pods"},
	{request: "create pods/eviction"}, // at last, the pods are force-deleted
	{request: "patch pods/status"},
	{request: "delete pods", always: "incomplete, cordoned, detached", tolerate: "lost"},
	{request: "create events"},
	{request: "DescribeInstances", always: "drained, cordoned, not detached"},
	{request: "DescribeAutoScalingInstances", always: "drained, cordoned, not detached"},
	{request: "CreateTags"},
	{request: "DetachInstances", always: "drained, cordoned, not detached", tolerate: "lost"},
}

const everythingDone = "drained, cordoned, detached"

type clusterFault struct {
	name string
	spottest.Disturbance
}

func clusterFaults(request string) []clusterFault {
	limit := 15 * time.Second // of a write
	if verb, _, _ := strings.Cut(request, " "); verb == "get" || verb == "list" || verb == "watch" {
		limit = 5 * time.Second
	}
	refusal := func(code int, retryAfter time.Duration) spottest.Disturbance {
		return spottest.Disturbance{Err: &spot.Refusal{Code: code, RetryAfter: retryAfter, Message: "refused"}}
	}
	faults := []clusterFault{
		{"refused", spottest.Disturbance{Err: errors.New("connection refused")}},
		{"response lost", spottest.Disturbance{Lost: true, Err: errors.New("connection reset by peer")}},
		{"response truncated, lost", spottest.Disturbance{Lost: true, Err: io.ErrUnexpectedEOF}},
		{"429", refusal(429, 0)}, {"429, Retry-After 10 s", refusal(429, 10*time.Second)},
		{"500", refusal(500, 0)}, {"503", refusal(503, 0)}, {"504", refusal(504, 0)},
		{"409", spottest.Disturbance{Err: fmt.Errorf("409: %w", spot.ErrChanged)}},
		{"slow", spottest.Disturbance{Delay: limit, Err: context.DeadlineExceeded}},
		{"401", spottest.Disturbance{Err: spot.Permanent(errors.New("401"))}},
		{"403", spottest.Disturbance{Err: spot.Permanent(errors.New("403"))}},
	}
	verb, resource, _ := strings.Cut(request, " ")
	for i := range faults {
		faults[i].Verb, faults[i].Resource = verb, resource
	}
	return faults
}

var awsFaults = []struct {
	name  string
	fault spottest.Fault
	delay time.Duration
}{
	{name: "refused", fault: spottest.Unreachable()},
	{name: "response lost", fault: spottest.AnswerLost()},
	{name: "throttled", fault: spottest.Throttled()},
	{name: "contention", fault: spottest.Contention()},
	{name: "500", fault: spottest.Broken()},
	{name: "slow", fault: spottest.Unreachable(), delay: 5 * time.Second},
	{name: "403", fault: spottest.Denied()},
}

var faultDurations = []struct {
	name string
	d    time.Duration // 0 for one request, negative for ever
}{{"once", 0}, {"8 s", 8 * time.Second}, {"always", -1}}

// TestFaults lets each request fail in each way. Nothing runs past the deadline; synctest fails if a goroutine remains.
func TestFaults(t *testing.T) {
	var table []faultRow
	for _, r := range faultRequests {
		run := func(name string, inject func(w *world, d time.Duration)) {
			row := faultRow{request: r.request, faults: []string{name}}
			for _, duration := range faultDurations {
				want := everythingDone
				tolerated := r.tolerate != "" && strings.Contains(name, r.tolerate)
				if duration.d < 0 && r.always != "" && !tolerated {
					want = r.always
				}
				t.Run(r.request+"/"+name+"/"+duration.name, func(t *testing.T) {
					got, seconds := runCell(t, func(w *world) { inject(w, duration.d) })
					if got != want || seconds > 121 {
						t.Errorf("got %s after %.0f s, want %s", got, seconds, want)
					}
					row.add(strings.Replace(got, everythingDone, "done", 1), seconds)
				})
			}
			table = append(table, row)
		}
		if !strings.Contains(r.request, " ") {
			for _, f := range awsFaults {
				run(f.name, func(w *world, d time.Duration) {
					if f.delay > 0 {
						w.aws.Delay(r.request, f.delay)
					}
					switch {
					case d == 0:
						w.aws.Fail(r.request, 1, f.fault)
						time.AfterFunc(f.delay+time.Second, func() { w.aws.Delay(r.request, 0) })
					default:
						w.aws.Fail(r.request, -1, f.fault)
					}
					if d > 0 {
						time.AfterFunc(d, func() { w.aws.Heal(); w.aws.Delay(r.request, 0) })
					}
				})
			}
			continue
		}
		for _, f := range clusterFaults(r.request) {
			run(f.name, func(w *world, d time.Duration) {
				disturbance := f.Disturbance
				if d == 0 {
					disturbance.Times = 1
				}
				heal := w.cluster.Disturb(disturbance)
				if d > 0 {
					time.AfterFunc(d, heal)
				}
			})
		}
	}
	if *update && !t.Failed() {
		writeFaults(t, table)
	}
}

// runCell interrupts a node with an ordinary pod and one whose budget never allows its eviction.
func runCell(t *testing.T, inject func(w *world)) (got string, seconds float64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pod("web-1")
		w.pod("db-0", notRecreated)
		w.budget("db", 1)
		inject(w)
		out, err := w.handler.Handle(w.timeout(15*time.Minute), w.warning(spot.SpotTerminate))
		seconds = time.Since(w.event).Seconds()
		if err != nil {
			got = "error: " + err.Error()
			return
		}
		w.roundTrip(out)
		parts := []string{string(out.Result)}
		state := map[bool]string{true: "", false: "not "}
		if out.Cordon != nil {
			cordoned := w.node().Unschedulable
			if reported := out.Cordon.At != nil; reported && !cordoned {
				t.Errorf("reported as cordoned: %s", toJSON(out))
			}
			parts = append(parts, state[cordoned]+"cordoned")
		}
		detached := w.aws.Group(group).Desired == len(w.aws.Group(group).Members) && !w.isMember()
		if reported := out.Replacement.Action == spot.ReplaceDetach; reported != detached {
			t.Errorf("replacement %+v, detached %v", out.Replacement, detached)
		}
		got = strings.Join(append(parts, state[detached]+"detached"), ", ")
		for _, p := range out.Pods {
			if _, exists := w.cluster.Pod("default/" + p.Name); !exists && p.Status == spot.PodStillRunning {
				t.Errorf("pod %s is gone: %s", p.Name, toJSON(out))
			}
		}
	})
	return got, seconds
}

// isMember reports whether the interrupted instance is still in its group.
func (w *world) isMember() bool {
	for _, m := range w.aws.Group(group).Members {
		if m.ID == instance && m.State != "Detaching" {
			return true
		}
	}
	return false
}

// faultRow is the result of one or more faults of a request, by duration.
type faultRow struct {
	request  string
	faults   []string
	results  []string
	from, to []float64 // seconds
}

func (r *faultRow) add(result string, seconds float64) {
	r.results = append(r.results, result)
	r.from, r.to = append(r.from, seconds), append(r.to, seconds)
}

// merge adds the faults of another row with the same results.
func (r *faultRow) merge(other faultRow) {
	r.faults = append(r.faults, other.faults...)
	for i := range r.from {
		r.from[i], r.to[i] = min(r.from[i], other.from[i]), max(r.to[i], other.to[i])
	}
}

func writeFaults(t *testing.T, table []faultRow) {
	var merged []faultRow
	for _, row := range table {
		i := slices.IndexFunc(merged, func(r faultRow) bool {
			return r.request == row.request && slices.Equal(r.results, row.results)
		})
		if i < 0 {
			merged = append(merged, row)
			continue
		}
		merged[i].merge(row)
	}
	var b strings.Builder
	for _, r := range merged {
		fmt.Fprintf(&b, "| `%s` | %s", r.request, strings.Join(r.faults, "; "))
		for i, result := range r.results {
			seconds := fmt.Sprintf("%.0f", r.from[i])
			if to := fmt.Sprintf("%.0f", r.to[i]); to != seconds {
				seconds += " to " + to
			}
			fmt.Fprintf(&b, " | %s, %s s", result, seconds)
		}
		b.WriteString(" |\n")
	}
	text := `# Faults

What an interruption ends with if one kind of request fails, in memory: once, for 8 seconds from the event, or always.
The node has an ordinary pod and one whose PodDisruptionBudget never allows its eviction, which is force-deleted 85 s
after the event. *done* means drained, cordoned and detached. The seconds are from the event to the end of the
invocation; they vary with the jitter of the retries.

Written by ` + "`go test ./internal/handler -run TestFaults -update`" + `.

| request | fault | once | 8 s | always |
|---|---|---|---|---|
` + b.String()
	if err := os.WriteFile("../../docs/faults.md", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
