package main

import (
	"cmp"
	"math"
	"slices"

	"github.com/castai/kops-spot/test/testenv"
)

// stats are the measured values. They come from the records of the API server and the kubelets, not from the drainer,
// which may return before its nodes are empty or long after. Times are in seconds from the event; +Inf means never.
type stats struct {
	firstCordon, lastCordon     float64 // answered
	firstEviction, lastEviction float64 // answered
	empty                       float64 // the last node, minus the time that its pods take to stop
	returned                    float64 // by the drainer

	requests float64 // without Events
	events   float64 // Kubernetes Events sent
	refused  float64 // requests whose response was neither success nor not found
	lists    float64 // pages of node lists
	received float64 // MB, on the wire

	nodesEmpty     float64 // when the instances terminated
	podsTerminated float64 // got SIGTERM before the instances terminated
	podsExited     float64 // exited by themselves before the instances terminated
	guardedSigTerm float64 // when the first pod, which a budget may guard, got SIGTERM

	// Trips is the length of the longest chain of sequential requests that leads to the first cordon or eviction.
	tripsToCordon, tripsToEviction float64
	// Rounds are times in units of scenario.latency until the first request was sent, and until the response to the
	// first cordon or eviction arrived, without the server's processing time for that request.
	roundsBefore, roundsToCordon, roundsToEviction float64
}

var never = math.Inf(1)

// readStats sets the stats of the trials.
func readStats(trials []trial, requests []testenv.AuditRecord, pods []testenv.KubeletRecord) {
	byAgent := map[string][]testenv.AuditRecord{}
	for _, r := range requests {
		byAgent[r.UserAgent] = append(byAgent[r.UserAgent], r)
	}
	byPod := map[string][]testenv.KubeletRecord{}
	for _, r := range pods {
		byPod[r.UID] = append(byPod[r.UID], r)
	}
	for i := range trials {
		t := &trials[i]
		t.stats = stats{returned: t.returned.Seconds(), received: float64(t.received) / 1e6}
		// Requests before the event are part of the preparation.
		t.readRequests(slices.DeleteFunc(byAgent[t.id],
			func(r testenv.AuditRecord) bool { return r.Received.Before(t.start) }))
		t.readPods(byPod)
	}
}

func (t *trial) readRequests(all []testenv.AuditRecord) {
	s := &t.stats
	cordoned := map[string]bool{} // by node
	var cordons, evictions []testenv.AuditRecord
	for _, r := range all {
		if r.Resource == "events" {
			s.events++
			continue
		}
		s.requests++
		switch {
		case r.Code >= 300 && r.Code != 404:
			s.refused++
		case r.Resource == "nodes" && r.Verb == "list":
			s.lists++
		case r.Resource == "nodes" && r.Verb == "patch" && r.Code == 200 && !cordoned[r.Name]:
			cordoned[r.Name] = true
			cordons = append(cordons, r)
		case r.Resource == "pods" && (r.Subresource == "eviction" || r.Verb == "delete") && r.Code < 300:
			evictions = append(evictions, r)
		}
	}
	s.firstCordon, s.lastCordon = t.span(cordons, len(t.scenario.nodes))
	s.firstEviction, s.lastEviction = t.span(evictions, len(t.pods))
	if t.scenario.latency > 0 {
		if len(all) > 0 {
			s.roundsBefore = max(0, t.rounds(all[0])-1)
		}
		s.tripsToCordon, s.roundsToCordon = t.first(cordons, all)
		s.tripsToEviction, s.roundsToEviction = t.first(evictions, all)
	}
}

// span returns when the first and the last of n requests were answered.
func (t *trial) span(rs []testenv.AuditRecord, n int) (first, last float64) {
	first = never
	for _, r := range rs {
		at := r.Answered.Sub(t.start).Seconds()
		first, last = min(first, at), max(last, at)
	}
	if len(rs) < n {
		last = never
	}
	return first, last
}

// first returns the number of round trips up to the earliest of the requests, by order and by time.
func (t *trial) first(of, all []testenv.AuditRecord) (trips, rounds float64) {
	if len(of) == 0 {
		return never, never
	}
	r := slices.MinFunc(of, func(a, b testenv.AuditRecord) int { return a.Received.Compare(b.Received) })
	return float64(t.trips(all, r)), t.rounds(r)
}

// rounds returns the time until the response to a request, without the server's processing time.
func (t *trial) rounds(r testenv.AuditRecord) float64 {
	return r.Received.Sub(t.start).Seconds()/t.scenario.latency.Seconds() + 0.5
}

// trips returns the length of the longest chain of requests that ends with last, in which each request arrived late
// enough to have been sent after the response to the previous one.
func (t *trial) trips(all []testenv.AuditRecord, last testenv.AuditRecord) int {
	longest := make([]int, len(all)) // chain that ends with each request; all is sorted by arrival
	for i, r := range all {
		for j, before := range all[:i] {
			// The server reads its clock slightly after a request has arrived and after the response is sent.
			if !before.Answered.Add(t.scenario.latency * 9 / 10).After(r.Received) {
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

func (t *trial) readPods(byPod map[string][]testenv.KubeletRecord) {
	s := &t.stats
	empty := map[string]float64{} // by node
	for _, n := range t.scenario.nodes {
		empty[n.Object().Name] = 0
	}
	s.guardedSigTerm = never
	for i, p := range t.pods {
		removed := never
		for _, r := range byPod[p.uid] {
			inTime := r.Time.Before(t.end)
			switch {
			case r.Event == testenv.PodSigTerm && inTime:
				s.podsTerminated++
				if i == 0 {
					s.guardedSigTerm = r.Time.Sub(t.start).Seconds()
				}
			case r.Event == testenv.PodExited && inTime:
				s.podsExited++
			case r.Event == testenv.PodRemoved:
				removed = r.Time.Sub(t.start).Seconds()
			}
		}
		empty[p.node] = max(empty[p.node], removed)
	}
	for _, at := range empty {
		if at <= t.end.Sub(t.start).Seconds() {
			s.nodesEmpty++
		}
		s.empty = max(s.empty, at-t.scenario.stop.Seconds())
	}
}

// medians returns the cells of a row.
func medians(all []stats, columns []column) (cells []float64) {
	for _, c := range columns {
		var values []float64
		for _, s := range all {
			values = append(values, c.value(s))
		}
		cells = append(cells, median(values))
	}
	return cells
}

// median returns the middle value, or the larger of the two middle values.
func median(values []float64) float64 {
	return slices.SortedFunc(slices.Values(values), cmp.Compare[float64])[len(values)/2]
}
