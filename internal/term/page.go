// Package term shows the domain's values on a terminal: few words, the verdict first, aligned, and as readable in a log
// without colour.
package term

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Options are what the caller knows of where the text goes.
type Options struct {
	Color bool // it is a terminal, and NO_COLOR is not set
}

// page is a text that is gathered first and written at once.
type page struct {
	bytes.Buffer
	color bool
}

func (p *page) line(format string, args ...any) {
	p.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

// heading begins a part of the page.
func (p *page) heading(c color, text string) {
	p.line("")
	p.line("  %s", p.paint(c, text))
}

// table writes rows of cells in columns as wide as they need to be, and leaves out those that are empty in every row. The
// last cell may be of any length, and of more lines than one.
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
