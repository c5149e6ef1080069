package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/test/testenv"
)

// bench is one run.
type bench struct {
	sizes
	log     io.Writer
	cluster *cluster
	nodes   []testenv.Node
	report  report
}

type benchCase struct {
	name       string
	ownCluster bool // does not use bench.cluster
	ownPage    bool // not in docs/benchmarks.md; runs only if it is named
	run        func(*bench, context.Context) ([]table, error)
}

// cases returns the cases in the order in which they run: first those that depend most on an idle machine, last the one
// that creates thousands of nodes.
func cases() []benchCase {
	return []benchCase{
		{"cold", true, false, (*bench).cold},
		{"drain", false, false, (*bench).drain},
		{"guarded", false, false, (*bench).guarded},
		{"cleanup", true, false, (*bench).cleanup},
		{"latency", false, false, (*bench).latency},
		{"notify", false, false, (*bench).notify},
		{"growth", false, false, (*bench).growth},
		{slotsCase, true, true, (*bench).slots},
	}
}

func caseNames() (names []string) {
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// runCases runs the named cases. If there are none, it runs those of docs/benchmarks.md. The cases without a cluster of their own share one.
func runCases(ctx context.Context, s sizes, only []string, log io.Writer) (_ report, err error) {
	b := &bench{sizes: s, log: log}
	b.report = report{Tables: map[string][]table{}, Began: time.Now(), Machine: machine(), Load: loadAverage(),
		Versions: versions(ctx)}
	defer func() {
		if b.cluster != nil {
			err = cmp.Or(err, b.cluster.cp.Stop())
		}
	}()
	for _, c := range cases() {
		if len(only) == 0 && c.ownPage || len(only) > 0 && !slices.Contains(only, c.name) {
			continue
		}
		if b.cluster == nil && !c.ownCluster {
			if b.cluster, err = startCluster(ctx, log); err != nil {
				return b.report, err
			}
			if b.nodes, err = b.cluster.addNodes(ctx, s.storm.nodes); err != nil {
				return b.report, err
			}
		}
		tables, err := c.run(b, ctx)
		if err != nil {
			return b.report, fmt.Errorf("running the case %s: %w", c.name, err)
		}
		b.report.Tables[c.name] = tables
	}
	b.report.ended = time.Now()
	return b.report, nil
}

// logf logs progress with the time of day.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(b.log, "%s %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// compare runs the scenario once per round with each drainer and returns a table of the medians. Each round starts with
// a different drainer.
func (b *bench) compare(ctx context.Context, title string, sc scenario, rounds int, columns []column,
	drainers []drainer) ([]table, error) {
	if b.few {
		drainers = []drainer{drainers[0], drainers[len(drainers)-1]}
	}
	var trials []trial
	for round := range rounds {
		for i := range drainers {
			d := drainers[(i+round)%len(drainers)]
			if d.once && round > 0 {
				continue
			}
			t, err := b.cluster.try(ctx, d, sc)
			if err != nil {
				return nil, err
			}
			t.title = title
			b.logf("%s, round %d, %s: returned after %.2f s", title, round+1, d.name, t.returned.Seconds())
			if len(t.failed) > 0 {
				fmt.Fprintf(b.log, "    %d nodes failed; first error: %v\n", len(t.failed), t.failed[0])
			}
			trials = append(trials, t)
		}
	}
	requests, pods, err := b.cluster.logs(ctx)
	if err != nil {
		return nil, err
	}
	readStats(trials, requests, pods)
	b.report.trials = append(b.report.trials, trials...)
	result := table{title: title, columns: columns}
	for _, d := range drainers {
		var own []stats
		for _, t := range trials {
			if t.drainer == d.name {
				own = append(own, t.stats)
			}
		}
		result.rows = append(result.rows, row{d.name, medians(own, columns)})
	}
	return []table{result}, nil
}

// machine describes this machine. It and loadAverage require Linux.
func machine() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(info), "model name\t: ")
	model, _, _ := strings.Cut(rest, "\n")
	return fmt.Sprintf("%s/%s, %d × %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(),
		cmp.Or(model, "unknown processor"))
}

// loadAverage returns the load average of the last minute.
func loadAverage() string {
	file, _ := os.ReadFile("/proc/loadavg")
	average, _, _ := strings.Cut(string(file), " ")
	return cmp.Or(average, "unknown")
}

func versions(ctx context.Context) string {
	output := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		return cmp.Or(strings.TrimSpace(string(out)), fmt.Sprint("unknown: ", err))
	}
	module := func(path string) string {
		return output("go", "list", "-m", "-f", "{{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}", path)
	}
	return fmt.Sprintf("kops-spot at commit %s, Kubernetes %s, k8s.io/kubectl %s, aws-lambda-go %s, %s",
		output("git", "describe", "--always", "--dirty"), testenv.KubernetesVersion, module("k8s.io/kubectl"),
		module("github.com/aws/aws-lambda-go"), runtime.Version())
}
