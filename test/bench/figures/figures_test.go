package figures

import (
	"math"
	"testing"
	"time"

	"github.com/castai/kops-spot/test/bench/stage"
	"github.com/castai/kops-spot/test/testenv"
)

const ms = time.Millisecond

// TestReadFollowsOneDrain over a round trip of 20 ms: the node is read, then cordoned beside a list of its pods, then one
// pod is evicted; another one's eviction is refused.
func TestReadFollowsOneDrain(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	request := func(id, verb, resource, sub, name string, code int, in, out time.Duration) testenv.AuditRecord {
		return testenv.AuditRecord{ID: id, UserAgent: "bench/1", Verb: verb, Resource: resource, Subresource: sub, Name: name, Code: code,
			Received: at(in), Answered: at(out)}
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
		{ID: "8", UserAgent: "bench/2", Verb: "list", Resource: "nodes", Code: 200, Received: at(ms), Answered: at(2 * ms)},
	}
	pods := []testenv.KubeletRecord{
		{UID: "ua", Event: testenv.PodSigTerm, Time: at(105 * ms)},
		{UID: "ua", Event: testenv.PodExited, Time: at(1105 * ms)},
		{UID: "ua", Event: testenv.PodRemoved, Time: at(1115 * ms)},
		{UID: "ub", Event: testenv.PodSigTerm, Time: at(710 * ms)},
		{UID: "ub", Event: testenv.PodExited, Time: at(3 * time.Second)}, // the machine has ended before
		{UID: "ub", Event: testenv.PodRemoved, Time: at(3010 * ms)},
	}
	trial := stage.Trial{ID: "bench/1", Start: start, Ends: at(2 * time.Second), Returned: 4 * time.Second, Received: 2e6,
		Pods:  []stage.Pod{{UID: "ua", Node: "n"}, {UID: "ub", Node: "n"}},
		Scene: stage.Scene{Nodes: []testenv.Node{{Name: "n", InstanceID: "i-1"}}, Pods: 2, Stop: time.Second, Away: 20 * ms}}
	got := Read([]stage.Trial{trial}, requests, pods)[0]
	want := Figures{FirstCordon: 0.078, LastCordon: 0.078, FirstEviction: 0.105, LastEviction: 0.71, Empty: 2.01, Returned: 4,
		Requests: 6, Events: 1, Refused: 1, Received: 2, NodesEmpty: 0, PodsTold: 2, PodsStopped: 1,
		TripsToCordon: 2, TripsToEviction: 3, RoundsBefore: 2, RoundsToCordon: 4.15, RoundsToEviction: 5.45}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestReadOfNothing: what never happened is never, not at once.
func TestReadOfNothing(t *testing.T) {
	trial := stage.Trial{ID: "bench/1", Pods: []stage.Pod{{UID: "ua", Node: "n"}},
		Scene: stage.Scene{Nodes: []testenv.Node{{Name: "n"}}, Pods: 1, Away: 20 * ms}}
	f := Read([]stage.Trial{trial}, nil, nil)[0]
	for name, v := range map[string]float64{"cordon": f.LastCordon, "eviction": f.LastEviction, "empty": f.Empty, "round trips": f.TripsToCordon} {
		if !math.IsInf(v, 1) {
			t.Errorf("%s: %v", name, v)
		}
	}
	if f.NodesEmpty != 0 {
		t.Errorf("%v nodes are empty", f.NodesEmpty)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1, 2}, 2}, {[]float64{1, 2}, 2}, {[]float64{Never(), 1, Never()}, Never()}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("%v: %v, want %v", c.of, got, c.want)
		}
	}
}
