package term

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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
	if out.Plan != nil && out.Result == spot.Planned {
		p.plan(*out.Plan)
	}
	p.pods(out)
	if out.FailedLaunch != nil {
		p.list("detached without a replacement", red, out.FailedLaunch.Detached)
	}
	p.list("volumes still attached", yellow, out.AttachedVolumes)
	p.list("problems", red, out.Problems)
}

func resultColor(r spot.Result) color {
	switch {
	case r.Failed():
		return red
	case r == spot.Drained, r == spot.CleanedUp, r == spot.Recovered:
		return green
	}
	return yellow
}

func summary(out spot.Outcome) string {
	t := out.Timings
	var when, parts []string
	if out.Cordon != nil && t.Cordoned == nil {
		when = append(when, "not cordoned")
	}
	when = append(when, after(step{"cordoned", t.Cordoned}, step{"last eviction", t.LastEviction}, step{"empty", t.Empty})...)
	if out.Cleanup != nil {
		when = append(when, after(step{"pods deleted", out.Cleanup.PodsDeleted})...)
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
	return cmp.Or(out.Node, out.Event.Instance, out.Event.Group, out.Event.DetailType, "an event")
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

// step is a step of an interruption, and when it was done; nil for not.
type step struct {
	what string
	at   *spot.Seconds
}

// after returns when the steps were done.
func after(steps ...step) (texts []string) {
	for _, s := range steps {
		if s.at != nil {
			texts = append(texts, s.what+" after "+span(*s.at))
		}
	}
	return texts
}

// took returns when the node was cordoned and empty.
func took(out spot.Outcome) string {
	return strings.Join(after(step{"cordoned", out.Timings.Cordoned}, step{"empty", out.Timings.Empty}), ", ")
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

// maxRows is the number of rows of a group. The remaining pods are only counted.
const maxRows = 10

// groups are the pods by status: failures first.
var groups = []group{
	{spot.PodStillRunning, red, "still running at the end", true},
	{spot.PodStuck, yellow, "exited but not deleted", true},
	{spot.PodLeftToKubelet, yellow, "left to the kubelet's shutdown window", true},
	{spot.PodForceDeleted, yellow, "force-deleted", true},
	{spot.PodEvicted, green, "evicted", false},
	{spot.PodTerminated, green, "terminated without eviction", false},
	{spot.PodDeleted, green, "deleted after the instance stopped", false},
	{spot.PodSkipped, faint, "skipped by rule", false},
}

type group struct {
	status  spot.PodStatus
	color   color
	heading string
	each    bool // one row per pod, because each deserves attention
}

// pods shows the pods of an outcome by status. Pods with the same key share a row.
func (p *page) pods(out spot.Outcome) {
	for _, g := range groups {
		var rows []row
		var cells [][]string
		index, count := map[string]int{}, 0
		for _, pod := range out.Pods {
			if pod.Status != g.status {
				continue
			}
			count++
			i, ok := index[g.key(pod)]
			if !ok {
				i = len(rows)
				index[g.key(pod)], rows = i, append(rows, nil)
			}
			rows[i] = append(rows[i], pod)
		}
		for i, r := range rows {
			if i == maxRows-1 && len(rows) > maxRows {
				cells = append(cells, []string{fmt.Sprintf("and %d more", len(slices.Concat(rows[i:]...)))})
				break
			}
			cells = append(cells, []string{r.name(), r.terminated(), r.note(g)})
		}
		if count > 0 {
			p.heading(g.color, fmt.Sprintf("%d %s", count, g.heading))
			p.table("    ", cells)
		}
	}
}

func (g group) key(pod spot.PodResult) string {
	switch {
	case g.each:
		return pod.UID
	case g.status == spot.PodSkipped:
		return pod.Reason // the reason matters more than the owner
	}
	return pod.Namespace + "/" + pod.Owner + "/" + pod.Reason
}

// row is the pods of one row.
type row []spot.PodResult

// name returns the name of the pod, or of the common owner, or the first few names.
func (r row) name() string {
	first := r[0]
	_, owner, _ := strings.Cut(first.Owner, "/")
	var names []string
	for _, pod := range r {
		if pod.Owner != first.Owner || pod.Namespace != first.Namespace {
			owner = ""
		}
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	const few = 3
	switch {
	case len(r) > 1 && owner != "":
		return fmt.Sprintf("%s/%s ×%d", first.Namespace, owner, len(r))
	case len(r) > few:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few-1], ", "), len(names)-few+1)
	}
	return strings.Join(names, ", ")
}

// terminated returns when the last of the pods was gone.
func (r row) terminated() string {
	text, last := "", spot.Seconds(math.Inf(-1))
	for _, pod := range r {
		if pod.TerminatedAt != nil {
			last = max(last, *pod.TerminatedAt)
			text = "terminated " + at(last)
		}
	}
	return text
}

// note returns the reason and the refusals.
func (r row) note(g group) string {
	pod, refusals := r[0], 0
	for _, one := range r {
		refusals += one.Refusals
	}
	reason := pod.Reason
	_, owner, owned := strings.Cut(pod.Owner, "/")
	if g.status == spot.PodEvicted && owned && strings.Contains(reason, owner) {
		reason = "" // the owner replaces the pod, as expected
	}
	if refusals == 0 {
		return reason
	}
	text := fmt.Sprintf("%d refusals", refusals)
	if refusals == 1 {
		text = "1 refusal"
	}
	switch {
	case g.each:
		return reason + "\n" + text + ", last: " + strings.TrimPrefix(pod.LastRefusal, "refused with ")
	case reason == "":
		return "after " + text
	}
	return reason + "; after " + text
}

// Stamp formats a time to the second.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// Report shows a table under a title. The first row has the headings; the cells after the first are numbers. A row of
// one cell begins a section.
func Report(w io.Writer, title string, rows [][]string, footnotes, notices []string, o Options) error {
	p := &page{color: o.Color}
	p.line("%s\n", title)
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			if len(row) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, row := range rows {
		if len(row) == 1 {
			p.line("\n%s", row[0])
			continue
		}
		text := fmt.Sprintf("%-*s", widths[0], row[0])
		for i, cell := range row[1:] {
			text += fmt.Sprintf("  %*s", widths[i+1], cell)
		}
		p.line("%s", text)
	}
	if len(footnotes) > 0 {
		p.line("\n%s", strings.Join(footnotes, "\n"))
	}
	for _, n := range notices {
		p.line("%s %s", p.paint(Mind.color, Mind.sign), n)
	}
	return p.send(w, "the report")
}

// Status shows facts about the function and the outcomes since a time.
func Status(w io.Writer, facts [][]string, outcomes []spot.Outcome, since time.Time, o Options) error {
	p := &page{color: o.Color}
	p.table("", facts)
	if len(outcomes) == 0 {
		p.line("\nno interruptions since %s", Stamp(since))
		return p.send(w, "the status")
	}
	var rows [][]string
	for _, out := range outcomes {
		rows = append(rows, []string{Stamp(out.Event.Time), string(out.Result), string(out.Event.Kind), subject(out),
			strings.TrimSuffix(out.Instance.Group, "."+out.Cluster), out.Instance.Type, out.Instance.Zone, took(out), out.Reason})
	}
	p.line("\nrecent interruptions")
	p.table("  ", rows)
	return p.send(w, "the status")
}
