package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const cluster = "prod.example.com"

var (
	since = time.Date(2026, 11, 1, 9, 30, 0, 0, time.UTC)
	until = since.Add(30 * 24 * time.Hour)
)

// drained returns the outcome of a warning whose node was empty after some seconds.
func drained(event, instance string, empty spot.Seconds) spot.Outcome {
	return spot.Outcome{Version: spot.OutcomeVersion, Result: spot.Drained, Cluster: cluster,
		Event:    spot.EventInfo{ID: event, Kind: spot.SpotTerminate, Instance: instance, Time: since.Add(time.Hour)},
		Instance: spot.InstanceInfo{Group: "nodes", Type: "m5.large", Zone: "eu-west-1a", Lifecycle: "spot"},
		Timings:  spot.Timings{Empty: &empty}}
}

// changed returns an outcome after changes.
func changed(out spot.Outcome, changes ...func(*spot.Outcome)) spot.Outcome {
	for _, change := range changes {
		change(&out)
	}
	return out
}

func result(r spot.Result) func(*spot.Outcome) { return func(o *spot.Outcome) { o.Result = r } }
func kind(k spot.Kind) func(*spot.Outcome)     { return func(o *spot.Outcome) { o.Event.Kind = k } }
func rehearsal(o *spot.Outcome)                { o.Event.Rehearsal = true }
func old(o *spot.Outcome)                      { o.Instance = spot.InstanceInfo{} }
func noGroup(o *spot.Outcome)                  { o.Instance.Group = "" }
func synthetic(o *spot.Outcome)                { o.Event.ID = "00000000-0000-0000-0000-000000000000" }

func pods(statuses ...spot.PodStatus) func(*spot.Outcome) {
	return func(o *spot.Outcome) {
		for _, s := range statuses {
			o.Pods = append(o.Pods, spot.PodResult{Status: s})
		}
	}
}

func failedLaunch(event string) spot.Outcome {
	return spot.Outcome{Result: spot.ReplacementFailed,
		Event: spot.EventInfo{ID: event, Kind: spot.LaunchFailed, Group: "nodes", Time: since.Add(time.Hour)}}
}

func TestSummary(t *testing.T) {
	one := drained("e1", "i-1", 10)
	for name, c := range map[string]struct {
		outcomes []spot.Outcome
		want     []string // lines of show
	}{
		"none": {nil, []string{"0 events: 0 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 -, p99 -, 0 failed"}},
		"two events": {[]spot.Outcome{one, changed(drained("e2", "i-2", 30), func(o *spot.Outcome) { o.Instance.Zone = "eu-west-1b" })},
			[]string{"2 events: 2 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 10, p99 30, 0 failed",
				"group nodes 2", "type m5.large 2", "zone eu-west-1a 1", "zone eu-west-1b 1", "day 2026-11-01 2"}},
		"a duplicate event": {[]spot.Outcome{one, one, changed(one, result(spot.Expired))},
			[]string{"1 events: 1 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 10, p99 10, 0 failed",
				"group nodes 1", "type m5.large 1", "zone eu-west-1a 1", "day 2026-11-01 1"}},
		"a duplicate event with another result: the most severe": {
			[]spot.Outcome{one, changed(one, result(spot.Incomplete), pods(spot.PodStillRunning, spot.PodForceDeleted)), one},
			[]string{"1 events: 0 drained, 1 incomplete, 0 missed, 0 other, 1 forced, p50 -, p99 -, 0 failed",
				"group nodes 1", "type m5.large 1", "zone eu-west-1a 1", "day 2026-11-01 1"}},
		"one event about several instances": {
			[]spot.Outcome{changed(one, func(o *spot.Outcome) {
				o.Outcomes = []spot.Outcome{changed(one, kind(spot.ScheduledChange)), drained("e1", "i-2", 20), drained("e1", "i-3", 30),
					changed(drained("e1", "i-4", 0), result(spot.OtherCluster))}
			})},
			[]string{"3 events: 3 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 20, p99 30, 0 failed",
				"group nodes 3", "type m5.large 3", "zone eu-west-1a 3", "day 2026-11-01 3"}},
		"results": {[]spot.Outcome{changed(drained("e1", "i-1", 1), result(spot.Missed)), changed(drained("e2", "i-1", 1), result(spot.Cordoned)),
			changed(drained("e3", "i-1", 1), result(spot.NodeNotFound)), changed(drained("e4", "i-1", 1), result(spot.Planned)),
			changed(drained("e5", "i-1", 5), pods(spot.PodForceDeleted, spot.PodEvicted, spot.PodForceDeleted))},
			[]string{"5 events: 1 drained, 1 incomplete, 1 missed, 2 other, 2 forced, p50 5, p99 5, 0 failed",
				"group nodes 5", "type m5.large 5", "zone eu-west-1a 5", "day 2026-11-01 5",
				"other: 1 cordoned", "incomplete: 1 of them node-not-found", "other: 1 planned"}},
		"failed replacements": {[]spot.Outcome{failedLaunch("e1"), failedLaunch("e2"), failedLaunch("e2")},
			[]string{"0 events: 0 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 -, p99 -, 2 failed",
				"group nodes 0, 2 failed", "day 2026-11-01 0, 2 failed"}},
		"not counted": {[]spot.Outcome{changed(one, result(spot.OtherCluster)), changed(one, result(spot.Ignored)),
			changed(one, result(spot.Expired)), changed(one, kind(spot.StateChange), result(spot.CleanedUp)), changed(one, synthetic),
			changed(one, kind(spot.LifecycleTerminate), result(spot.Skipped))},
			[]string{"0 events: 0 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 -, p99 -, 0 failed"}},
		"rehearsals": {[]spot.Outcome{changed(one, rehearsal), changed(drained("e2", "i-1", 1), rehearsal, result(spot.Planned))},
			[]string{"0 events: 0 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 -, p99 -, 0 failed",
				"rehearsals, which are not counted: 2"}},
		"without the instance, and without a group": {[]spot.Outcome{changed(one, old), changed(drained("e2", "i-2", 1), noGroup)},
			[]string{"2 events: 2 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 1, p99 10, 0 failed",
				"group none 1", "group unknown 1", "type m5.large 1", "type unknown 1", "zone eu-west-1a 1", "zone unknown 1", "day 2026-11-01 2"}},
		"an event before the period": {[]spot.Outcome{changed(one, func(o *spot.Outcome) { o.Event.Time = since.Add(-24 * time.Hour) })},
			[]string{"1 events: 1 drained, 0 incomplete, 0 missed, 0 other, 0 forced, p50 10, p99 10, 0 failed",
				"group nodes 1", "type m5.large 1", "zone eu-west-1a 1", "day 2026-11-01 1"}},
	} {
		r := summarize(cluster, since, until, c.outcomes)
		if got, want := strings.Join(show(r), "\n"), strings.Join(c.want, "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		if len(r.Days) != 31 || r.Days[0].Name != "2026-11-01" || r.Days[30].Name != "2026-12-01" {
			t.Errorf("%s: got %d days, %v", name, len(r.Days), r.Days)
		}
	}
}

// show returns the report in short lines, without days on which nothing happened.
func show(r *Report) []string {
	number := func(s *spot.Seconds) string {
		if s == nil {
			return "-"
		}
		return fmt.Sprint(*s)
	}
	all := []string{fmt.Sprintf("%d events: %d drained, %d incomplete, %d missed, %d other, %d forced, p50 %s, p99 %s, %d failed",
		r.Total.Events, r.Total.Results[spot.Drained], r.Total.incomplete(), r.Total.Results[spot.Missed], r.Total.others(),
		r.Total.ForceDeletedPods, number(r.Total.P50), number(r.Total.P99), r.Total.ReplacementFailures)}
	for _, part := range []struct {
		name string
		rows []Row
	}{{"group", r.Groups}, {"type", r.Types}, {"zone", r.Zones}, {"day", r.Days}} {
		for _, row := range part.rows {
			text := fmt.Sprintf("%s %s %d", part.name, row.Name, row.Events)
			if row.ReplacementFailures > 0 {
				text += fmt.Sprintf(", %d failed", row.ReplacementFailures)
			}
			if row.Events > 0 || row.ReplacementFailures > 0 {
				all = append(all, text)
			}
		}
	}
	return append(all, r.Footnotes()...)
}

func TestPercentile(t *testing.T) {
	upTo := func(n int) (all []spot.Seconds) {
		for i := range n {
			all = append(all, spot.Seconds(i+1))
		}
		return all
	}
	for n, want := range map[int][2]spot.Seconds{1: {1, 1}, 2: {1, 2}, 3: {2, 3}, 4: {2, 4}, 99: {50, 99}, 100: {50, 99}, 101: {51, 100},
		1000: {500, 990}} {
		if p50, p99 := *percentile(upTo(n), 50), *percentile(upTo(n), 99); p50 != want[0] || p99 != want[1] {
			t.Errorf("of 1 to %d: got %v and %v, want %v", n, p50, p99, want)
		}
	}
	if percentile(nil, 50) != nil {
		t.Error("got a percentile of nothing")
	}
}

var htmlFile = flag.String("html", "", "write the page of the sample data to this file")

// TestSample writes a page of 1,000 simulated interruptions: go test ./internal/report -run TestSample -html FILE
func TestSample(t *testing.T) {
	r := summarize(cluster, since, until, sample())
	r.Notices = append(r.Notices, "Sample data: these interruptions never happened")
	if r.Total.Events != 1000 {
		t.Errorf("got %d events", r.Total.Events)
	}
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{"Sample data: these interruptions never happened", "<td>nodes-spot-a.prod.example.com</td>",
		"<td>c6i.2xlarge</td>", "other: 4 cordoned"} {
		if !strings.Contains(b.String(), says) {
			t.Errorf("%q is missing", says)
		}
	}
	if n := strings.Count(b.String(), "<svg "); n != 3 {
		t.Errorf("got %d charts", n)
	}
	if *htmlFile != "" {
		if err := os.WriteFile(*htmlFile, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// sample returns the outcomes of 1,000 events, some of them delivered twice, and of failed replacements.
func sample() (all []spot.Outcome) {
	random := rand.New(rand.NewPCG(1, 2))
	types := []string{"m5.large", "m5.xlarge", "m6i.xlarge", "c6i.2xlarge", "r5.xlarge", "m5a.xlarge", "c5.2xlarge"}
	for i := range 1000 {
		z := random.IntN(3)
		out := drained(fmt.Sprint("e", i), fmt.Sprintf("i-%017x", i), spot.Seconds(4+random.ExpFloat64()*(9+3*float64(z))))
		*out.Timings.Empty = min(*out.Timings.Empty, 115)
		out.Event.Time = since.Add(time.Duration(random.Float64() * float64(30*24*time.Hour)))
		if day := out.Event.Time.Day(); day%7 == 4 && i%3 > 0 { // fewer at times
			out.Event.Time = out.Event.Time.Add(3 * 24 * time.Hour)
		}
		zone := string(rune('a' + z))
		out.Instance = spot.InstanceInfo{Group: "nodes-spot-" + zone + "." + cluster, Zone: "eu-west-1" + zone, Lifecycle: "spot",
			Type: types[int(float64(len(types))*random.Float64()*random.Float64())]}
		switch n := random.IntN(1000); {
		case i%250 == 0:
			out.Result = spot.Cordoned
		case n < 6:
			out.Result = spot.Missed
		case n < 30:
			out.Result, out.Pods = spot.Incomplete, []spot.PodResult{{Status: spot.PodStillRunning}}
		case n < 90:
			out.Pods = []spot.PodResult{{Status: spot.PodForceDeleted}, {Status: spot.PodEvicted}}
		}
		all = append(all, out)
		if n := i % 100; n == 0 {
			all = append(all, out)
		} else if n == 50 {
			failed := failedLaunch(fmt.Sprint("f", i))
			failed.Event.Group, failed.Event.Time = out.Instance.Group, out.Event.Time
			all = append(all, failed)
		}
	}
	return all
}

// TestHTML: without an event, there is nothing to draw.
func TestHTML(t *testing.T) {
	for name, outcomes := range map[string][]spot.Outcome{"an event": {drained("e1", "i-1", 1)}, "nothing": nil, "only a failed replacement": {failedLaunch("e1")}} {
		r := summarize(cluster, since, until, outcomes)
		r.Notices = []string{"a < b"}
		var b bytes.Buffer
		if err := r.HTML(&b); err != nil {
			t.Fatal(err)
		}
		if page := b.String(); !strings.Contains(page, "a &lt; b") || strings.Count(page, "<svg ") != 3*r.Total.Events {
			t.Errorf("%s: got\n%s", name, page)
		}
	}
}

// TestJSON: all times of a report are in UTC, and keys are in snake case.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(summarize(cluster, since.In(time.FixedZone("x", 3600)), until, []spot.Outcome{drained("e1", "i-1", 12.5)}))
	if err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{`{"cluster":"prod.example.com","since":"2026-11-01T09:30:00Z","until":"2026-12-01T09:30:00Z"`,
		`"total":{"events":1,"results":{"drained":1,"incomplete":0,"missed":0},"force_deleted_pods":0,"time_to_empty_p50":12.5,"time_to_empty_p99":12.5}`,
		`"groups":[{"name":"nodes","events":1,`, `"rehearsals":0}`} {
		if !strings.Contains(string(text), says) {
			t.Errorf("%s is missing in %s", says, text)
		}
	}
}
