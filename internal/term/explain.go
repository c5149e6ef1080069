package term

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Explanation is the plan for a node, or for one of its pods.
type Explanation struct {
	Outcome  spot.Outcome // of a Preview
	Region   string
	Pod      string // namespace/name; empty for the whole node
	Applied  spot.Restored
	NoAWS    string // why AWS was not queried; empty if it was
	Policy   spot.Policy
	PolicyOf string // the source of the policy
}

// Explain shows the plan and its reasons.
func Explain(w io.Writer, e Explanation, o Options) error {
	p := &page{color: o.Color}
	e.Outcome.Plan = cmp.Or(e.Outcome.Plan, &spot.PlanResult{})
	switch {
	case e.Outcome.Result != spot.Planned:
		p.line("%s  nothing to do: %s", p.paint(yellow, subject(e.Outcome)), e.Outcome.Reason)
		p.essentials(e)
	case e.Pod != "":
		p.pod(e)
		p.essentials(e)
	default:
		what := "would be cordoned"
		if e.Outcome.Plan.Drain {
			what += " and drained"
		}
		p.line("%s  %s", p.paint(yellow, subject(e.Outcome)), what)
		p.essentials(e)
		p.plannedPods(e.Outcome.Plan.Pods)
	}
	return p.send(w, "the explanation")
}

// essentials shows the facts that apply to all pods.
func (p *page) essentials(e Explanation) {
	out := e.Outcome
	rows := [][]string{
		{"cluster", out.Cluster},
		{"node", subject(out) + unless(out.Event.Instance, ", instance ", subject(out)) + unless(e.Region, " in ", "")},
		{"event", fmt.Sprintf("%s: %s", out.Event.Kind, out.Event.Kind.Description())},
	}
	if out.Result == spot.Planned {
		rows = append(rows, []string{"deadline", short(deadline(out)) + " after the event"},
			[]string{"replacement", replacement(*out.Plan, e.NoAWS)})
	}
	if a := e.Applied; a.Any() {
		rows = append(rows, []string{"cordoned", "for event " + a.Event + ", deadline " + a.Deadline.Format(time.RFC3339)})
	}
	p.line("")
	p.table("  ", append(rows, []string{"policy", policy(e.Policy, out) + unless(e.PolicyOf, " ", "")}))
}

func replacement(plan spot.PlanResult, noAWS string) string {
	reason := unless(plan.Reason, ": ", "")
	switch plan.Replace {
	case spot.ReplaceDetach:
		return "detach the instance from " + plan.Group + unless(plan.Reason, "; ", "")
	case spot.ReplaceAlready:
		return "already requested" + reason
	case spot.ReplaceNotify:
		return "notify the CAST AI autoscaler" + reason
	case spot.ReplaceClaim:
		return "delete the NodeClaim" + reason
	}
	if noAWS != "" && strings.HasSuffix(plan.Reason, noAWS) {
		return "unknown" + reason
	}
	return "none" + reason
}

// policy returns the settings that matter for the plan.
func policy(p spot.Policy, out spot.Outcome) string {
	daemonSets := map[spot.DrainOrder]string{
		spot.DrainFirst: "evicted with the others", spot.DrainLast: "evicted last", spot.DrainNever: "skipped"}
	var words []string
	switch {
	case p.Force == spot.ForceNever:
		words = append(words, "never force-delete")
	case slices.ContainsFunc(out.Plan.Pods, func(p spot.PlannedPod) bool { return p.ForceAt != nil }):
		words = append(words, "force-delete with a grace period of at most "+duration(p.ForceGrace))
	}
	if p.ShutdownGrace > 0 {
		words = append(words, "shutdown window "+duration(p.ShutdownGrace))
	}
	words = append(words, "DaemonSet pods "+daemonSets[p.DaemonSets])
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

// actions are the headings of a plan's pods.
var actions = []struct {
	action  spot.PodAction
	color   color
	heading string
}{
	{spot.PodEvict, yellow, "would be evicted"},
	{spot.PodWait, yellow, "already terminating"},
	{spot.PodSkip, faint, "would be skipped by rule"},
}

// plan shows the plan of a preview.
func (p *page) plan(plan spot.PlanResult) {
	p.line("")
	if plan.Cordon {
		p.line("  the node would be cordoned")
	}
	p.line("  replacement: %s", replacement(plan, ""))
	p.plannedPods(plan.Pods)
}

func (p *page) plannedPods(all []spot.PlannedPod) {
	for _, a := range actions {
		var rows [][]string
		for _, pod := range all {
			if pod.Action != a.action {
				continue
			}
			grace, force := "", ""
			if pod.Action == spot.PodEvict {
				grace = "grace period " + short(pod.GracePeriod)
			}
			switch {
			case pod.ForceAt != nil:
				force = "force-delete after " + short(*pod.ForceAt)
			case pod.KubeletAt != nil:
				force = "or " + byKubelet(pod)
			}
			rows = append(rows, []string{pod.Namespace + "/" + pod.Name, grace, force, pod.Reason})
		}
		if len(rows) > 0 {
			p.heading(a.color, fmt.Sprintf("%d %s", len(rows), a.heading))
			p.table("    ", rows)
		}
	}
}

// pod shows the plan for one pod in sentences.
func (p *page) pod(e Explanation) {
	for _, pod := range e.Outcome.Plan.Pods {
		if pod.Namespace+"/"+pod.Name != e.Pod {
			continue
		}
		for _, a := range actions {
			if a.action == pod.Action {
				p.line("%s  %s\n", p.paint(a.color, e.Pod), a.heading)
			}
		}
		if pod.Action != spot.PodEvict {
			p.line("  %s", pod.Reason)
			return
		}
		p.line("  evicted with a grace period of %s: %s", short(pod.GracePeriod), pod.Reason)
		switch {
		case pod.KubeletAt != nil:
			p.line("  if the eviction is refused, it is retried until the deadline; then its kubelet terminates it with %s",
				short(pod.KubeletGrace))
			return
		case pod.ForceAt == nil:
			p.line("  if the eviction is refused until the deadline, the pod stays on the node")
			return
		}
		left := deadline(e.Outcome) - *pod.ForceAt
		p.line("  if the eviction is refused, it is retried; after %s, the pod is force-deleted with a grace period of %s,\n"+
			"  %s before the deadline", short(*pod.ForceAt), short(min(pod.GracePeriod, spot.ToSeconds(e.Policy.ForceGrace))), short(left))
		return
	}
	p.line("%s  is no longer on the node", p.paint(yellow, e.Pod))
}

// byKubelet says when and how the shutdown window ends a pod.
func byKubelet(pod spot.PlannedPod) string {
	return fmt.Sprintf("its kubelet terminates it at +%s with %s", short(*pod.KubeletAt), short(pod.KubeletGrace))
}

// short formats seconds without unnecessary decimals.
func short(s spot.Seconds) string { return strconv.FormatFloat(float64(s), 'f', -1, 64) + " s" }

func duration(d time.Duration) string { return short(spot.Seconds(d.Seconds())) }

// Restoring shows what restore would remove from a node.
func Restoring(w io.Writer, node string, r spot.Restored, now time.Time, o Options) error {
	p := &page{color: o.Color}
	p.line("%s was cordoned by kops-spot%s", node, unless(r.Event, " for event ", ""))
	left := r.Deadline.Sub(now)
	switch {
	case r.Deadline.IsZero():
	case left > 0:
		p.line("%s the deadline is in %s: EC2 is about to reclaim the instance, with all pods that are scheduled to it",
			p.paint(Mind.color, Mind.sign), left.Round(time.Second))
	default:
		p.line("the deadline passed %s ago", (-left).Round(time.Second))
	}
	p.list("would be removed", yellow, r.Removed)
	p.list("would be kept, because somebody changed it", faint, r.Changed)
	p.line("")
	return p.send(w, "what would be restored")
}
