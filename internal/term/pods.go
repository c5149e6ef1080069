package term

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// most is how many rows a group of pods has before the rest is only counted.
const most = 10

// group is pods that one thing is said of.
type group struct {
	end     spot.PodStatus
	color   color
	heading string
	each    bool // every pod is worth a row: somebody has to look at it
}

// groups are in the order of what is read first: what went wrong, then what went.
var groups = []group{
	{spot.PodStillRunning, red, "still there at the end", true},
	{spot.PodStuck, yellow, "ended, object still there", true},
	{spot.PodForceDeleted, yellow, "deleted past a budget", true},
	{spot.PodEvicted, green, "evicted", false},
	{spot.PodTerminated, green, "gone without our asking", false},
	{spot.PodDeleted, green, "released after their machine's end", false},
	{spot.PodSkipped, faint, "left by rule", false},
}

func (p *page) ends(out spot.Outcome) {
	for _, g := range groups {
		pods := slices.DeleteFunc(slices.Clone(out.Pods), func(pod spot.PodResult) bool { return pod.Status != g.end })
		p.group(g.color, g.heading, pods, func(pod spot.PodResult) string { return foldKey(g, pod) },
			func(f fold) []string { return []string{f.name(), f.times(), f.note(g)} })
	}
}

// group writes one group of pods, if there are any: those with one key in one row, in the order of their first.
func (p *page) group(c color, heading string, pods []spot.PodResult,
	key func(spot.PodResult) string, row func(fold) []string) {
	var folds []fold
	at := map[string]int{} // in folds, by key
	for _, pod := range pods {
		i, ok := at[key(pod)]
		if !ok {
			i = len(folds)
			at[key(pod)] = i
			folds = append(folds, nil)
		}
		folds[i] = append(folds[i], pod)
	}
	if len(folds) == 0 {
		return
	}
	p.heading(c, fmt.Sprintf("%d %s", len(pods), heading))
	var rows [][]string
	for i, f := range folds {
		if i == most-1 && len(folds) > most {
			rows = append(rows, []string{fmt.Sprintf("and %d more", len(slices.Concat(folds[i:]...)))})
			break
		}
		rows = append(rows, row(f))
	}
	p.table("    ", rows)
}

// foldKey is the same for pods that fit into one row.
func foldKey(g group, pod spot.PodResult) string {
	switch {
	case g.each:
		return pod.UID
	case g.end == spot.PodSkipped:
		return pod.Reason // whose pods they are matters less than why they stay
	}
	return pod.Namespace + "/" + pod.Owner + "/" + pod.Reason
}

// fold is the pods of one row.
type fold []spot.PodResult

// name is the pod's, or the owner's if all have one, or as many pods' as the eye takes in.
func (f fold) name() string {
	first := f[0]
	if len(f) == 1 {
		return first.Namespace + "/" + first.Name
	}
	_, owner, _ := strings.Cut(first.Owner, "/")
	var names []string
	for _, pod := range f {
		if pod.Owner != first.Owner || pod.Namespace != first.Namespace {
			owner = ""
		}
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	if owner != "" {
		return fmt.Sprintf("%s/%s ×%d", first.Namespace, owner, len(f))
	}
	const few = 3
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few-1], ", "), len(names)-few+1)
	}
	return strings.Join(names, ", ")
}

// times says when the last of them had gone.
func (f fold) times() string {
	var last *spot.Seconds
	for _, pod := range f {
		if pod.TerminatedAt != nil && (last == nil || *pod.TerminatedAt > *last) {
			last = pod.TerminatedAt
		}
	}
	if last == nil {
		return ""
	}
	return "gone " + at(*last)
}

// note is why, and what stood in the way.
func (f fold) note(g group) string {
	pod := f[0]
	reason := pod.Reason
	_, owner, owned := strings.Cut(pod.Owner, "/")
	if g.end == spot.PodEvicted && owned && strings.Contains(reason, owner) {
		reason = "" // that its owner starts another is why one has an owner
	}
	refusals := 0
	for _, one := range f {
		refusals += one.Refusals
	}
	switch {
	case refusals == 0:
	case g.each:
		reason += "\nrefused " + times(refusals) + ", last with " + strings.TrimPrefix(pod.LastRefusal, "refused with ")
	case reason == "":
		reason = "refused " + times(refusals) + " first"
	default:
		reason += "; refused " + times(refusals) + " first"
	}
	return reason
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// verbs are what a plan says about pods, as a heading.
var verbs = []struct {
	verb    spot.PodAction
	color   color
	heading string
}{
	{spot.PodEvict, yellow, "would be evicted"},
	{spot.PodWait, yellow, "would be watched only"},
	{spot.PodSkip, faint, "would be left by rule"},
}

// planned shows what would be done.
func (p *page) planned(out spot.Outcome) {
	plan := out.Plan
	if plan == nil {
		return
	}
	p.line("")
	if plan.Cordon {
		p.line("  the node would be cordoned")
	}
	switch {
	case plan.Replace == spot.ReplaceDetach:
		p.line("  a replacement would be asked of %s%s", plan.Group, ifNot(plan.Reason, "; ", ""))
	case plan.Replace == spot.ReplaceNotify:
		p.line("  CAST AI's autoscaler would be told")
	case plan.Replace == spot.ReplaceClaim:
		p.line("  the NodeClaim would be deleted")
	case plan.Reason != "":
		p.line("  no replacement would be asked: %s", plan.Reason)
	}
	for _, v := range verbs {
		var pods []spot.PodResult
		for _, pod := range plan.Pods {
			if pod.Action == v.verb {
				told := spot.PodResult{Namespace: pod.Namespace, Name: pod.Name, Reason: pod.Reason}
				if pod.ForceAt != nil {
					told.Reason += "; past its budget at " + at(*pod.ForceAt)
				}
				pods = append(pods, told)
			}
		}
		p.group(v.color, v.heading, pods, func(pod spot.PodResult) string { return pod.Namespace + "/" + pod.Reason },
			func(f fold) []string { return []string{f.name(), f[0].Reason} })
	}
}
