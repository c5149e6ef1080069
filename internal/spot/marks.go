package spot

import (
	"slices"
	"strings"
	"time"
)

// What the handler writes on a node. The draining label and taint are those of CAST AI's own parts, so that its
// autoscaler and agents know the node's state whoever drains it.
const (
	labelDraining       = "autoscaling.cast.ai/draining"
	drainingReason      = "spot-interruption"
	taintUnschedulable  = "node.kubernetes.io/unschedulable"
	labelExcludeLB      = "node.kubernetes.io/exclude-from-external-load-balancers"
	annotationEvent     = "kops-spot.cast.ai/event"
	annotationDeadline  = "kops-spot.cast.ai/deadline"
	annotationMarks     = "kops-spot.cast.ai/marks"
	effectNoSchedule    = "NoSchedule"
	markUnschedulable   = "unschedulable"
	markDrainingLabel   = "draining-label"
	markDrainingTaint   = "draining-taint"
	markExcludeLB       = "exclude-from-load-balancers"
	markUnschedTaintKey = "unschedulable-taint"
)

// Cordon returns the node as it has to be while it is drained for the event: closed to new pods, out of load balancers,
// and marked with the event and its deadline, which is all the memory the handler has.
//
// The unschedulable taint is set together with the flag: the node lifecycle controller would add it, but only a moment
// later, and a scheduler works in that moment. The names of what was not there before stand in an annotation, so that a
// restore takes away ours and only ours.
func Cordon(n Node, in Interruption, deadline time.Time) Node {
	n = n.clone()
	var marks []string
	if was := n.Annotations[annotationMarks]; was != "" {
		marks = strings.Split(was, ",")
	}
	mark := func(name string) {
		if !slices.Contains(marks, name) {
			marks = append(marks, name)
		}
	}
	if !n.Unschedulable {
		n.Unschedulable = true
		mark(markUnschedulable)
	}
	if !n.hasTaint(taintUnschedulable) {
		n.Taints = append(n.Taints, Taint{Key: taintUnschedulable, Effect: effectNoSchedule})
		mark(markUnschedTaintKey)
	}
	if !n.hasTaint(labelDraining) {
		n.Taints = append(n.Taints, Taint{Key: labelDraining, Value: "true", Effect: effectNoSchedule})
		mark(markDrainingTaint)
	}
	if _, ok := n.Labels[labelDraining]; !ok {
		n.Labels[labelDraining] = drainingReason
		mark(markDrainingLabel)
	}
	if _, ok := n.Labels[labelExcludeLB]; !ok {
		n.Labels[labelExcludeLB] = ""
		mark(markExcludeLB)
	}
	n.Annotations[annotationMarks] = strings.Join(marks, ",")
	n.Annotations[annotationEvent] = in.EventID
	n.Annotations[annotationDeadline] = deadline.UTC().Format(time.RFC3339)
	return n
}

// markedDeadline is the deadline that an earlier invocation for the same event wrote on the node.
func (n Node) markedDeadline(eventID string) (time.Time, bool) {
	if eventID == "" || n.Annotations[annotationEvent] != eventID {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, n.Annotations[annotationDeadline])
	return t, err == nil
}

// CordonTaints are the keys and values of the taints that a pod must tolerate to be put on a cordoned node.
func CordonTaints() []Taint {
	return []Taint{
		{Key: taintUnschedulable, Effect: effectNoSchedule},
		{Key: labelDraining, Value: "true", Effect: effectNoSchedule},
	}
}
