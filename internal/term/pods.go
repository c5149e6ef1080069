package term

import (
	"fmt"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// most is how many rows a group of pods has before the rest is only counted.
const most = 10

// group is pods that one thing is said of.
type group struct {
	end     spot.PodEnd
	color   color
	heading string
	each    bool // every pod is worth a row: somebody has to look at it
}

// groups are in the order of what is read first: what went wrong, then what went.
var groups = []group{
	{spot.PodRemaining, red, "still there at the end", true},
	{spot.PodStuck, yellow, "ended, object still there", true},
	{spot.PodForced, yellow, "deleted past a budget", true},
	{spot.PodEvicted, green, "evicted", false},
	{spot.PodGone, green, "gone without our asking", false},
	{spot.PodReleased, green, "released after their machine's end", false},
	{spot.PodLeft, faint, "left by rule", false},
}

func (p *page) ends(out spot.Outcome) {
	for _, g := range groups {
		var folds folding
		for _, pod := range out.Pods {
			if pod.End == g.end {
				folds.add(foldKey(g, pod), pod)
			}
		}
		var rows [][]string
		for _, f := range folds.all {
			rows = append(rows, []string{f.name(), f.times(), f.note(g)})
		}
		p.group(g.color, g.heading, folds.pods, rows, folds.all)
	}
}

// group writes one group of pods, if there are any.
func (p *page) group(c color, heading string, pods int, rows [][]string, folds []fold) {
	if pods == 0 {
		return
	}
	p.line("")
	p.line("  %s", p.paint(c, fmt.Sprintf("%d %s", pods, heading)))
	hidden := 0
	if len(rows) > most {
		for _, f := range folds[most-1:] {
			hidden += len(f.pods)
		}
		rows = append(rows[:most-1:most-1], []string{fmt.Sprintf("and %d more", hidden)})
	}
	p.table("    ", rows)
}

// foldKey is the same for pods that fit into one row.
func foldKey(g group, pod spot.PodTold) string {
	switch {
	case g.each:
		return pod.UID
	case g.end == spot.PodLeft:
		return pod.Reason // whose pods they are matters less than why they stay
	}
	return pod.Namespace + "/" + pod.Owner + "/" + pod.Reason
}

// folding gathers pods by key, in the order of their first.
type folding struct {
	all  []fold
	pods int
	at   map[string]int
}

func (f *folding) add(key string, pod spot.PodTold) {
	if f.at == nil {
		f.at = map[string]int{}
	}
	i, ok := f.at[key]
	if !ok {
		i = len(f.all)
		f.at[key] = i
		f.all = append(f.all, fold{})
	}
	f.all[i].pods = append(f.all[i].pods, pod)
	f.pods++
}

// fold is the pods of one row.
type fold struct{ pods []spot.PodTold }

// name is the pod's, or the owner's if all have one, or as many pods' as the eye takes in.
func (f fold) name() string {
	first := f.pods[0]
	if len(f.pods) == 1 {
		return first.Namespace + "/" + first.Name
	}
	_, owner, _ := strings.Cut(first.Owner, "/")
	var names []string
	for _, pod := range f.pods {
		if pod.Owner != first.Owner || pod.Namespace != first.Namespace {
			owner = ""
		}
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	if owner != "" {
		return fmt.Sprintf("%s/%s ×%d", first.Namespace, owner, len(f.pods))
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
	for _, pod := range f.pods {
		if pod.Gone != nil && (last == nil || *pod.Gone > *last) {
			last = pod.Gone
		}
	}
	if last == nil {
		return ""
	}
	return "gone " + at(*last)
}

// note is why, and what stood in the way.
func (f fold) note(g group) string {
	pod := f.pods[0]
	reason := pod.Reason
	_, owner, owned := strings.Cut(pod.Owner, "/")
	if g.end == spot.PodEvicted && owned && strings.Contains(reason, owner) {
		reason = "" // that its owner starts another is why one has an owner
	}
	refusals := 0
	for _, one := range f.pods {
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
	verb    spot.Verb
	color   color
	heading string
}{
	{spot.Evict, yellow, "would be evicted"},
	{spot.Watch, yellow, "would be watched only"},
	{spot.Leave, faint, "would be left by rule"},
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
	case plan.Replace == spot.ReplaceTell:
		p.line("  CAST AI's autoscaler would be told")
	case plan.Replace == spot.ReplaceClaim:
		p.line("  the NodeClaim would be deleted")
	case plan.Reason != "":
		p.line("  no replacement would be asked: %s", plan.Reason)
	}
	for _, v := range verbs {
		var folds folding
		for _, pod := range plan.Pods {
			if pod.Verb == v.verb {
				why := pod.Reason + forced(pod.ForceAt)
				folds.add(pod.Namespace+"/"+why, spot.PodTold{Namespace: pod.Namespace, Name: pod.Name, Reason: why})
			}
		}
		var rows [][]string
		for _, f := range folds.all {
			rows = append(rows, []string{f.name(), f.pods[0].Reason})
		}
		p.group(v.color, v.heading, folds.pods, rows, folds.all)
	}
}

// forced says when a pod would be deleted past its budget.
func forced(s *spot.Seconds) string {
	if s == nil {
		return ""
	}
	return "; past its budget at " + at(*s)
}
