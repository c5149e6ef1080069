package term

import (
	"fmt"
	"io"
	"strings"

	"github.com/castai/kops-spot/internal/change"
)

// doings are what is done about a thing, with their signs, in the order in which they are summed up.
var doings = []struct {
	change.Verb
	Mark
}{
	{change.Create, Mark{"+", green}}, {change.Attach, Mark{"+", green}},
	{change.Store, Mark{"+", green}}, {change.Tag, Mark{"+", green}},
	{change.Update, Mark{"~", yellow}},
	{change.Delete, Mark{"-", red}}, {change.Detach, Mark{"-", red}},
	{change.Deactivate, Mark{"-", red}}, {change.Untag, Mark{"-", red}},
	{change.Keep, Mark{"=", faint}}, {change.Leave, Mark{"=", faint}},
}

func signOf(v change.Verb) Mark {
	for _, one := range doings {
		if one.Verb == v {
			return one.Mark
		}
	}
	return Mark{" ", faint}
}

// Plan shows what is going to be changed, each thing on a line of its own, and sums it up.
func Plan(w io.Writer, plan change.Plan, o Options) error {
	p := &page{color: o.Color}
	verb, kind, name := len(change.Update), 0, 0
	for _, c := range plan {
		verb, kind, name = max(verb, len(c.Verb)), max(kind, len(indent(c))+len(c.Kind)), max(name, len(c.Name))
	}
	for _, c := range plan {
		m, in := signOf(c.Verb), indent(c)
		p.line("%s  %s %-*s %-*s  %-*s  %s",
			in, p.paint(m.color, m.sign), verb, c.Verb, kind-len(in), c.Kind, name, c.Name, c.Why)
		for _, line := range c.Diff {
			p.line("      %s", p.paint(diffColor(line), line))
		}
	}
	p.line("")
	p.line("%s", sum(plan))
	return p.send(w, "the plan")
}

// indent is what stands before a part, which the row above carries out.
func indent(c change.Change) string {
	if c.Part {
		return "  "
	}
	return ""
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
	for _, v := range doings {
		if n := plan.Count(v.Verb); n > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n, v.Verb))
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
