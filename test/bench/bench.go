// Package bench compares kops-spot with kubectl's drain library on one control plane, and a cold start of it with that
// of an empty function. What it measures is printed, not judged.
//
//	contender   the ways to drain
//	stage       the cluster, and each scene on it set anew
//	figures     what the API server and the kubelets say of a trial
//	coldstart   the start of a binary on the local Lambda service
//	report      tables, and the machine
package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/test/bench/contender"
	"github.com/castai/kops-spot/test/bench/figures"
	"github.com/castai/kops-spot/test/bench/report"
	"github.com/castai/kops-spot/test/bench/stage"
	"github.com/castai/kops-spot/test/testenv"
)

// Options are what to run.
type Options struct {
	Quick bool     // smaller than is worth a look: does it still work?
	Only  []string // of CaseNames; empty is all
	Log   io.Writer
}

// Report is what came of a run.
type Report struct {
	Sections []Section
	Trials   []Trial

	Began, Ended          time.Time
	LoadBefore, LoadAfter string
	Others                string // how much of the machine programs took that are no part of the run
	Machine, Versions     string
}

// Section is what came of one case.
type Section struct {
	Name   string
	Tables []report.Table
}

// Trial is one contender's play of one scene.
type Trial struct {
	Case      string
	Contender string
	Nodes     int
	Figures   figures.Figures
}

// Section is the tables of a case; none if it did not run.
func (r Report) Section(name string) []report.Table {
	for _, s := range r.Sections {
		if s.Name == name {
			return s.Tables
		}
	}
	return nil
}

// CaseNames are the cases in the order in which they run.
func CaseNames() (names []string) {
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// bench is one run.
type bench struct {
	sizes
	log    io.Writer
	stage  *stage.Stage
	nodes  []testenv.Node
	report Report
}

type benchCase struct {
	name string
	run  func(*bench, context.Context) ([]report.Table, error)
}

// cases begin with those that an idle machine suits best, and end with the one that leaves thousands of nodes behind.
func cases() []benchCase {
	return []benchCase{
		{"cold", (*bench).cold},
		{"drain", (*bench).drain},
		{"guarded", (*bench).guarded},
		{"aftermath", (*bench).aftermath},
		{"latency", (*bench).latency},
		{"growth", (*bench).growth},
	}
}

// Run runs the cases, on a control plane that it starts when the first of them needs it.
func Run(ctx context.Context, o Options) (_ Report, err error) {
	b := &bench{sizes: full(), log: o.Log}
	if o.Quick {
		b.sizes = quick()
	}
	b.report = Report{Began: time.Now(), LoadBefore: report.Load(), Machine: report.Machine(), Versions: versions(ctx)}
	defer func() {
		err = cmp.Or(err, b.close())
	}()
	others := report.WatchOthers()
	for _, c := range cases() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, c.name) {
			continue
		}
		tables, err := c.run(b, ctx)
		if err != nil {
			return b.report, fmt.Errorf("running the case %s: %w", c.name, err)
		}
		b.report.Sections = append(b.report.Sections, Section{c.name, tables})
	}
	b.report.Ended, b.report.LoadAfter = time.Now(), report.Load()
	if err := b.close(); err != nil {
		return b.report, err
	}
	b.report.Others = others()
	return b.report, nil
}

// close ends the control plane; what it used is known only then.
func (b *bench) close() error {
	if b.stage == nil {
		return nil
	}
	return b.stage.Close()
}

// open starts the control plane if it does not run yet.
func (b *bench) open(ctx context.Context) (err error) {
	if b.stage != nil {
		return nil
	}
	if b.stage, err = stage.Open(ctx, b.log); err != nil {
		return err
	}
	b.nodes, err = b.stage.Nodes(ctx, b.storm.nodes)
	return err
}

// entry is a contender in a comparison.
type entry struct {
	contender.Contender
	nodes []testenv.Node // its own, if not those of the scene
	once  bool           // one round only: it takes minutes
}

func entries(cs ...contender.Contender) (es []entry) {
	for _, c := range cs {
		es = append(es, entry{Contender: c})
	}
	return es
}

// column is a kind of figure that is compared.
type column struct {
	report.Column
	of func(figures.Figures) float64
}

// compare has each contender play the scene once in each round, beginning with another one each time, and makes a table of
// the medians.
func (b *bench) compare(ctx context.Context, title string, sc stage.Scene, rounds int, columns []column, contenders []entry) (report.Table, error) {
	var trials []stage.Trial
	var who []int
	for round := range rounds {
		for i := range contenders {
			i = (i + round) % len(contenders)
			e := contenders[i]
			if e.once && round > 0 {
				continue
			}
			played := sc
			if e.nodes != nil {
				played.Nodes = e.nodes
			}
			t, err := b.stage.Play(ctx, e.Contender, played)
			if err != nil {
				return report.Table{}, err
			}
			fmt.Fprintf(b.log, "%s %s, round %d, %s: returned after %.2f s\n", time.Now().Format(time.TimeOnly), title, round+1, e.Name, t.Returned.Seconds())
			for _, err := range t.GivenUp[:min(len(t.GivenUp), 1)] {
				fmt.Fprintf(b.log, "    %d nodes were given up; one of them: %v\n", len(t.GivenUp), err)
			}
			trials, who = append(trials, t), append(who, i)
		}
	}
	requests, pods, err := b.stage.Logs(ctx)
	if err != nil {
		return report.Table{}, err
	}
	byContender := make([][]figures.Figures, len(contenders))
	for i, f := range figures.Read(trials, requests, pods) {
		byContender[who[i]] = append(byContender[who[i]], f)
		b.report.Trials = append(b.report.Trials, Trial{Case: title, Contender: contenders[who[i]].Name, Nodes: len(sc.Nodes), Figures: f})
	}
	table := report.Table{Title: title}
	for _, c := range columns {
		table.Columns = append(table.Columns, c.Column)
	}
	for i, e := range contenders {
		row := report.Row{Name: e.Name}
		for _, c := range columns {
			var values []float64
			for _, f := range byContender[i] {
				values = append(values, c.of(f))
			}
			row.Cells = append(row.Cells, figures.Median(values))
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}

func versions(ctx context.Context) string {
	ask := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		return cmp.Or(strings.TrimSpace(string(out)), fmt.Sprint("unknown: ", err))
	}
	module := func(path string) string {
		return ask("go", "list", "-m", "-f", "{{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}", path)
	}
	return fmt.Sprintf("kops-spot at commit %s, Kubernetes %s, k8s.io/kubectl %s, aws-lambda-go %s, %s", ask("git", "describe", "--always", "--dirty"),
		testenv.KubernetesVersion, module("k8s.io/kubectl"), module("github.com/aws/aws-lambda-go"), runtime.Version())
}
