package spot

import (
	"maps"
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
	return CordonedNode(n, in, Plan{Deadline: deadline, Drain: true})
}

func CordonedNode(n Node, in Interruption, plan Plan) Node {
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

// managerOurs is what the API server calls our writes.
const managerOurs = "kops-spot"

// Restored is what it takes to give a node back to its cluster: what is taken away of what was added to it, and what
// is not.
type Restored struct {
	Event    string    // the event that the node is marked for; empty if it does not say
	Deadline time.Time // the end of its machine, by the mark; zero if it does not say
	Removed  []string  // in words, as are those that stay; none: the node is not marked
	Changed  []string  // added by us, and changed by somebody since: as they are now
}

// Marked reports whether there is anything of ours on the node.
func (r Restored) Any() bool { return len(r.Removed) > 0 }

// Restore returns the node as it would be had it never been cordoned: without what the marks say was added to it, and
// without our annotations. What was there before stays, and so does what somebody has changed since: it is no longer
// ours.
func Restore(n Node) Node {
	after, _ := restore(n)
	return after
}

// Restoring says what Restore does to the node.
func WhatRestoreRemoves(n Node) Restored {
	_, told := restore(n)
	return told
}

func restore(n Node) (Node, Restored) {
	told := Restored{Event: n.Annotations[annotationEvent]}
	told.Deadline, _ = time.Parse(time.RFC3339, n.Annotations[annotationDeadline])
	n = n.clone()
	marks := strings.Split(n.Annotations[annotationApplied], ",")
	for _, t := range additions {
		if !slices.Contains(marks, t.mark) {
			continue
		}
		switch removed, now := t.removeFrom(&n); {
		case removed:
			told.Removed = append(told.Removed, t.String())
		case now != "":
			told.Changed = append(told.Changed, now)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Annotations)) {
		if strings.HasPrefix(key, AnnotationPrefix) {
			told.Removed = append(told.Removed, "annotation "+key+"="+n.Annotations[key])
			delete(n.Annotations, key)
		}
	}
	return n, told
}

// trace is one thing that is added to a node: a taint, a label or, where it is neither, the cordon itself.
type addition struct {
	mark  string // its name in the annotation
	taint Taint
	label string
	value string // of the label
}

// traces are all things that are added to nodes, and how they are added: what is not just so is not ours.
var additions = []addition{
	{mark: markUnschedulable},
	{mark: markUnschedTaintKey, taint: Taint{Key: taintUnschedulable, Effect: effectNoSchedule}},
	{mark: markDrainingTaint, taint: Taint{Key: labelDraining, Value: "true", Effect: effectNoSchedule}},
	{mark: markOutOfService, taint: Taint{Key: taintOutOfService, Value: "nodeshutdown", Effect: effectNoExecute}},
	{mark: markDrainingLabel, label: labelDraining, value: drainingReason},
	{mark: markExcludeLB, label: labelExcludeLB},
}

func (t addition) String() string {
	switch {
	case t.taint.Key != "":
		return taintInWords(t.taint)
	case t.label != "":
		return labelInWords(t.label, t.value)
	}
	return "unschedulable"
}

// removeFrom takes it away from the node if it is there as it was added; now is what else is there in its place.
func (t addition) removeFrom(n *Node) (removed bool, now string) {
	switch {
	case t.mark == markUnschedTaintKey && n.cordonedBySomebodyElse():
		return false, "" // it goes with the cordon: the node lifecycle controller would put it straight back
	case t.taint.Key != "":
		rest := slices.DeleteFunc(slices.Clone(n.Taints), func(have Taint) bool {
			have.TimeAdded = time.Time{} // who adds a taint may write when
			return have == t.taint
		})
		if len(rest) < len(n.Taints) {
			n.Taints = rest
			return true, ""
		}
		for _, have := range n.Taints {
			if have.Key == t.taint.Key {
				now = taintInWords(have)
			}
		}
		return false, now
	case t.label != "":
		value, there := n.Labels[t.label]
		switch {
		case !there:
			return false, ""
		case value != t.value:
			return false, labelInWords(t.label, value)
		}
		delete(n.Labels, t.label)
		return true, ""
	case n.cordonedBySomebodyElse(): // who has opened the node since, and cordoned it again
		return false, "unschedulable, by " + n.CordonedBy
	}
	removed, n.Unschedulable = n.Unschedulable, false
	return removed, ""
}

func (n Node) cordonedBySomebodyElse() bool {
	return n.Unschedulable && n.CordonedBy != "" && !strings.HasPrefix(n.CordonedBy, managerOurs)
}

func taintInWords(t Taint) string { return "taint " + pairInWords(t.Key, t.Value) + ":" + t.Effect }

func labelInWords(key, value string) string { return "label " + pairInWords(key, value) }

func pairInWords(key, value string) string {
	if value == "" {
		return key
	}
	return key + "=" + value
}
