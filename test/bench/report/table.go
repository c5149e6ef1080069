// Package report shows figures as tables of absolute values with their ratios to those of the first row.
package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// Unit is how a figure is written.
type Unit int

const (
	Count Unit = iota
	Seconds
	Milliseconds
	Megabytes
)

// Column is one kind of figure.
type Column struct {
	Name  string
	Unit  Unit
	Of    float64 // not zero: it is so many of these, and no ratio is shown
	Plain bool    // no ratio is shown
}

// Table compares rows with its first.
type Table struct {
	Title   string
	Columns []Column
	Rows    []Row
}

// Row is what was measured of one contender.
type Row struct {
	Name  string
	Cells []float64
}

// cell is a figure and, in brackets, how many times the first row's it is.
func (t Table) cell(row, column int) string {
	c, v := t.Columns[column], t.Rows[row].Cells[column]
	if c.Of != 0 {
		return fmt.Sprintf("%s of %s", number(Count, v), number(Count, c.Of))
	}
	first := t.Rows[0].Cells[column]
	text := number(c.Unit, v)
	if c.Plain || first <= 0 || math.IsInf(first, 0) || math.IsInf(v, 0) {
		return text
	}
	return fmt.Sprintf("%s (%s)", text, ratio(v/first))
}

func number(u Unit, v float64) string {
	switch {
	case math.IsInf(v, 0):
		return "never"
	case u == Seconds:
		return fmt.Sprintf("%.*f s", digits(v), v)
	case u == Milliseconds:
		return fmt.Sprintf("%.*f ms", digits(v), v)
	case u == Megabytes:
		return fmt.Sprintf("%.*f MB", digits(v), v)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// digits behind the point show three in all, and no more than three behind it.
func digits(v float64) int {
	switch v = math.Abs(v); {
	case v < 1:
		return 3
	case v < 10:
		return 2
	case v < 100:
		return 1
	}
	return 0
}

func ratio(r float64) string {
	if r < 10 {
		return fmt.Sprintf("%.1f×", r)
	}
	return fmt.Sprintf("%.0f×", r)
}

// Text writes the table for a terminal.
func (t Table) Text(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n", t.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{""}
	for _, c := range t.Columns {
		head = append(head, c.Name)
	}
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for i, r := range t.Rows {
		line := []string{r.Name}
		for j := range t.Columns {
			line = append(line, t.cell(i, j))
		}
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	return tw.Flush()
}

// Markdown is the table for a document.
func (t Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n|", t.Title)
	for _, c := range t.Columns {
		fmt.Fprintf(&b, " | %s", c.Name)
	}
	fmt.Fprintf(&b, " |\n|---%s|\n", strings.Repeat("|---", len(t.Columns)))
	for i, r := range t.Rows {
		fmt.Fprintf(&b, "| %s", r.Name)
		for j := range t.Columns {
			fmt.Fprintf(&b, " | %s", t.cell(i, j))
		}
		fmt.Fprint(&b, " |\n")
	}
	return b.String()
}
