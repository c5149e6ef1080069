package term

import (
	"fmt"
	"io"
	"strings"

	"github.com/castai/kops-spot/internal/change"
)

// verbs are the verbs of a plan with their signs, in the order of the summary.
var verbs = []struct {
	change.Verb
	Mark
}{
	{change.Create, Mark{"+", green}}, {change.Attach, Mark{"+", green}},
	{change.Store, Mark{"+", green}}, {change.Tag, Mark{"+", green}},
	{change.Update, Mark{"~", yellow}},
	{change.Delete, Mark{"-", red}}, {change.Detach, Mark{"-", red}},
	{change.Deactivate, Mark{"-", red}}, {change.Untag, Mark{"-", red}},
	{change.Keep, Mark{"=", faint}}, {change.Leave, Mark{"=", faint}}, {change.Review, Mind},
}

// Plan shows the changes, one per line, and a summary.
func Plan(w io.Writer, plan change.Plan, o Options) error {
	p := &page{color: o.Color}
	indent := map[bool]string{true: "  "} // a part belongs to the row above it
	colors := map[byte]color{'+': green, '-': red, ' ': faint}
	verb, kind, name := len(change.Update), 0, 0
	for _, c := range plan {
		verb, kind, name = max(verb, len(c.Verb)), max(kind, len(indent[c.Part])+len(c.Kind)), max(name, len(c.Name))
	}
	signs := map[change.Verb]Mark{}
	var sums []string
	for _, v := range verbs {
		signs[v.Verb] = v.Mark
		if n := plan.Count(v.Verb); n > 0 {
			sums = append(sums, fmt.Sprintf("%d to %s", n, v.Verb))
		}
	}
	for _, c := range plan {
		m, in := signs[c.Verb], indent[c.Part]
		p.line("%s  %s %-*s %-*s  %-*s  %s",
			in, p.paint(m.color, m.sign), verb, c.Verb, kind-len(in), c.Kind, name, c.Name, c.Why)
		for _, line := range c.Diff {
			p.line("      %s", p.paint(colors[(line + " ")[0]], line))
		}
	}
	if plan.Empty() {
		sums = []string{"nothing to change"}
	}
	p.line("\n%s", strings.Join(sums, ", "))
	return p.send(w, "the plan")
}

// Findings shows the findings of a check, each with its advice.
func Findings(w io.Writer, findings change.Findings, o Options) error {
	p := &page{color: o.Color}
	levels := map[change.Level]Mark{change.OK: Good, change.Warn: Mind, change.Fail: Bad}
	name := 0
	for _, f := range findings {
		name = max(name, len(f.Name))
	}
	for _, f := range findings {
		m := levels[f.Level]
		p.line("%s %-*s  %s", p.paint(m.color, m.sign), name, f.Name, f.Detail)
		if f.Advice != "" {
			for line := range strings.SplitSeq(f.Advice, "\n") {
				p.line("  %*s  -> %s", name, "", line)
			}
		}
	}
	return p.send(w, "the findings")
}
