// Package figures makes figures of what the API server and the kubelets noted of a trial. The contender is not asked: it
// may think that it is done when it is not, and notice late that it is.
package figures

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/castai/kops-spot/test/bench/stage"
	"github.com/castai/kops-spot/test/testenv"
)

// Figures are what is compared. Moments are in seconds from the event; what never happened is +Inf.
type Figures struct {
	FirstCordon, LastCordon     float64 // answered
	FirstEviction, LastEviction float64 // answered
	Empty                       float64 // the last node was empty, less the time that its pods take to stop
	Returned                    float64 // the contender thought that it was done

	Requests float64 // without Events
	Events   float64 // Kubernetes Events that it sent
	Refused  float64 // requests with another answer than success or not found
	Lists    float64 // of nodes, each page
	Received float64 // MB, on the wire

	NodesEmpty  float64 // when the machines ended
	PodsTold    float64 // got SIGTERM before the machines ended
	PodsStopped float64 // ended by themselves before the machines ended

	// Trips are how many requests came one after another, each sent when the one before had been answered: the longest
	// such row that ends with the first cordon, or with the first eviction.
	TripsToCordon, TripsToEviction float64
	// Rounds are how much time passed, in round trips of Scene.Away: until the first request was sent, and until the answer
	// to the first cordon and to the first eviction came back, were the server to take no time over these two.
	RoundsBefore, RoundsToCordon, RoundsToEviction float64
}

// Never is a moment that does not come.
func Never() float64 { return math.Inf(1) }

// Read makes figures of trials.
func Read(trials []stage.Trial, requests []testenv.AuditRecord, pods []testenv.KubeletRecord) []Figures {
	byAgent := map[string][]testenv.AuditRecord{}
	for _, r := range requests {
		byAgent[r.UserAgent] = append(byAgent[r.UserAgent], r)
	}
	byPod := map[string][]testenv.KubeletRecord{}
	for _, r := range pods {
		byPod[r.UID] = append(byPod[r.UID], r)
	}
	all := make([]Figures, len(trials))
	for i, t := range trials {
		all[i].Returned = t.Returned.Seconds()
		all[i].Received = float64(t.Received) / 1e6
		// What came before the event was preparation.
		asked := slices.DeleteFunc(slices.Clone(byAgent[t.ID]), func(r testenv.AuditRecord) bool { return r.Received.Before(t.Start) })
		all[i].readRequests(t, asked)
		all[i].readPods(t, byPod)
	}
	return all
}

func (f *Figures) readRequests(t stage.Trial, asked []testenv.AuditRecord) {
	cordoned := map[string]testenv.AuditRecord{} // by node
	var evicted []testenv.AuditRecord
	for _, r := range asked {
		if r.Resource == "events" {
			f.Events++
			continue
		}
		f.Requests++
		switch {
		case r.Code >= 300 && r.Code != 404:
			f.Refused++
		case r.Resource == "nodes" && r.Verb == "list":
			f.Lists++
		case r.Resource == "nodes" && r.Verb == "patch" && r.Code == 200:
			if _, again := cordoned[r.Name]; !again {
				cordoned[r.Name] = r
			}
		case r.Resource == "pods" && (r.Subresource == "eviction" || r.Verb == "delete") && r.Code < 300:
			evicted = append(evicted, r)
		}
	}
	var cordons []testenv.AuditRecord
	for _, r := range cordoned {
		cordons = append(cordons, r)
	}
	after := func(at time.Time) float64 { return at.Sub(t.Start).Seconds() }
	f.FirstCordon, f.LastCordon = span(cordons, len(t.Scene.Nodes), after)
	f.FirstEviction, f.LastEviction = span(evicted, len(t.Pods), after)

	if t.Scene.Away > 0 {
		round := t.Scene.Away.Seconds()
		if len(asked) > 0 {
			f.RoundsBefore = max(0, after(asked[0].Received)/round-0.5)
		}
		f.TripsToCordon, f.RoundsToCordon = first(cordons, asked, t, round)
		f.TripsToEviction, f.RoundsToEviction = first(evicted, asked, t, round)
	}
}

// first is how many round trips it took to the first of some requests: by the order of all, and by the time.
func first(of, asked []testenv.AuditRecord, t stage.Trial, round float64) (trip, rounds float64) {
	if len(of) == 0 {
		return Never(), Never()
	}
	r := slices.MinFunc(of, byArrival)
	return float64(trips(asked, r, t.Scene.Away)), r.Received.Sub(t.Start).Seconds()/round + 0.5
}

func byArrival(a, b testenv.AuditRecord) int { return a.Received.Compare(b.Received) }

// span is when the first and the last of n requests was answered.
func span(rs []testenv.AuditRecord, n int, after func(time.Time) float64) (first, last float64) {
	first, last = Never(), 0
	for _, r := range rs {
		first, last = min(first, after(r.Answered)), max(last, after(r.Answered))
	}
	if len(rs) < n {
		last = Never()
	}
	return first, last
}

// trips is the length of the longest row of requests that ends with the given one and in which each came in only after
// the answer to the one before it could have reached its sender and a request come back from there.
func trips(asked []testenv.AuditRecord, last testenv.AuditRecord, away time.Duration) int {
	longest := make([]int, len(asked)) // that ends with each; they are in the order in which they came in
	for i, r := range asked {
		for j, before := range asked[:i] {
			// The server's clock is read a moment after a request comes in and after its answer has gone.
			if !before.Answered.Add(away * 9 / 10).After(r.Received) {
				longest[i] = max(longest[i], longest[j])
			}
		}
		longest[i]++
		if r.ID == last.ID {
			return longest[i]
		}
	}
	return 0
}

func (f *Figures) readPods(t stage.Trial, byPod map[string][]testenv.KubeletRecord) {
	empty := map[string]float64{} // by node
	for _, n := range t.Scene.Nodes {
		empty[n.Object().Name] = 0
	}
	for _, p := range t.Pods {
		removed := Never()
		for _, r := range byPod[p.UID] {
			inTime := r.Time.Before(t.Ends)
			switch {
			case r.Event == testenv.PodSigTerm && inTime:
				f.PodsTold++
			case r.Event == testenv.PodExited && inTime:
				f.PodsStopped++
			case r.Event == testenv.PodRemoved:
				removed = r.Time.Sub(t.Start).Seconds()
			}
		}
		empty[p.Node] = max(empty[p.Node], removed)
	}
	for _, at := range empty {
		if at <= t.Ends.Sub(t.Start).Seconds() {
			f.NodesEmpty++
		}
		f.Empty = max(f.Empty, at-t.Scene.Stop.Seconds())
	}
}

// Median is the one in the middle; of two in the middle, the worse.
func Median(values []float64) float64 {
	values = slices.SortedFunc(slices.Values(values), cmp.Compare[float64])
	return values[len(values)/2]
}
