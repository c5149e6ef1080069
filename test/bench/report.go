package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/template"
	"time"
)

// page is the template of docs/benchmarks.md.
//
//go:embed benchmarks.md.tmpl
var page string

// report is the result of a run. The template uses the exported fields and methods.
type report struct {
	Tables map[string][]table // by case
	trials []trial

	Began, ended      time.Time
	Machine, Versions string
	Load              string // before the run
}

func (r report) Took() time.Duration { return r.ended.Sub(r.Began).Round(time.Second) }

// text writes all tables for a terminal.
func (r report) text(w io.Writer) {
	fmt.Fprintf(w, "%s, load average %s before the run\n%s\n", r.Machine, r.Load, r.Versions)
	for _, name := range caseNames() {
		for _, t := range r.Tables[name] {
			t.text(w)
		}
	}
	fmt.Fprintf(w, "\ntotal time: %s\n", r.Took())
}

// markdown renders the document.
func (r report) markdown() ([]byte, error) {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return nil, fmt.Errorf("parsing the document's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("executing the document's template: %w", err)
	}
	return b.Bytes(), nil
}

// The results of the case slots in docs/operations.md are between these lines.
const (
	resultsBegin = "<!-- Written by `make bench BENCH='-only " + slotsCase + " -write ../docs/operations.md'` -->\n"
	resultsEnd   = "<!-- End of the results -->\n"
)

// insert returns the document in the file with the results of the case slots.
func (r report) insert(file string) ([]byte, error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	before, rest, begins := strings.Cut(string(page), resultsBegin)
	_, after, ends := strings.Cut(rest, resultsEnd)
	if !begins || !ends {
		return nil, fmt.Errorf("%s does not have the lines %q and %q", file, resultsBegin, resultsEnd)
	}
	return []byte(before + resultsBegin + r.slots() + resultsEnd + after), nil
}

// slots formats the results of the case slots.
func (r report) slots() string {
	var b strings.Builder
	for _, t := range r.Tables[slotsCase] {
		b.WriteString(t.Markdown())
	}
	fmt.Fprintf(&b, "\nMeasured on %s, on %s, load average %s before the run, with\n%s.\n",
		r.Began.UTC().Format(time.DateOnly), r.Machine, r.Load, r.Versions)
	return b.String()
}

// Spread returns the minimum and maximum behind each median.
func (r report) Spread() table {
	result := table{title: "minimum and maximum of all trials", columns: []column{{name: "trials", plain: true}}}
	columns := []column{lastCordon, lastEviction, requests}
	for _, c := range columns {
		result.columns = append(result.columns, column{name: c.name + ", min", unit: c.unit, plain: true},
			column{name: "max", unit: c.unit, plain: true})
	}
	var names []string
	trials := map[string][]stats{} // by name
	for _, t := range r.trials {
		name := t.title + ": " + t.drainer
		if trials[name] == nil {
			names = append(names, name)
		}
		trials[name] = append(trials[name], t.stats)
	}
	for _, name := range names {
		cells := []float64{float64(len(trials[name]))}
		for _, c := range columns {
			least, most := math.Inf(1), math.Inf(-1)
			for _, s := range trials[name] {
				least, most = min(least, c.value(s)), max(most, c.value(s))
			}
			cells = append(cells, least, most)
		}
		result.rows = append(result.rows, row{name, cells})
	}
	return result
}
