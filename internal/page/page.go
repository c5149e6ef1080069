// Package page makes pages with charts and tables for a browser: one file that needs no other, no script and no
// network, in the browser's light or dark mode. The function must not link it: it comes with a library that draws
// charts.
package page

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// Page is a page of HTML. It does without html/template, with which the linker keeps every method of every AWS and
// Kubernetes client: the command would triple.
type Page struct{ text strings.Builder }

// New begins a page with its title and notices.
func New(title string, notices []string) *Page {
	p := &Page{}
	p.add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>%s</title>\n", title)
	p.text.WriteString(head)
	p.add("<h1>%s</h1>\n", title)
	for _, n := range notices {
		p.add("<p class=\"notice\">%s</p>\n", n)
	}
	return p
}

// add formats like fmt.Sprintf, and escapes every string.
func (p *Page) add(format string, args ...any) {
	for i, a := range args {
		if s, is := a.(string); is {
			args[i] = html.EscapeString(s)
		}
	}
	fmt.Fprintf(&p.text, format, args...)
}

// Heading adds a heading.
func (p *Page) Heading(text string) { p.add("<h2>%s</h2>\n", text) }

// Text adds a paragraph for each text.
func (p *Page) Text(texts ...string) {
	for _, t := range texts {
		p.add("<p>%s</p>\n", t)
	}
}

// Chart adds a chart.
func (p *Page) Chart(c Chart) error {
	svg, err := c.svg()
	if err != nil {
		return fmt.Errorf("drawing the chart %q: %w", c.Title, err)
	}
	p.add("<figure>\n<figcaption>%s", c.Title)
	for _, s := range c.Series {
		p.add(" <span class=\"key\"><i style=\"background:%s\"></i>%s</span>", s.Color, s.Name)
	}
	p.add("</figcaption>\n")
	p.text.WriteString(svg)
	p.add("</figure>\n")
	return nil
}

// Section is a part of a table.
type Section struct {
	Heading string
	Rows    [][]string
}

// Table adds a table. A section without rows has no heading.
func (p *Page) Table(columns []string, sections ...Section) {
	p.add("<div class=\"scroll\"><table>\n<thead><tr>")
	for _, c := range columns {
		p.add("<th>%s</th>", c)
	}
	p.add("</tr></thead>\n")
	for _, s := range sections {
		p.add("<tbody>\n")
		if s.Heading != "" && len(s.Rows) > 0 {
			p.add("<tr><th colspan=\"%d\">%s</th></tr>\n", len(columns), s.Heading)
		}
		for _, row := range s.Rows {
			p.add("<tr>")
			for _, cell := range row {
				p.add("<td>%s</td>", cell)
			}
			p.add("</tr>\n")
		}
		p.add("</tbody>\n")
	}
	p.add("</table></div>\n")
}

// WriteTo ends the page and writes it.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, p.text.String()+"</body>\n</html>\n")
	return int64(n), err
}

// head has the style. The colors of text and background are the browser's, for its light or dark mode. The charts'
// black is replaced.
const head = `<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem }
h2 { font-size: 1.1rem; margin-top: 2rem }
.notice { border-left: 4px solid #c97f00; padding-left: .8rem }
figure { margin: 2rem 0 }
figcaption { font-weight: 600; margin-bottom: .5rem }
.key { font-weight: 400; margin-left: 1rem; white-space: nowrap }
.key i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px }
svg { display: block; width: 100%; height: auto; fill: currentColor }
svg text { font-family: "Liberation Sans", Arial, Helvetica, sans-serif !important }
svg [style*="stroke:#000000"] { stroke: currentColor !important }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid var(--line); font-weight: 400 }
th { vertical-align: bottom; font-weight: 600 }
th:first-child, td:first-child { text-align: left; padding-left: 0; min-width: 8rem; overflow-wrap: break-word }
tbody th { padding-top: 1rem }
</style>
</head>
<body>
`
