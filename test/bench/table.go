package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// unit determines how a value is formatted.
type unit int

const (
	count unit = iota
	seconds
	milliseconds
	megabytes
)

// column is one kind of value.
type column struct {
	name  string
	unit  unit
	total float64 // if not zero, cells are "n of total", without a ratio
	plain bool    // without a ratio
	value func(stats) float64
}

// table compares its rows with the first one.
type table struct {
	title   string
	columns []column
	rows    []row
}

type row struct {
	name  string
	cells []float64
}

// cell formats a value and, in parentheses, its ratio to the first row.
func (t table) cell(row, column int) string {
	c, v := t.columns[column], t.rows[row].cells[column]
	if c.total != 0 {
		return fmt.Sprintf("%s of %s", number(count, v), number(count, c.total))
	}
	first := t.rows[0].cells[column]
	text := number(c.unit, v)
	if c.plain || first <= 0 || math.IsInf(first, 0) || math.IsInf(v, 0) {
		return text
	}
	r, digits := v/first, 1
	if r >= 10 {
		digits = 0
	}
	return fmt.Sprintf("%s (%.*f×)", text, digits, r)
}

func number(u unit, v float64) string {
	switch {
	case math.IsInf(v, 0):
		return "never"
	case u == seconds:
		return fmt.Sprintf("%.*f s", digits(v), v)
	case u == milliseconds:
		return fmt.Sprintf("%.*f ms", digits(v), v)
	case u == megabytes:
		return fmt.Sprintf("%.*f MB", digits(v), v)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// digits returns the number of decimals for three significant digits, at most three.
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

// text writes the table for a terminal.
func (t table) text(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n", t.title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range t.lines() {
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	_ = tw.Flush()
}

// Markdown formats the table for a document.
func (t table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n", t.title)
	for i, line := range t.lines() {
		b.WriteString("|")
		for _, cell := range line {
			b.WriteString(strings.TrimRight(" "+cell, " ") + " |")
		}
		b.WriteString("\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(line)) + "\n")
		}
	}
	return b.String()
}

// lines returns the header and the rows.
func (t table) lines() [][]string {
	header := []string{""}
	for _, c := range t.columns {
		header = append(header, c.name)
	}
	lines := [][]string{header}
	for i, r := range t.rows {
		line := []string{r.name}
		for j := range t.columns {
			line = append(line, t.cell(i, j))
		}
		lines = append(lines, line)
	}
	return lines
}
