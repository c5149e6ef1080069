package term

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// Timeline shows an outcome: a summary in one line, the timings in order, the pods by status, and the problems.
func Timeline(w io.Writer, out spot.Outcome, o Options) error {
	p := &page{color: o.Color}
	p.timeline(out)
	return p.send(w, "the timeline")
}

func (p *page) timeline(out spot.Outcome) {
	result := p.paint(resultColor(out.Result), strings.ReplaceAll(string(out.Result), "-", " "))
	if n := len(out.Outcomes); n > 0 {
		p.line("%s  %d instances in one event", result, n)
		for _, one := range out.Outcomes {
			p.line("")
			p.timeline(one)
		}
		return
	}
	p.line("%s  %s: %s", result, subject(out), summary(out))
	p.moments(out)
	if out.Result == spot.Planned {
		p.plan(out.Plan)
	} else {
		p.pods(out)
	}
	p.list("volumes still attached", yellow, out.AttachedVolumes)
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

func summary(out spot.Outcome) string {
	t := out.Timings
	var when, parts []string
	add := func(what string, at *spot.Seconds) {
		if at != nil {
			when = append(when, what+" after "+span(*at))
		}
	}
	if out.Cordon != nil && t.Cordoned == nil {
		when = append(when, "not cordoned")
	}
	add("cordoned", t.Cordoned)
	add("last eviction", t.LastEviction)
	add("empty", t.Empty)
	if out.Cleanup != nil {
		add("pods deleted", out.Cleanup.PodsDeleted)
	}
	if out.Reason != "" {
		parts = append(parts, out.Reason)
	}
	if len(when) > 0 {
		parts = append(parts, strings.Join(when, ", "))
	}
	switch {
	case out.Result == spot.Planned:
		parts = append(parts, "nothing was changed")
	case out.Result == spot.Drained && t.Empty != nil && !out.Deadline.IsZero():
		parts = append(parts, span(deadline(out)-*t.Empty)+" to spare")
	}
	return strings.Join(parts, "; ")
}

// subject returns the node, or what is known of it.
func subject(out spot.Outcome) string {
	return cmp.Or(out.Node, out.Event.Instance, out.Event.DetailType, "an event")
}

// deadline returns the deadline in seconds after the event.
func deadline(out spot.Outcome) spot.Seconds {
	return spot.Seconds(out.Deadline.Sub(out.Event.Time).Seconds())
}

func span(s spot.Seconds) string { return fmt.Sprintf("%.2f s", float64(s)) }

func at(s spot.Seconds) string { return fmt.Sprintf("%+.2f s", float64(s)) }

// moments shows the timings in order.
func (p *page) moments(out spot.Outcome) {
	switch out.Result {
	case spot.Ignored, spot.OtherCluster, spot.Expired, spot.Skipped:
		if out.Replacement == nil || out.Replacement.At == nil {
			return // nothing happened
		}
	}
	type moment struct {
		at   spot.Seconds
		what string
	}
	moments := []moment{{0, "event " + string(out.Event.Kind) + unless(out.Event.Instance, " for ", subject(out))}}
	add := func(s *spot.Seconds, what string) {
		if s != nil {
			moments = append(moments, moment{*s, what})
		}
	}
	t := out.Timings
	add(t.Started, "received by the handler")
	add(t.Located, "node found")
	add(t.Cordoned, "node cordoned")
	if r := out.Replacement; r != nil {
		add(r.At, requested(r))
	}
	if l := out.Lifecycle; l != nil {
		add(l.Completed, "lifecycle hook "+l.Hook+" completed")
	}
	if r := out.Cleanup; r != nil {
		add(r.Tainted, "out-of-service taint applied")
		add(r.PodsDeleted, "pods deleted")
		add(r.VolumesDetached, "volumes detached")
		add(r.NodeDeleted, "node deleted")
	}
	add(t.LastEviction, "last pod evicted")
	add(t.Empty, "node empty")
	if out.Result == spot.Incomplete || out.Result == spot.NodeNotFound {
		add(t.Finished, "gave up")
	}
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	if !out.Deadline.IsZero() && out.Cleanup == nil {
		moments = append(moments, moment{deadline(out), "deadline"})
	}
	p.line("")
	for _, m := range moments {
		p.line("  %s  %s", p.paint(faint, fmt.Sprintf("%10s", at(m.at))), m.what)
	}
	p.notes(out)
}

// unless returns before and value, unless value is empty or shown.
func unless(value, before, shown string) string {
	if value == "" || value == shown {
		return ""
	}
	return before + value
}

func requested(r *spot.ReplacementResult) string {
	switch r.Action {
	case spot.ReplaceNotify:
		return "CAST AI autoscaler notified: " + r.AutoscalerEvent
	case spot.ReplaceClaim:
		return "NodeClaim " + r.NodeClaim + " deleted"
	}
	return "instance detached from " + r.Group
}

// notes shows what has no time: why there is no replacement, and what the user should know about it.
func (p *page) notes(out spot.Outcome) {
	note := func(text string) { p.line("  %10s  %s", "-", text) }
	if r := out.Replacement; r != nil {
		switch {
		case r.Action == spot.ReplaceNone, r.Action == spot.ReplacePending:
			note("no replacement requested: " + r.Reason)
		case r.Action == spot.ReplaceAlready:
			note("replacement already requested: " + r.Reason)
		case r.Reason != "":
			note("replacement: " + r.Reason)
		}
		if len(r.SkippedHooks) > 0 {
			note("lifecycle hooks skipped by the detach: " + strings.Join(r.SkippedHooks, ", "))
		}
	}
	if l := out.Lifecycle; l != nil && l.Reason != "" {
		note("lifecycle hook " + l.Hook + ": " + l.Reason)
	}
}
