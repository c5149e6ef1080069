package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/test/testenv"
)

const ms = time.Millisecond

// TestStatsOfOneDrain uses a round trip of 20 ms: the node is read, then cordoned while its pods are listed, then one
// pod is evicted and the eviction of another is refused.
func TestStatsOfOneDrain(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	request := func(id, verb, resource, sub, name string, code int, in, out time.Duration) testenv.AuditRecord {
		return testenv.AuditRecord{ID: id, UserAgent: "bench/1", Verb: verb, Resource: resource, Subresource: sub,
			Name: name,
			Code: code, Received: at(in), Answered: at(out)}
	}
	requests := []testenv.AuditRecord{
		request("0", "get", "nodes", "", "n", 200, -50*ms, -49*ms), // preparation
		request("1", "get", "nodes", "", "n", 200, 50*ms, 52*ms),
		request("2", "patch", "nodes", "", "n", 200, 73*ms, 78*ms),
		request("3", "list", "pods", "", "", 200, 73*ms, 75*ms),
		request("4", "create", "pods", "eviction", "a", 201, 99*ms, 105*ms),
		request("5", "create", "pods", "eviction", "b", 429, 99*ms, 101*ms),
		request("6", "create", "pods", "eviction", "b", 201, 700*ms, 710*ms),
		request("7", "create", "events", "", "", 201, 720*ms, 721*ms),
		{ID: "8", UserAgent: "bench/2", Verb: "list", Resource: "nodes", Code: 200, Received: at(ms),
			Answered: at(2 * ms)},
	}
	pods := []testenv.KubeletRecord{
		{UID: "ua", Event: testenv.PodSigTerm, Time: at(105 * ms)},
		{UID: "ua", Event: testenv.PodExited, Time: at(1105 * ms)},
		{UID: "ua", Event: testenv.PodRemoved, Time: at(1115 * ms)},
		{UID: "ub", Event: testenv.PodSigTerm, Time: at(710 * ms)},
		{UID: "ub", Event: testenv.PodExited, Time: at(3 * time.Second)}, // after the instance terminated
		{UID: "ub", Event: testenv.PodRemoved, Time: at(3010 * ms)},
	}
	trials := []trial{{id: "bench/1", start: start, end: at(2 * time.Second), returned: 4 * time.Second, received: 2e6,
		pods: []pod{{uid: "ua", node: "n"}, {uid: "ub", node: "n"}},
		scenario: scenario{nodes: []testenv.Node{{Name: "n", InstanceID: "i-1"}}, pods: 2, stop: time.Second,
			latency: 20 * ms}}}
	readStats(trials, requests, pods)
	got := trials[0].stats
	want := stats{firstCordon: 0.078, lastCordon: 0.078, firstEviction: 0.105, lastEviction: 0.71, empty: 2.01,
		returned: 4,
		requests: 6, events: 1, refused: 1, received: 2, nodesEmpty: 0, podsTerminated: 2, podsExited: 1, guardedSigTerm: 0.105,
		tripsToCordon: 2, tripsToEviction: 3, roundsBefore: 2, roundsToCordon: 4.15, roundsToEviction: 5.45}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestStatsOfNothing checks that missing records mean never, not zero.
func TestStatsOfNothing(t *testing.T) {
	trials := []trial{{id: "bench/1", pods: []pod{{uid: "ua", node: "n"}},
		scenario: scenario{nodes: []testenv.Node{{Name: "n"}}, pods: 1, latency: 20 * ms}}}
	readStats(trials, nil, nil)
	s := trials[0].stats
	for name, v := range map[string]float64{
		"cordon": s.lastCordon, "eviction": s.lastEviction, "empty": s.empty, "round trips": s.tripsToCordon} {
		if !math.IsInf(v, 1) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if s.nodesEmpty != 0 {
		t.Errorf("%v nodes are empty", s.nodesEmpty)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{1, 2}, 2}, {[]float64{never, 1, never}, never}} {
		if got := median(c.of); got != c.want {
			t.Errorf("%v: %v, want %v", c.of, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	example := table{title: "one and another",
		columns: []column{{name: "time", unit: seconds}, {name: "requests"}, {name: "done", total: 50},
			{name: "lists", plain: true}, {name: "size", unit: megabytes}},
		rows: []row{
			{"ours", []float64{0.1234, 34, 50, 0, 7.041}},
			{"theirs", []float64{12.34, 79, 20, 2, 3.5}},
			{"nobody's", []float64{math.Inf(1), 0, 0, 2, 704}},
		}}
	want := `**one and another**

| | time | requests | done | lists | size |
|---|---|---|---|---|---|
| ours | 0.123 s (1.0×) | 34 (1.0×) | 50 of 50 | 0 | 7.04 MB (1.0×) |
| theirs | 12.3 s (100×) | 79 (2.3×) | 20 of 50 | 2 | 3.50 MB (0.5×) |
| nobody's | never | 0 (0.0×) | 0 of 50 | 2 | 704 MB (100×) |
`
	if got := example.Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var b strings.Builder
	example.text(&b)
	if want := "theirs    12.3 s (100×)   79 (2.3×)  20 of 50  2      3.50 MB (0.5×)\n"; !strings.Contains(b.String(),
		want) {
		t.Errorf("%q is not in\n%s", want, b.String())
	}
}
