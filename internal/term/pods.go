package term

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// maxRows is the number of rows of a group. The remaining pods are only counted.
const maxRows = 10

// groups are the pods by status: failures first.
var groups = []group{
	{spot.PodStillRunning, red, "still running at the end", true},
	{spot.PodStuck, yellow, "exited but not deleted", true},
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
	var last *spot.Seconds
	for _, pod := range r {
		if pod.TerminatedAt != nil && (last == nil || *pod.TerminatedAt > *last) {
			last = pod.TerminatedAt
		}
	}
	if last == nil {
		return ""
	}
	return "terminated " + at(*last)
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
