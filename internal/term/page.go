// Package term shows plans, findings and outcomes on a terminal: the result first, few words, aligned columns. The text
// is as readable without color, for example in a log.
package term

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Options describe the output.
type Options struct {
	Color bool // it is a terminal, and NO_COLOR is not set
}

// Mark is the symbol at the beginning of a line.
type Mark struct {
	sign  string
	color color
}

// The symbols of messages and findings.
var (
	Good = Mark{"✔", green}
	Mind = Mark{"!", yellow}
	Bad  = Mark{"✗", red}
)

// Say writes a message behind its mark and indents its further lines. It ignores errors: it has nowhere to report them.
func Say(w io.Writer, m Mark, text string, o Options) {
	p := page{color: o.Color}
	fmt.Fprintf(w, "%s %s\n", p.paint(m.color, m.sign), strings.ReplaceAll(text, "\n", "\n  "))
}

// page is text that is collected and written at once.
type page struct {
	bytes.Buffer
	color bool
}

func (p *page) line(format string, args ...any) {
	p.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (p *page) heading(c color, text string) { p.line("\n  %s", p.paint(c, text)) }

// list writes items under a heading, if there are any.
func (p *page) list(heading string, c color, items []string) {
	if len(items) > 0 {
		p.heading(c, heading)
	}
	for _, item := range items {
		p.line("    %s", item)
	}
}

// table writes rows with aligned columns and omits columns that are empty in every row. The last cell may be of any
// length and have several lines.
func (p *page) table(indent string, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row[:len(row)-1] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		before := indent
		for i, cell := range row[:len(row)-1] {
			if widths[i] > 0 {
				before += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
		}
		for text := range strings.SplitSeq(row[len(row)-1], "\n") {
			p.line("%s%s", before, text)
			before = strings.Repeat(" ", utf8.RuneCountInString(before))
		}
	}
}

// send writes the page.
func (p *page) send(w io.Writer, what string) error {
	if _, err := w.Write(p.Bytes()); err != nil {
		return fmt.Errorf("writing %s: %w", what, err)
	}
	return nil
}

type color string

const (
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	faint  color = "2"
)

func (p *page) paint(c color, text string) string {
	if !p.color {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}
