package spot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Notification is an event that the function publishes, for people and for their programs.
type Notification struct {
	Name     NotificationName `json:"-"` // EventBridge's detail-type
	EventID  string           `json:"event_id"`
	Cluster  string           `json:"cluster"`
	Kind     Kind             `json:"kind"`
	Node     string           `json:"node,omitempty"`
	Instance string           `json:"instance,omitempty"`
	InstanceInfo
	Deadline  time.Time `json:"deadline,omitzero"`
	Rehearsal bool      `json:"rehearsal"`
	Summary   string    `json:"summary"` // one line, for people
	Text      string    `json:"text"`    // the summary and what people ask next, at most ten lines

	// PodCounts and Outcome are set in NotificationFinished. If the event would be too large for EventBridge, the
	// outcome lacks its pods.
	PodCounts map[PodStatus]int `json:"pod_counts,omitempty"`
	Outcome   *Outcome          `json:"outcome,omitempty"`
}

// NotificationName is the name of a Notification.
type NotificationName string

const (
	NotificationStarted  NotificationName = "Node Interruption Started"
	NotificationFinished NotificationName = "Node Interruption Finished"
)

// Started returns the notification that handling has started.
func (o Outcome) Started() Notification {
	n := o.notification(NotificationStarted)
	n.Summary = o.headline(o.Event.Kind.Description() + atClock(o.Deadline))
	n.Text = n.Summary
	return n
}

// Finished returns the notification that handling has finished.
func (o Outcome) Finished() Notification {
	n := o.notification(NotificationFinished)
	result := strings.ReplaceAll(string(o.Result), "-", " ")
	if empty := o.Timings.Empty; o.Result == Drained && empty != nil {
		result += fmt.Sprintf(" after %.0f s", *empty)
	}
	if o.Reason != "" {
		result += ": " + o.Reason
	}
	n.Summary = o.headline(result)
	n.PodCounts, n.Outcome = o.PodCounts(), &o
	n.Text = strings.Join(append([]string{n.Summary}, o.details()...), "\n")
	return n
}

// IsNotable reports whether people are notified of the result even if they were not notified of the start. A clean-up
// is notable unless the node was deleted before and nothing was left: a repeated event must not say so again.
func (o Outcome) IsNotable() bool {
	if c := o.Cleanup; o.Result == CleanedUp && c != nil {
		return c.Tainted != nil || c.NodeDeletedBy != ""
	}
	return o.Result.Failed() || o.Result == Recovered
}

// NotificationSource is EventBridge's source of notifications.
const NotificationSource = "kops-spot"

// maxDetail limits the size of a notification's detail in bytes. EventBridge accepts 256 KB for all of an event.
const maxDetail = 200_000

// Detail returns the JSON of the notification. If it is too large, the outcome lacks its pods, of which the notification
// has the numbers.
func (n Notification) Detail() ([]byte, error) {
	detail, err := json.Marshal(n)
	if err == nil && len(detail) > maxDetail && n.Outcome != nil {
		out := *n.Outcome
		out.Pods = nil
		if out.Plan != nil {
			plan := *out.Plan
			plan.Pods, out.Plan = []PlannedPod{}, &plan
		}
		n.Outcome = &out
		detail, err = json.Marshal(n)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding the event %q: %w", n.Name, err)
	}
	return detail, nil
}

func (o Outcome) notification(name NotificationName) Notification {
	return Notification{Name: name, EventID: o.Event.ID, Cluster: o.Cluster, Kind: o.Event.Kind, Node: o.Node,
		Instance: o.Event.Instance, InstanceInfo: o.Instance, Deadline: o.Deadline, Rehearsal: o.Event.Rehearsal}
}

// headline names the node or what is known of it, says what happened, and adds what identifies the instance.
func (o Outcome) headline(what string) string {
	subject, facts := "", []string{o.Event.Instance, o.Instance.Type, o.Instance.Zone, o.Instance.Group}
	switch {
	case o.Node != "":
		subject = "Node " + o.Node
	case o.Event.Instance != "":
		subject = "Instance " + o.Event.Instance
	default:
		subject = "Group " + o.Event.Group
	}
	facts = slices.DeleteFunc(facts, func(fact string) bool { return fact == "" || strings.HasSuffix(subject, " "+fact) })
	text := fmt.Sprintf("%s of %s: %s", subject, o.Cluster, shorten(what, maxLine/2))
	if o.Event.Rehearsal {
		text = "Rehearsal: " + text
	}
	if len(facts) > 0 {
		text += " (" + strings.Join(facts, ", ") + ")"
	}
	return shorten(text, maxLine)
}

// maxLine limits a line of a notification, in characters. PagerDuty accepts 1,024 as a summary.
const maxLine = 1000

// plain replaces the characters that are special in JSON strings, which EventBridge's input transformer may leave
// unescaped, and in Slack's links.
var plain = strings.NewReplacer(`"`, "'", `\`, "/", "<", "(", ">", ")")

// shorten returns text as one line of at most so many characters, without special ones.
func shorten(text string, most int) string {
	text = plain.Replace(strings.Join(strings.Fields(text), " "))
	if all := []rune(text); len(all) > most {
		return string(all[:most-1]) + "…"
	}
	return text
}

func atClock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + t.UTC().Format("15:04:05 UTC")
}

// PodCounts returns the number of pods by status.
func (o Outcome) PodCounts() map[PodStatus]int {
	count := map[PodStatus]int{}
	for _, p := range o.Pods {
		count[p.Status]++
	}
	return count
}

// fewLines is how many pods or problems the text of a notification names.
const fewLines = 3

func (o Outcome) details() (lines []string) {
	counts := o.PodCounts()
	var pods, running []string
	for _, status := range []PodStatus{PodStillRunning, PodLeftToKubelet, PodStuck, PodForceDeleted, PodEvicted, PodTerminated, PodDeleted, PodSkipped} {
		if n := counts[status]; n > 0 {
			pods = append(pods, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(status), "-", " ")))
		}
	}
	if len(pods) > 0 {
		lines = append(lines, "Pods: "+strings.Join(pods, ", "))
	}
	for _, p := range o.Pods {
		if p.Status == PodStillRunning {
			running = append(running, p.Namespace+"/"+p.Name)
		}
	}
	if len(running) > 0 {
		lines = append(lines, "Still running: "+few(running, ", "))
	}
	var times []string
	for _, step := range []struct {
		what string
		at   *Seconds
	}{{"cordoned", o.Timings.Cordoned}, {"last eviction", o.Timings.LastEviction}, {"empty", o.Timings.Empty}} {
		if step.at != nil {
			times = append(times, fmt.Sprintf("%s after %.1f s", step.what, *step.at))
		}
	}
	if len(times) > 0 {
		lines = append(lines, "Times: "+strings.Join(times, ", "))
	}
	if r := o.Replacement; r != nil {
		lines = append(lines, "Replacement: "+r.String())
	}
	if f := o.FailedLaunch; f != nil {
		lines = append(lines, fmt.Sprintf("Auto Scaling: %s (%d of %d instances)", f.Message, f.Present, f.Desired))
	}
	if len(o.Problems) > 0 {
		lines = append(lines, "Problems: "+few(o.Problems, "; "))
	}
	for i, line := range lines {
		lines[i] = shorten(line, maxLine)
	}
	return lines
}

// String describes the request for a replacement, or why there was none.
func (r ReplacementResult) String() string {
	switch r.Action {
	case ReplaceDetach:
		return "requested from group " + r.Group
	case ReplaceClaim:
		return "requested from Karpenter: NodeClaim " + r.NodeClaim + " deleted"
	case ReplaceNotify:
		return "requested from CAST AI's autoscaler"
	case ReplaceAlready:
		return "already requested: " + r.Reason
	}
	return "not requested: " + r.Reason
}

// few joins the first few texts and counts the others.
func few(texts []string, separator string) string {
	if more := len(texts) - fewLines; more > 0 {
		return strings.Join(texts[:fewLines], separator) + fmt.Sprintf("%sand %d more", separator, more)
	}
	return strings.Join(texts, separator)
}
