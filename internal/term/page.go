// Package term shows the domain's values on a terminal: few words, the verdict first, aligned, and as readable in a log
// without colour.
package term

import (
	"bytes"
	"fmt"
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

// table writes rows of cells in columns as wide as they need to be; the last column may be of any length.
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
		text := indent
		for i, cell := range row {
			text += cell
			if i < len(row)-1 {
				text += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
			}
		}
		p.line("%s", text)
	}
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
