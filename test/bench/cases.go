package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/castai/kops-spot/test/bench/coldstart"
	"github.com/castai/kops-spot/test/bench/contender"
	"github.com/castai/kops-spot/test/bench/figures"
	"github.com/castai/kops-spot/test/bench/report"
	"github.com/castai/kops-spot/test/bench/stage"
)

// crowd is nodes with pods that take a while to stop.
type crowd struct {
	nodes, pods int
	stop        time.Duration
	rounds      int // the shorter a trial, the more a tenth of a second by chance is of it
}

func (c crowd) String() string {
	nodes := fmt.Sprintf("%d nodes at once", c.nodes)
	if c.nodes == 1 {
		nodes = "1 node"
	}
	return fmt.Sprintf("%s, %d pods each that stop in %s", nodes, c.pods, c.stop)
}

// sizes are how much of everything there is.
type sizes struct {
	drains            []crowd
	storm             crowd // has the most nodes; the incumbent's limit makes it take minutes
	near              crowd // for what does not depend on the number of nodes
	clusters          []int
	starts            int
	zips              bool
	guardedStop, left time.Duration
	wreck             wreck
}

func full() sizes {
	return sizes{
		drains:      []crowd{{1, 30, time.Second, 5}, {20, 4, time.Second, 3}},
		storm:       crowd{50, 4, 5 * time.Second, 3},
		near:        crowd{1, 10, 300 * time.Millisecond, 7},
		clusters:    []int{100, 1000, 5000},
		starts:      25,
		zips:        true,
		guardedStop: 5 * time.Second, left: 25 * time.Second,
		wreck: wreck{unmount: 30 * time.Second, cloud: 10 * time.Second, rounds: 5, others: true},
	}
}

func quick() sizes {
	return sizes{
		storm:       crowd{2, 2, 100 * time.Millisecond, 1},
		near:        crowd{1, 2, 100 * time.Millisecond, 1},
		clusters:    []int{10},
		starts:      1,
		guardedStop: 100 * time.Millisecond, left: 4 * time.Second,
		wreck: wreck{unmount: 2 * time.Second, rounds: 1},
	}
}

func (c crowd) scene(b *bench) stage.Scene {
	return stage.Scene{Nodes: b.nodes[:c.nodes], Pods: c.pods, Stop: c.stop}
}

func seconds(name string, of func(figures.Figures) float64) column {
	return column{report.Column{Name: name, Unit: report.Seconds}, of}
}

func count(name string, of func(figures.Figures) float64) column {
	return column{report.Column{Name: name}, of}
}

func requests() column {
	return count("requests", func(f figures.Figures) float64 { return f.Requests })
}

// drain is a Spot warning for one node, for some, and for many at once.
func (b *bench) drain(ctx context.Context) (tables []report.Table, err error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	for _, c := range append(b.drains, b.storm) {
		all := entries(contender.KopsSpot(), contender.Incumbent().Contender(), contender.ClientEach().Contender(), contender.Unlimited().Contender())
		if c == b.storm {
			all = slices.Insert(all, 2, entries(contender.SearchingIncumbent().Contender())...)
			all[1].once, all[2].once = true, true
		}
		t, err := b.compare(ctx, c.String(), c.scene(b), c.rounds, []column{
			seconds("last cordon", func(f figures.Figures) float64 { return f.LastCordon }),
			seconds("last eviction accepted", func(f figures.Figures) float64 { return f.LastEviction }),
			seconds("last node empty, beyond the pods' stop", func(f figures.Figures) float64 { return f.Empty }),
			{report.Column{Name: "nodes empty at 120 s", Of: float64(c.nodes)}, func(f figures.Figures) float64 { return f.NodesEmpty }},
			requests(),
			{report.Column{Name: "Kubernetes Events", Plain: true}, func(f figures.Figures) float64 { return f.Events }},
			seconds("returned", func(f figures.Figures) float64 { return f.Returned }),
		}, all)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// guarded is a pod whose budget never lets it go, on a machine that ends.
func (b *bench) guarded(ctx context.Context) ([]report.Table, error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	const pods = 4
	sc := stage.Scene{Nodes: b.nodes[:1], Pods: pods, Stop: b.guardedStop, Grace: max(2*b.guardedStop, time.Second), Guarded: true, Left: b.left}
	all := entries(contender.KopsSpot(), contender.Incumbent().Contender())
	t, err := b.compare(ctx, fmt.Sprintf("1 node, %d pods that stop in %s, one guarded by a budget that never lets it go; the machine ends after %s", pods, sc.Stop, sc.Left), sc, 1, []column{
		{report.Column{Name: "pods that got SIGTERM in time", Of: pods}, func(f figures.Figures) float64 { return f.PodsTold }},
		{report.Column{Name: "pods that stopped by themselves in time", Of: pods}, func(f figures.Figures) float64 { return f.PodsStopped }},
		count("requests refused", func(f figures.Figures) float64 { return f.Refused }),
		requests(),
		seconds("returned", func(f figures.Figures) float64 { return f.Returned }),
	}, all)
	return []report.Table{t}, err
}

// away is the round trip that latency adds: many times that within a region, so that it is what counts.
const away = 20 * time.Millisecond

// latency is the API server at a distance.
func (b *bench) latency(ctx context.Context) ([]report.Table, error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	sc := b.near.scene(b)
	sc.Away = away
	ms := func(name string, of func(figures.Figures) float64) column {
		return column{report.Column{Name: name, Unit: report.Milliseconds}, func(f figures.Figures) float64 { return of(f) * 1000 }}
	}
	plain := func(name string, of func(figures.Figures) float64) column {
		return column{report.Column{Name: name, Plain: true}, of}
	}
	t, err := b.compare(ctx, fmt.Sprintf("%s, %s added to each round trip", b.near, away), sc, b.near.rounds, []column{
		ms("cordon", func(f figures.Figures) float64 { return f.FirstCordon }),
		ms("first eviction", func(f figures.Figures) float64 { return f.FirstEviction }),
		ms("last eviction", func(f figures.Figures) float64 { return f.LastEviction }),
		plain("round trips before the first request", func(f figures.Figures) float64 { return f.RoundsBefore }),
		plain("to the cordon, by the order of requests", func(f figures.Figures) float64 { return f.TripsToCordon }),
		plain("to the cordon, by the time", func(f figures.Figures) float64 { return f.RoundsToCordon }),
		plain("to the first eviction, by the order", func(f figures.Figures) float64 { return f.TripsToEviction }),
		plain("to the first eviction, by the time", func(f figures.Figures) float64 { return f.RoundsToEviction }),
	}, entries(contender.KopsSpot(), contender.WarmKopsSpot(), contender.Incumbent().Contender(), contender.ClientEach().Contender(), contender.Unlimited().Contender()))
	return []report.Table{t}, err
}

// growth is the same node in ever larger clusters.
func (b *bench) growth(ctx context.Context) (tables []report.Table, err error) {
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	nameless, err := b.stage.NamelessNode(ctx)
	if err != nil {
		return nil, err
	}
	unnamed := contender.KopsSpot()
	unnamed.Name += ", no name fits the instance"
	for _, size := range b.clusters {
		if err := b.stage.Grow(ctx, size); err != nil {
			return nil, err
		}
		all := append(entries(contender.KopsSpot(), contender.Incumbent().Contender(), contender.SearchingIncumbent().Contender()),
			entry{Contender: unnamed, nodes: nameless})
		t, err := b.compare(ctx, fmt.Sprintf("%s, in a cluster of %d nodes", b.near, size), b.near.scene(b), b.near.rounds, []column{
			seconds("cordon", func(f figures.Figures) float64 { return f.LastCordon }),
			seconds("last eviction accepted", func(f figures.Figures) float64 { return f.LastEviction }),
			requests(),
			{report.Column{Name: "lists of nodes", Plain: true}, func(f figures.Figures) float64 { return f.Lists }},
			{report.Column{Name: "received", Unit: report.Megabytes}, func(f figures.Figures) float64 { return f.Received }},
		}, all)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// cold is the start of an execution environment.
func (b *bench) cold(ctx context.Context) ([]report.Table, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	ours, empty, err := coldstart.Build(ctx, dir, b.zips)
	if err != nil {
		return nil, err
	}
	binaries := []coldstart.Binary{ours, empty}
	starts, err := coldstart.Measure(ctx, binaries, b.starts)
	if err != nil {
		return nil, err
	}
	t := report.Table{Title: fmt.Sprintf("median of %d cold starts, with an event that it ignores", b.starts), Columns: []report.Column{
		{Name: "init", Unit: report.Milliseconds}, {Name: "first answer", Unit: report.Milliseconds}, {Name: "resident memory, MB"}}}
	architectures := []string{"amd64", "arm64"}
	if b.zips {
		for _, arch := range architectures {
			t.Columns = append(t.Columns, report.Column{Name: "zip for " + arch, Unit: report.Megabytes})
		}
	}
	for i, name := range []string{"kops-spot", "a Go function that does nothing"} {
		row := report.Row{Name: name, Cells: medians(starts[i])}
		if b.zips {
			for _, arch := range architectures {
				zip, err := os.Stat(binaries[i].Zips[arch])
				if err != nil {
					return nil, err
				}
				row.Cells = append(row.Cells, float64(zip.Size())/1e6)
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return []report.Table{t}, nil
}

func medians(starts []coldstart.Start) []float64 {
	var init, answer, memory []float64
	for _, s := range starts {
		init = append(init, float64(s.Init.Microseconds())/1000)
		answer = append(answer, float64(s.Answer.Microseconds())/1000)
		memory = append(memory, float64(s.Memory))
	}
	return []float64{figures.Median(init), figures.Median(answer), figures.Median(memory)}
}
