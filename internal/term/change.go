package term

import (
	"fmt"
	"io"
	"strings"

	"github.com/castai/kops-spot/internal/change"
)

// verbMarks are the signs of what is done about a thing.
var verbMarks = map[change.Verb]Mark{
	change.Create: {"+", green},
	change.Update: {"~", yellow},
	change.Keep:   {"=", faint},
	change.Delete: {"-", red},
	change.Leave:  {"=", faint},
}

// Plan shows what is going to be changed, each thing on a line of its own, and sums it up.
func Plan(w io.Writer, plan change.Plan, o Options) error {
	p := &page{color: o.Color}
	kind, name := 0, 0
	for _, c := range plan {
		kind, name = max(kind, len(c.Kind)), max(name, len(c.Name))
	}
	for _, c := range plan {
		m := verbMarks[c.Verb]
		p.line("  %s %-6s %-*s  %-*s  %s", p.paint(m.color, m.sign), c.Verb, kind, c.Kind, name, c.Name, c.Why)
		for _, line := range c.Diff {
			p.line("      %s", p.paint(diffColor(line), line))
		}
	}
	p.line("")
	p.line("%s", sum(plan))
	return p.send(w, "the plan")
}

func diffColor(line string) color {
	switch {
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	}
	return faint
}

// sum is the plan in one line.
func sum(plan change.Plan) string {
	if plan.Empty() {
		return "nothing to change: all of it is as it should be"
	}
	var parts []string
	for _, v := range []change.Verb{change.Create, change.Update, change.Delete, change.Keep, change.Leave} {
		if n := plan.Count(v); n > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n, v))
		}
	}
	return strings.Join(parts, ", ")
}

// Findings shows what a check has found, and after each failure what to do.
func Findings(w io.Writer, findings change.Findings, o Options) error {
	p := &page{color: o.Color}
	marks := map[change.Level]Mark{change.OK: Good, change.Warn: Mind, change.Fail: Bad}
	name := 0
	for _, f := range findings {
		name = max(name, len(f.Name))
	}
	for _, f := range findings {
		m := marks[f.Level]
		p.line("%s %-*s  %s", p.paint(m.color, m.sign), name, f.Name, f.Detail)
		if f.Advice != "" {
			for line := range strings.SplitSeq(f.Advice, "\n") {
				p.line("  %*s  -> %s", name, "", line)
			}
		}
	}
	return p.send(w, "the findings")
}
