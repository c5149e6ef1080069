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
	annotationEvent     = AnnotationPrefix + "event"
	annotationDeadline  = AnnotationPrefix + "deadline"
	annotationApplied   = AnnotationPrefix + "applied"
	effectNoSchedule    = "NoSchedule"
	markUnschedulable   = "unschedulable"
	markDrainingLabel   = "draining-label"
	markDrainingTaint   = "draining-taint"
	markExcludeLB       = "exclude-from-load-balancers"
	markUnschedTaintKey = "unschedulable-taint"
	markOutOfService    = "out-of-service-taint"
	taintOutOfService   = "node.kubernetes.io/out-of-service"
	effectNoExecute     = "NoExecute"
	annotationKind      = AnnotationPrefix + "kind"
)

// DrainingSelector is the label selector of the nodes that carry our mark.
const DrainingSelector = labelDraining + "=" + drainingReason

// AnnotationPrefix is what all annotations of ours begin with.
const AnnotationPrefix = "kops-spot.cast.ai/"

// Cordon returns the node as it has to be while it is drained for the event: closed to new pods, out of load balancers,
// and marked with the event and its deadline, which is all the memory the handler has.
//
// The unschedulable taint is set together with the flag: the node lifecycle controller would add it, but only a moment
// later, and a scheduler works in that moment. The names of what was not there before stand in an annotation, so that a
// restore takes away ours and only ours.
func Cordon(n Node, in Interruption, deadline time.Time) Node {
	return mark(n, in, Plan{Deadline: deadline, Drain: true})
}

func mark(n Node, in Interruption, plan Plan) Node {
	n = n.clone()
	m := appliedTo(n)
	if !n.Unschedulable {
		n.Unschedulable = true
		m.add(markUnschedulable)
	}
	taint := func(t Taint, name string) {
		if !n.hasTaint(t.Key) {
			n.Taints = append(n.Taints, t)
			m.add(name)
		}
	}
	label := func(key, value, name string) {
		if !has(n.Labels, key) {
			n.Labels[key] = value
			m.add(name)
		}
	}
	taint(Taint{Key: taintUnschedulable, Effect: effectNoSchedule}, markUnschedTaintKey)
	taint(Taint{Key: labelDraining, Value: "true", Effect: effectNoSchedule}, markDrainingTaint)
	label(labelDraining, drainingReason, markDrainingLabel)
	if plan.Drain { // pods that stay go on to serve
		label(labelExcludeLB, "", markExcludeLB)
	}
	m.write(n)
	if n.hasEarlierDeadline(in, plan.Deadline) {
		return n
	}
	n.Annotations[annotationEvent] = in.EventID
	n.Annotations[annotationKind] = string(in.Kind)
	n.Annotations[annotationDeadline] = plan.Deadline.UTC().Format(time.RFC3339)
	return n
}

// marks are the names of what we have put on a node that was not there before.
type marks []string

func appliedTo(n Node) marks {
	if was := n.Annotations[annotationApplied]; was != "" {
		return strings.Split(was, ",")
	}
	return nil
}

func (m *marks) add(name string) {
	if !slices.Contains(*m, name) {
		*m = append(*m, name)
	}
}

func (m marks) write(n Node) { n.Annotations[annotationApplied] = strings.Join(m, ",") }

// sharper reports whether the node is marked for another event with an earlier deadline that had not passed when this
// event was sent: what a Spot warning says is not blurred by a rebalance recommendation that comes after it.
func (n Node) hasEarlierDeadline(in Interruption, deadline time.Time) bool {
	t, ok := n.recordedDeadline()
	return ok && n.Annotations[annotationEvent] != in.EventID && t.Before(deadline) && t.After(in.Time)
}

// recordedDeadline is the deadline that is marked on the node, for whatever event.
func (n Node) recordedDeadline() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, n.Annotations[annotationDeadline])
	return t, err == nil
}

// deadlineOfEvent is the deadline that an earlier invocation for the same event wrote on the node.
func (n Node) deadlineOfEvent(eventID string) (time.Time, bool) {
	if eventID == "" || n.Annotations[annotationEvent] != eventID {
		return time.Time{}, false
	}
	return n.recordedDeadline()
}

// CordonTaints are the keys and values of the taints that a pod must tolerate to be put on a cordoned node.
func CordonTaints() []Taint {
	return []Taint{
		{Key: taintUnschedulable, Effect: effectNoSchedule},
		{Key: labelDraining, Value: "true", Effect: effectNoSchedule},
	}
}
