package report

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// HTML writes the report as one page that needs no other file, no script and no network.
func (r *Report) HTML(w io.Writer) error {
	charts, err := r.charts()
	if err != nil {
		return fmt.Errorf("drawing a chart: %w", err)
	}
	var p page
	p.add("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>%s</title>\n", r.Title())
	p.WriteString(head)
	p.add("<h1>%s</h1>\n", r.Title())
	for _, n := range r.Notices {
		p.add("<p class=\"notice\">%s</p>\n", n)
	}
	for _, c := range charts {
		p.add("<figure>\n<figcaption>%s", c.title)
		for _, s := range c.series {
			p.add(" <span class=\"key\"><i style=\"background:%s\"></i>%s</span>", s.color, s.name)
		}
		p.add("</figcaption>\n")
		p.WriteString(c.svg)
		p.add("</figure>\n")
	}
	p.add("<div class=\"scroll\"><table>\n<thead><tr>")
	for _, c := range Columns {
		p.add("<th>%s</th>", c)
	}
	p.add("</tr></thead>\n")
	for _, s := range r.Sections() {
		p.add("<tbody>\n")
		if s.Heading != "" && len(s.Rows) > 0 {
			p.add("<tr><th colspan=\"%d\">%s</th></tr>\n", len(Columns), s.Heading)
		}
		for _, row := range s.Rows {
			p.add("<tr>")
			for _, cell := range s.Cells(row) {
				p.add("<td>%s</td>", cell)
			}
			p.add("</tr>\n")
		}
		p.add("</tbody>\n")
	}
	p.add("</table></div>\n")
	for _, n := range r.Footnotes() {
		p.add("<p>%s</p>\n", n)
	}
	p.WriteString(meaning)
	_, err = io.WriteString(w, p.String())
	return err
}

// page is a page of HTML. It does without html/template, with which the linker keeps every method of every AWS and
// Kubernetes client: the command would triple.
type page struct{ strings.Builder }

// add formats like fmt.Sprintf, and escapes every string.
func (p *page) add(format string, args ...any) {
	for i, a := range args {
		if s, is := a.(string); is {
			args[i] = html.EscapeString(s)
		}
	}
	fmt.Fprintf(p, format, args...)
}

// The colors of text and background are the browser's, for its light or dark mode. The charts' black is replaced.
const head = `<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 18%, Canvas) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.3rem }
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

const meaning = `<p>The events announce the end of an instance of the cluster, or recommend replacing it. Each is counted
once for each instance, with its most severe result. The time to empty is the time from the event until the last pod
that had to leave the node was gone, of the nodes that were drained; p50 and p99 are nearest-rank percentiles. Failed
replacements are failed launches of a group that lacks the replacement of a detached instance: Auto Scaling retries the
launch, so one shortage may count several times, and does not name its type and zone.</p>
</body>
</html>
`
