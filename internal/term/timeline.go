package term

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// Timeline shows what came of an interruption: the verdict in one line, the moments in their order, the pods by what
// became of them, and the problems.
func Timeline(w io.Writer, out spot.Outcome, o Options) error {
	p := &page{color: o.Color}
	p.line("%s  %s", p.paint(resultColor(out.Result), strings.ReplaceAll(string(out.Result), "-", " ")), verdict(out))
	p.moments(out)
	if out.Result == spot.Planned {
		p.planned(out)
	} else {
		p.ends(out)
	}
	if len(out.Problems) > 0 {
		p.line("")
		p.line("  %s", p.paint(red, "problems"))
		for _, problem := range out.Problems {
			p.line("    %s", problem)
		}
	}
	if _, err := w.Write(p.Bytes()); err != nil {
		return fmt.Errorf("writing the timeline: %w", err)
	}
	return nil
}

func resultColor(r spot.Result) color {
	switch r {
	case spot.Emptied:
		return green
	case spot.NotEmptied, spot.NoNode:
		return red
	}
	return yellow
}

// verdict is for somebody who has time for one line.
func verdict(out spot.Outcome) string {
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if out.Reason != "" {
		say("%s", out.Reason)
	}
	t := out.Times
	var when []string
	for _, m := range []struct {
		what string
		at   *spot.Seconds
	}{{"cordoned", t.Cordoned}, {"last eviction", t.LastEviction}, {"empty", t.Empty}} {
		if m.at != nil {
			when = append(when, m.what+" after "+span(*m.at))
		}
	}
	if out.Cordon != nil && t.Cordoned == nil {
		when = append([]string{"not cordoned"}, when...)
	}
	if len(when) > 0 {
		say("%s", strings.Join(when, ", "))
	}
	switch {
	case out.Result == spot.Planned:
		say("nothing was changed")
	case out.Result == spot.Emptied && t.Empty != nil && !out.Deadline.IsZero():
		say("%s were left", span(end(out)-*t.Empty))
	}
	return subject(out) + ": " + strings.Join(said, "; ")
}

// subject is what the outcome speaks of: the node, or as much as is known of it.
func subject(out spot.Outcome) string {
	return cmp.Or(out.Node, out.Event.Instance, out.Event.Type, "an event")
}

// end is the end of the machine, in seconds after the event.
func end(out spot.Outcome) spot.Seconds {
	return spot.Seconds(out.Deadline.Sub(out.Event.Time).Seconds())
}

func span(s spot.Seconds) string { return fmt.Sprintf("%.2f s", float64(s)) }

func at(s spot.Seconds) string { return fmt.Sprintf("%+.2f s", float64(s)) }

// moment is something that happened, or will.
type moment struct {
	at   spot.Seconds
	what string
}

func (p *page) moments(out spot.Outcome) {
	switch out.Result {
	case spot.Ignored, spot.ForeignOne, spot.StaleOne:
		return // nothing happened
	}
	moments := []moment{{0, "event " + string(out.Event.Kind) + ifNot(out.Event.Instance, " for ", subject(out))}}
	add := func(s *spot.Seconds, what string) {
		if s != nil {
			moments = append(moments, moment{*s, what})
		}
	}
	t := out.Times
	add(t.Began, "got by the handler")
	add(t.Located, "node found")
	add(t.Cordoned, "node cordoned")
	if r := out.Replacement; r != nil && r.Action == spot.ReplaceDetach {
		add(r.At, "replacement asked of "+r.Group)
	}
	add(t.LastEviction, "last pod told to end")
	add(t.Empty, "node empty")
	if out.Result == spot.NotEmptied || out.Result == spot.NoNode {
		add(t.Ended, "gave up")
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	if !out.Deadline.IsZero() {
		moments = append(moments, moment{end(out), "deadline"})
	}
	p.line("")
	for _, m := range moments {
		p.line("  %s  %s", p.paint(faint, fmt.Sprintf("%10s", at(m.at))), m.what)
	}
	p.replacement(out)
}

// ifNot is before and value, unless value is empty or there already.
func ifNot(value, before, there string) string {
	if value == "" || value == there {
		return ""
	}
	return before + value
}

// replacement says what no moment can: why there is no replacement, or what is to be known of the one there is.
func (p *page) replacement(out spot.Outcome) {
	r := out.Replacement
	if r == nil {
		return
	}
	note := func(text string) { p.line("  %10s  %s", "-", text) }
	switch {
	case r.Action == spot.ReplaceNone:
		note("no replacement asked: " + r.Reason)
	case r.Action == spot.ReplaceAlready:
		note("no replacement asked, somebody has before: " + r.Reason)
	case r.Reason != "":
		note("the replacement: " + r.Reason)
	}
	if len(r.SkippedHooks) > 0 {
		note("the detach skips lifecycle hooks: " + strings.Join(r.SkippedHooks, ", "))
	}
}
