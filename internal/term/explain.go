package term

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Explanation is what would be done about a node, or about one pod of it, and what to know beside.
type Explanation struct {
	Outcome spot.Outcome // of a Preview
	Region  string
	Pod     string // namespace/name; empty for the whole node
	Marks   spot.Restored
	Unasked string // why AWS was not asked; empty if it was
	Policy  spot.Policy
	From    string // whence the policy is
}

// Explain shows what would be done, and why.
func Explain(w io.Writer, e Explanation, o Options) error {
	p := &page{color: o.Color}
	switch {
	case e.Outcome.Result != spot.Planned:
		p.line("%s  nothing would be done: %s", p.paint(yellow, subject(e.Outcome)), e.Outcome.Reason)
		p.essentials(e)
	case e.Pod != "":
		p.onePod(e)
		p.essentials(e)
	default:
		p.line("%s  would be cordoned and drained", p.paint(yellow, subject(e.Outcome)))
		p.essentials(e)
		p.allPods(e.Outcome)
	}
	return p.send(w, "the explanation")
}

// essentials are what holds for the node and all its pods.
func (p *page) essentials(e Explanation) {
	out := e.Outcome
	rows := [][]string{
		{"cluster", out.Cluster},
		{"node", out.Node + ifNot(out.Event.Instance, ", the instance ", out.Node) + ifNot(e.Region, " in ", "")},
		{"warning", fmt.Sprintf("%s: %s", out.Event.Kind, out.Event.Kind.Description())},
	}
	if out.Result == spot.Planned {
		rows = append(rows, []string{"deadline", short(end(out)) + " after the warning"})
		if out.Plan != nil {
			rows = append(rows, []string{"replacement", replacementWords(*out.Plan, e.Unasked)})
		}
	}
	if e.Marks.Any() {
		rows = append(rows, []string{"marks", "it is marked for the event " + e.Marks.Event + " already, with the deadline " + e.Marks.Deadline.Format(time.RFC3339)})
	}
	rows = append(rows, []string{"policy", policyWords(e.Policy, out) + ifNot(e.From, " ", "")})
	p.line("")
	p.table("  ", rows)
}

func replacementWords(plan spot.PlanResult, unasked string) string {
	because := ifNot(plan.Reason, ": ", "")
	if unasked != "" && strings.HasSuffix(plan.Reason, unasked) {
		return "not known" + because
	}
	switch plan.Replace {
	case spot.ReplaceDetach:
		return "asked of " + plan.Group + ", by detaching the instance from it" + ifNot(plan.Reason, "; ", "")
	case spot.ReplaceAlready:
		return "asked for already" + because
	case spot.ReplaceNotify:
		return "CAST AI's autoscaler is told" + because
	case spot.ReplaceClaim:
		return "the node's NodeClaim is deleted, and Karpenter launches what is needed" + because
	}
	return "not asked" + because
}

// turns are the words for when DaemonSets' pods are asked.
var turns = map[spot.DrainOrder]string{spot.DrainFirst: "asked with all others", spot.DrainLast: "asked last", spot.DrainNever: "not asked"}

// policyWords are the settings that matter for what would be done.
func policyWords(p spot.Policy, out spot.Outcome) string {
	words := []string{"reserve " + duration(p.Reserve)}
	switch {
	case p.Force == spot.ForceNever:
		words = append(words, "never past budgets")
	case slices.ContainsFunc(planned(out), func(p spot.PlannedPod) bool { return p.ForceAt != nil }):
		words = append(words, fmt.Sprintf("past budgets with at most %s of grace", duration(p.ForceGrace)))
	}
	words = append(words, "DaemonSets' pods "+turns[p.DaemonSets], fmt.Sprintf("%d evictions at once", p.Parallel))
	switch out.Event.Kind {
	case spot.Rebalance:
		words = append(words, "rebalance recommendations: "+string(p.Rebalance))
	case spot.ScheduledChange:
		words = append(words, "scheduled changes: "+string(p.ScheduledChange))
	}
	if p.Replace != spot.ReplacerAuto {
		words = append(words, "replacement by "+string(p.Replace))
	}
	return strings.Join(words, ", ")
}

// allPods shows the fate of every pod.
func (p *page) allPods(out spot.Outcome) {
	for _, v := range verbs {
		var rows [][]string
		for _, pod := range planned(out) {
			if pod.Action == v.verb {
				grace, force := "", ""
				if pod.Action == spot.PodEvict {
					grace = "grace " + short(pod.GracePeriod)
				}
				if pod.ForceAt != nil {
					force = "past its budget after " + short(*pod.ForceAt)
				}
				rows = append(rows, []string{pod.Namespace + "/" + pod.Name, grace, force, pod.Reason})
			}
		}
		if len(rows) > 0 {
			p.heading(v.color, fmt.Sprintf("%d %s", len(rows), v.heading))
			p.table("    ", rows)
		}
	}
}

// onePod says in sentences what would become of the pod.
func (p *page) onePod(e Explanation) {
	for _, pod := range planned(e.Outcome) {
		if pod.Namespace+"/"+pod.Name != e.Pod {
			continue
		}
		for _, v := range verbs {
			if v.verb == pod.Action {
				p.line("%s  %s", p.paint(v.color, e.Pod), v.heading)
			}
		}
		p.line("")
		for _, sentence := range sentences(e, pod) {
			p.line("  %s", sentence)
		}
		return
	}
	p.line("%s  has just left the node", p.paint(yellow, e.Pod))
}

func sentences(e Explanation, pod spot.PlannedPod) []string {
	if pod.Action != spot.PodEvict {
		return []string{pod.Reason}
	}
	said := []string{fmt.Sprintf("it is told to end, with a grace period of %s: %s", short(pod.GracePeriod), pod.Reason)}
	if pod.ForceAt == nil {
		return append(said, "if a budget or a webhook refuses that to the last, it stays on the machine")
	}
	left := end(e.Outcome) - *pod.ForceAt
	whole := spot.Seconds(e.Policy.Reserve.Seconds())
	return append(said, fmt.Sprintf("if a budget or a webhook refuses that, it is asked again and again; %s after the warning it is deleted past what refuses it,\n"+
		"  with a grace period of %s, %s before the machine ends", short(*pod.ForceAt), short(left-whole), short(left)))
}

func planned(out spot.Outcome) []spot.PlannedPod {
	if out.Plan == nil {
		return nil
	}
	return out.Plan.Pods
}

// short is a length of time without needless decimals.
func short(s spot.Seconds) string {
	return strconv.FormatFloat(float64(s), 'f', -1, 64) + " s"
}

func duration(d time.Duration) string { return short(spot.Seconds(d.Seconds())) }
