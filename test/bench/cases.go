package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// workload is a number of nodes to drain at once, and the pods on each.
type workload struct {
	nodes, pods int
	stop        time.Duration // from a pod's SIGTERM to its exit
	rounds      int           // more for short trials, where noise weighs more
}

func (w workload) String() string {
	nodes := fmt.Sprintf("%d nodes at once", w.nodes)
	if w.nodes == 1 {
		nodes = "1 node"
	}
	return fmt.Sprintf("%s, %d pods each that stop in %s", nodes, w.pods, w.stop)
}

func (w workload) scenario(b *bench) scenario {
	return scenario{nodes: b.nodes[:w.nodes], pods: w.pods, stop: w.stop}
}

type sizes struct {
	drains                []workload
	storm                 workload // the largest; takes minutes with kubectl drain's default limit
	single                workload // for cases where the number of nodes does not matter
	receivers             workload // with receivers of notifications, where small differences matter
	clusters              []int    // cluster sizes, in nodes
	starts                int      // cold starts of each function
	zips                  bool     // measure the zips too
	few                   bool     // only the first and the last drainer of each comparison
	guardedStop, timeLeft time.Duration
	lost                  lostNodeSizes
	lambda                slotSizes
}

func full() sizes {
	return sizes{
		drains:      []workload{{1, 30, time.Second, 5}, {20, 4, time.Second, 3}},
		storm:       workload{50, 4, 5 * time.Second, 3},
		single:      workload{1, 10, 300 * time.Millisecond, 7},
		clusters:    []int{100, 1000, 5000},
		receivers:   workload{1, 10, time.Second, 11},
		starts:      25,
		zips:        true,
		guardedStop: 5 * time.Second, timeLeft: 25 * time.Second,
		lost: lostNodeSizes{unmount: 30 * time.Second, rounds: 20, others: true},
		lambda: slotSizes{nodes: 50, pods: 4, limits: []int{10, 25, 50},
			stops:    []time.Duration{5 * time.Second, 15 * time.Second, 30 * time.Second},
			timeLeft: notice, cleanUp: time.Minute, stagger: 12 * time.Second},
	}
}

func quick() sizes {
	return sizes{
		storm:       workload{2, 2, 100 * time.Millisecond, 1},
		single:      workload{1, 2, 100 * time.Millisecond, 1},
		receivers:   workload{1, 2, 100 * time.Millisecond, 1},
		clusters:    []int{10},
		starts:      1,
		few:         true,
		guardedStop: 100 * time.Millisecond, timeLeft: 4 * time.Second,
		lost: lostNodeSizes{unmount: 2 * time.Second, rounds: 1},
		lambda: slotSizes{nodes: 2, pods: 2, limits: []int{1, 2}, stops: []time.Duration{100 * time.Millisecond},
			timeLeft: 20 * time.Second, cleanUp: 10 * time.Second},
	}
}

// Columns of more than one case.
var (
	lastCordon   = column{name: "last cordon", unit: seconds, value: func(s stats) float64 { return s.lastCordon }}
	lastEviction = column{name: "last eviction accepted", unit: seconds,
		value: func(s stats) float64 { return s.lastEviction }}
	requests = column{name: "requests", value: func(s stats) float64 { return s.requests }}
	returned = column{name: "returned", unit: seconds, value: func(s stats) float64 { return s.returned }}
)

// drain measures Spot warnings for one, several and many nodes at once.
func (b *bench) drain(ctx context.Context) (tables []table, err error) {
	for _, w := range append(b.drains, b.storm) {
		drainers := []drainer{kopsSpot, kubectlA, kubectlB, kubectlC}
		if w == b.storm {
			drainers = slices.Insert(drainers, 2, kubectlALookups)
			drainers[1].once, drainers[2].once = true, true
		}
		t, err := b.compare(ctx, w.String(), w.scenario(b), w.rounds, []column{
			lastCordon,
			lastEviction,
			{name: "last node empty, beyond the pods' stop", unit: seconds,
				value: func(s stats) float64 { return s.empty }},
			{name: "nodes empty at 120 s", total: float64(w.nodes),
				value: func(s stats) float64 { return s.nodesEmpty }},
			requests,
			{name: "Kubernetes Events", plain: true, value: func(s stats) float64 { return s.events }},
			returned,
		}, drainers)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t...)
	}
	return tables, nil
}

// guarded measures a pod whose PodDisruptionBudget never allows its eviction, with and without a kubelet that delays the
// shutdown of the instance.
func (b *bench) guarded(ctx context.Context) ([]table, error) {
	const pods = 4
	sc := scenario{nodes: b.nodes[:1], pods: pods, stop: b.guardedStop, grace: max(2*b.guardedStop, time.Second),
		guarded: true, timeLeft: b.timeLeft}
	title := fmt.Sprintf("1 node, %d pods that stop in %s, one with a budget that never allows its eviction; "+
		"the instance shuts down after %s", pods, sc.stop, sc.timeLeft)
	return b.compare(ctx, title, sc, 1, []column{
		{name: "pods that got SIGTERM", total: pods, value: func(s stats) float64 { return s.podsTerminated }},
		{name: "pods that stopped by themselves", total: pods, value: func(s stats) float64 { return s.podsExited }},
		{name: "SIGTERM of the guarded pod", unit: seconds, plain: true,
			value: func(s stats) float64 { return s.guardedSigTerm }},
		{name: "requests refused", value: func(s stats) float64 { return s.refused }},
		requests,
		returned,
	}, []drainer{kopsSpot, kopsSpot.withWindow(), kopsSpotWindow.withWindow(), kubectlA, kubectlA.withWindow()})
}

// latency measures with a distant API server.
func (b *bench) latency(ctx context.Context) ([]table, error) {
	sc := b.single.scenario(b)
	sc.latency = 20 * time.Millisecond // many times the latency within a region, so that it dominates
	title := fmt.Sprintf("%s, %s added to each round trip", b.single, sc.latency)
	return b.compare(ctx, title, sc, b.single.rounds, []column{
		{name: "cordon", unit: milliseconds, value: func(s stats) float64 { return s.firstCordon * 1000 }},
		{name: "first eviction", unit: milliseconds, value: func(s stats) float64 { return s.firstEviction * 1000 }},
		{name: "last eviction", unit: milliseconds, value: func(s stats) float64 { return s.lastEviction * 1000 }},
		{name: "round trips before the first request", plain: true,
			value: func(s stats) float64 { return s.roundsBefore }},
		{name: "to the cordon, by the order of requests", plain: true,
			value: func(s stats) float64 { return s.tripsToCordon }},
		{name: "to the cordon, by the time", plain: true, value: func(s stats) float64 { return s.roundsToCordon }},
		{name: "to the first eviction, by the order", plain: true,
			value: func(s stats) float64 { return s.tripsToEviction }},
		{name: "to the first eviction, by the time", plain: true,
			value: func(s stats) float64 { return s.roundsToEviction }},
	}, []drainer{kopsSpot, kopsSpotWarm, kubectlA, kubectlB, kubectlC})
}

// growth drains the same node in clusters of increasing size.
func (b *bench) growth(ctx context.Context) (tables []table, err error) {
	unnamed := kopsSpot
	unnamed.name += ", no name fits the instance"
	if unnamed.nodes, err = b.cluster.addUnnamedNode(ctx); err != nil {
		return nil, err
	}
	for _, size := range b.clusters {
		if _, err := b.cluster.addNodes(ctx, max(0, size-b.cluster.nodes)); err != nil {
			return nil, err
		}
		cordon := lastCordon
		cordon.name = "cordon"
		title := fmt.Sprintf("%s, in a cluster of %d nodes", b.single, size)
		t, err := b.compare(ctx, title, b.single.scenario(b), b.single.rounds, []column{
			cordon,
			lastEviction,
			requests,
			{name: "lists of nodes", plain: true, value: func(s stats) float64 { return s.lists }},
			{name: "received", unit: megabytes, value: func(s stats) float64 { return s.received }},
		}, []drainer{kopsSpot, kubectlA, kubectlALookups, unnamed})
		if err != nil {
			return nil, err
		}
		tables = append(tables, t...)
	}
	return tables, nil
}
