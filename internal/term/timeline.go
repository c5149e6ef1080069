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
	p.timeline(out)
	return p.send(w, "the timeline")
}

func (p *page) timeline(out spot.Outcome) {
	result := p.paint(resultColor(out.Result), strings.ReplaceAll(string(out.Result), "-", " "))
	if n := len(out.Outcomes); n > 0 {
		p.line("%s  one event about %d instances", result, n)
		for _, one := range out.Outcomes {
			p.line("")
			p.timeline(one)
		}
		return
	}
	p.line("%s  %s", result, verdict(out))
	p.moments(out)
	if out.Result == spot.Planned {
		p.planned(out)
	} else {
		p.ends(out)
	}
	p.list("volumes still attached at the end", yellow, out.AttachedVolumes)
	p.list("problems", red, out.Problems)
}

func resultColor(r spot.Result) color {
	switch r {
	case spot.Drained, spot.CleanedUp, spot.Recovered:
		return green
	case spot.Incomplete, spot.NodeNotFound:
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
	t := out.Timings
	var when []string
	for _, m := range []struct {
		what string
		at   *spot.Seconds
	}{{"cordoned", t.Cordoned}, {"last eviction", t.LastEviction}, {"empty", t.Empty}} {
		if m.at != nil {
			when = append(when, m.what+" after "+span(*m.at))
		}
	}
	if r := out.Cleanup; r != nil && r.PodsDeleted != nil {
		when = append(when, "pods free after "+span(*r.PodsDeleted))
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
	case out.Result == spot.Drained && t.Empty != nil && !out.Deadline.IsZero():
		say("%s were left", span(end(out)-*t.Empty))
	}
	return subject(out) + ": " + strings.Join(said, "; ")
}

// subject is what the outcome speaks of: the node, or as much as is known of it.
func subject(out spot.Outcome) string {
	return cmp.Or(out.Node, out.Event.Instance, out.Event.DetailType, "an event")
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
	case spot.Ignored, spot.OtherCluster, spot.Expired, spot.Skipped:
		if out.Replacement == nil || out.Replacement.At == nil {
			return // nothing happened
		}
	}
	moments := []moment{{0, "event " + string(out.Event.Kind) + ifNot(out.Event.Instance, " for ", subject(out))}}
	add := func(s *spot.Seconds, what string) {
		if s != nil {
			moments = append(moments, moment{*s, what})
		}
	}
	t := out.Timings
	add(t.Started, "got by the handler")
	add(t.Located, "node found")
	add(t.Cordoned, "node cordoned")
	if r := out.Replacement; r != nil {
		add(r.At, asked(r))
	}
	if l := out.Lifecycle; l != nil {
		add(l.Completed, "lifecycle hook "+l.Hook+" completed")
	}
	if r := out.Cleanup; r != nil {
		add(r.Tainted, "node marked out of service")
		add(r.PodsDeleted, "pods free to start elsewhere")
		add(r.VolumesDetached, "volumes free to be attached elsewhere")
		add(r.NodeDeleted, "node deleted")
	}
	add(t.LastEviction, "last pod told to end")
	add(t.Empty, "node empty")
	if out.Result == spot.Incomplete || out.Result == spot.NodeNotFound {
		add(t.Finished, "gave up")
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	if !out.Deadline.IsZero() && out.Cleanup == nil {
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

// asked says of whom a replacement was asked.
func asked(r *spot.ReplacementResult) string {
	switch r.Action {
	case spot.ReplaceNotify:
		return "CAST AI's autoscaler told: " + r.AutoscalerEvent
	case spot.ReplaceClaim:
		return "NodeClaim " + r.NodeClaim + " deleted"
	}
	return "replacement asked of " + r.Group
}

// replacement says what no moment can: why there is no replacement, or what is to be known of the one there is.
func (p *page) replacement(out spot.Outcome) {
	note := func(text string) { p.line("  %10s  %s", "-", text) }
	if r := out.Replacement; r != nil {
		switch {
		case r.Action == spot.ReplaceNone, r.Action == spot.ReplacePending:
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
	if l := out.Lifecycle; l != nil && l.Reason != "" {
		note("lifecycle hook " + l.Hook + ": " + l.Reason)
	}
}
