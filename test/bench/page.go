package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"math"
	"text/template"
	"time"

	"github.com/castai/kops-spot/test/bench/figures"
	"github.com/castai/kops-spot/test/bench/report"
)

// page is docs/benchmarks.md but for the figures.
//
//go:embed benchmarks.md.tmpl
var page string

// Text writes all tables for a terminal.
func (r Report) Text(w io.Writer) error {
	fmt.Fprintf(w, "%s\nload %s before, %s after; other programs took %s of the processors' time\n%s\n", r.Machine, r.LoadBefore, r.LoadAfter, r.Others, r.Versions)
	for _, s := range r.Sections {
		for _, t := range s.Tables {
			if err := t.Text(w); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "\nin all %s\n", r.Took())
	return err
}

// Markdown is the document.
func (r Report) Markdown() ([]byte, error) {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return nil, fmt.Errorf("reading the document's template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return nil, fmt.Errorf("filling in the document: %w", err)
	}
	return b.Bytes(), nil
}

// Took is how long the run took.
func (r Report) Took() time.Duration { return r.Ended.Sub(r.Began).Round(time.Second) }

// Day is that of the run.
func (r Report) Day() string { return r.Began.UTC().Format(time.DateOnly) }

// Spread is how far the trials behind each median lie apart.
func (r Report) Spread() report.Table {
	t := report.Table{Title: "the least and the most of all trials", Columns: []report.Column{{Name: "trials", Plain: true}}}
	kinds := []struct {
		name string
		unit report.Unit
		of   func(figures.Figures) float64
	}{
		{"last cordon", report.Seconds, func(f figures.Figures) float64 { return f.LastCordon }},
		{"last eviction accepted", report.Seconds, func(f figures.Figures) float64 { return f.LastEviction }},
		{"requests", report.Count, func(f figures.Figures) float64 { return f.Requests }},
	}
	for _, k := range kinds {
		t.Columns = append(t.Columns, report.Column{Name: k.name + ", least", Unit: k.unit, Plain: true},
			report.Column{Name: "most", Unit: k.unit, Plain: true})
	}
	type comparison struct{ title, contender string }
	of := map[comparison][]figures.Figures{}
	var order []comparison
	for _, trial := range r.Trials {
		c := comparison{trial.Case, trial.Contender}
		if of[c] == nil {
			order = append(order, c)
		}
		of[c] = append(of[c], trial.Figures)
	}
	for _, c := range order {
		row := report.Row{Name: c.title + ": " + c.contender, Cells: []float64{float64(len(of[c]))}}
		for _, k := range kinds {
			least, most := math.Inf(1), math.Inf(-1)
			for _, f := range of[c] {
				least, most = min(least, k.of(f)), max(most, k.of(f))
			}
			row.Cells = append(row.Cells, least, most)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
