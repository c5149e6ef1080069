package spot

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// AnnotationPrefix starts the names of kops-spot's annotations.
const AnnotationPrefix = "kops-spot.cast.ai/"

// Annotations on a cordoned node, and the names of changes in annotationApplied.
const (
	annotationApplied  = AnnotationPrefix + "applied" // the changes that kops-spot made, separated by commas
	annotationEvent    = AnnotationPrefix + "event"
	annotationKind     = AnnotationPrefix + "kind"
	annotationDeadline = AnnotationPrefix + "deadline"
	annotationRehearse = AnnotationPrefix + "rehearsal"

	appliedUnschedulable      = "unschedulable"
	appliedUnschedulableTaint = "unschedulable-taint"
	appliedDrainingTaint      = "draining-taint"
	appliedDrainingLabel      = "draining-label"
	appliedExcludeLB          = "exclude-from-load-balancers"
	appliedOutOfService       = "out-of-service-taint"
)

// Labels and taints. The draining label and taint are CAST AI's own, so that its autoscaler and agents recognize the
// node's state.
const (
	labelDraining      = "autoscaling.cast.ai/draining"
	drainingReason     = "spot-interruption"
	labelExcludeLB     = "node.kubernetes.io/exclude-from-external-load-balancers"
	taintUnschedulable = "node.kubernetes.io/unschedulable"
	taintOutOfService  = "node.kubernetes.io/out-of-service"
	effectNoSchedule   = "NoSchedule"
	effectNoExecute    = "NoExecute"
)

// DrainingSelector selects the nodes with the draining label.
const DrainingSelector = labelDraining + "=" + drainingReason

// Uncordoned reports whether somebody uncordoned a node that is cordoned for the event. Restore also removes the event.
func (n Node) Uncordoned(eventID string) bool {
	return !n.Unschedulable && n.Annotations[annotationEvent] == eventID
}

// CordonTaints returns the taints of a cordoned node.
func CordonTaints() []Taint {
	return []Taint{
		{Key: taintUnschedulable, Effect: effectNoSchedule},
		{Key: labelDraining, Value: "true", Effect: effectNoSchedule},
	}
}

// Cordon returns the node cordoned for an event and, if the plan is to drain it, excluded from load balancers. The
// event and its deadline are recorded in annotations: the handler has no other memory.
//
// The unschedulable taint is set together with spec.unschedulable, because the node lifecycle controller adds it
// slightly later, and the scheduler reads the taint. annotationApplied lists what was added, so that Restore removes
// only that.
func Cordon(n Node, in Interruption, plan Plan) Node {
	n = n.clone()
	a := appliedTo(n)
	if !n.Unschedulable {
		n.Unschedulable = true
		a.add(appliedUnschedulable)
	}
	for i, t := range CordonTaints() {
		if !n.hasTaint(t.Key) {
			n.Taints = append(n.Taints, t)
			a.add([]string{appliedUnschedulableTaint, appliedDrainingTaint}[i])
		}
	}
	label := func(key, value, name string) {
		if !has(n.Labels, key) {
			n.Labels[key] = value
			a.add(name)
		}
	}
	label(labelDraining, drainingReason, appliedDrainingLabel)
	if plan.Drain { // pods on a node that is only cordoned keep serving
		label(labelExcludeLB, "", appliedExcludeLB)
	}
	a.write(n)
	if n.hasEarlierDeadline(in, plan.Deadline) {
		return n
	}
	n.Annotations[annotationEvent] = in.EventID
	n.Annotations[annotationKind] = string(in.Kind)
	n.Annotations[annotationDeadline] = plan.Deadline.UTC().Format(time.RFC3339)
	delete(n.Annotations, annotationRehearse)
	if in.Rehearsal {
		n.Annotations[annotationRehearse] = "true"
	}
	return n
}

// applied lists the names of the changes that kops-spot made to a node.
type applied []string

func appliedTo(n Node) applied {
	if names := n.Annotations[annotationApplied]; names != "" {
		return strings.Split(names, ",")
	}
	return nil
}

func (a *applied) add(name string) {
	if !slices.Contains(*a, name) {
		*a = append(*a, name)
	}
}

func (a applied) write(n Node) { n.Annotations[annotationApplied] = strings.Join(a, ",") }

// hasEarlierDeadline reports whether an earlier deadline of another event is recorded that had not passed when this
// event was sent: a rebalance recommendation must not replace the deadline of a Spot warning. A rehearsal\'s does not
// count.
func (n Node) hasEarlierDeadline(in Interruption, deadline time.Time) bool {
	t, ok := n.recordedDeadline()
	return ok && !has(n.Annotations, annotationRehearse) && n.Annotations[annotationEvent] != in.EventID && t.Before(deadline) && t.After(in.Time)
}

func (n Node) recordedDeadline() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339, n.Annotations[annotationDeadline])
	return t, err == nil
}

// deadlineOfEvent returns the deadline that an earlier invocation recorded for the same event.
func (n Node) deadlineOfEvent(eventID string) (time.Time, bool) {
	if eventID == "" || n.Annotations[annotationEvent] != eventID {
		return time.Time{}, false
	}
	return n.recordedDeadline()
}

// Rehearsed returns the name of a node, other than except, that a rehearsal is draining; empty if there is none.
func Rehearsed(nodes []Node, except string, now time.Time) string {
	for _, n := range nodes {
		deadline, ok := n.recordedDeadline()
		if n.Name != except && ok && now.Before(deadline) && has(n.Annotations, annotationRehearse) {
			return n.Name
		}
	}
	return ""
}

// fieldManager is the field manager of kops-spot's writes.
const fieldManager = "kops-spot"

// Restored is what Restore removes from a node.
type Restored struct {
	Event    string    // the recorded event; may be empty
	Deadline time.Time // the recorded deadline; may be zero
	Removed  []string  // such as "label a=b"
	Changed  []string  // what kops-spot added and somebody has changed since; it stays
}

// Any reports whether there is anything to remove.
func (r Restored) Any() bool { return len(r.Removed) > 0 }

// Restore removes from a node what kops-spot added, unless it was changed since.
func Restore(n Node) Node {
	after, _ := restore(n)
	return after
}

// RestoreFor is Restore if the node is cordoned for the event. A rehearsal uses it: a real event may have come since.
func RestoreFor(n Node, eventID string) Node {
	if n.Annotations[annotationEvent] != eventID {
		return n
	}
	return Restore(n)
}

// WhatRestoreRemoves describes what Restore does to the node.
func WhatRestoreRemoves(n Node) Restored {
	_, r := restore(n)
	return r
}

func restore(n Node) (Node, Restored) {
	r := Restored{Event: n.Annotations[annotationEvent]}
	r.Deadline, _ = n.recordedDeadline()
	n = n.clone()
	names := appliedTo(n)
	for _, a := range additions {
		if !slices.Contains(names, a.name) {
			continue
		}
		switch removed, now := a.removeFrom(&n); {
		case removed:
			r.Removed = append(r.Removed, a.String())
		case now != "":
			r.Changed = append(r.Changed, now)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Annotations)) {
		if strings.HasPrefix(key, AnnotationPrefix) {
			r.Removed = append(r.Removed, "annotation "+key+"="+n.Annotations[key])
			delete(n.Annotations, key)
		}
	}
	return n, r
}

// addition is a change that kops-spot makes to a node: a taint, a label or, if both are empty, spec.unschedulable.
type addition struct {
	name  string // in annotationApplied
	taint Taint
	label string
	value string // of the label
}

// additions lists all changes. A taint or label that differs is not kops-spot's.
var additions = []addition{
	{name: appliedUnschedulable},
	{name: appliedUnschedulableTaint, taint: Taint{Key: taintUnschedulable, Effect: effectNoSchedule}},
	{name: appliedDrainingTaint, taint: Taint{Key: labelDraining, Value: "true", Effect: effectNoSchedule}},
	{name: appliedOutOfService, taint: Taint{Key: taintOutOfService, Value: "nodeshutdown", Effect: effectNoExecute}},
	{name: appliedDrainingLabel, label: labelDraining, value: drainingReason},
	{name: appliedExcludeLB, label: labelExcludeLB},
}

func (a addition) String() string {
	switch {
	case a.taint.Key != "":
		return formatTaint(a.taint)
	case a.label != "":
		return "label " + formatPair(a.label, a.value)
	}
	return "unschedulable"
}

// removeFrom removes the addition from the node if it is unchanged. Otherwise, now describes what is there instead.
func (a addition) removeFrom(n *Node) (removed bool, now string) {
	switch {
	case a.name == appliedUnschedulableTaint && n.cordonedBySomebodyElse():
		return false, "" // belongs to that cordon: the node lifecycle controller would add it again
	case a.taint.Key != "":
		rest := slices.DeleteFunc(slices.Clone(n.Taints), func(have Taint) bool {
			have.TimeAdded = time.Time{} // set by whoever adds a taint
			return have == a.taint
		})
		if len(rest) < len(n.Taints) {
			n.Taints = rest
			return true, ""
		}
		for _, have := range n.Taints {
			if have.Key == a.taint.Key {
				now = formatTaint(have)
			}
		}
		return false, now
	case a.label != "":
		value, there := n.Labels[a.label]
		switch {
		case !there:
			return false, ""
		case value != a.value:
			return false, "label " + formatPair(a.label, value)
		}
		delete(n.Labels, a.label)
		return true, ""
	case n.cordonedBySomebodyElse(): // they uncordoned the node and cordoned it again
		return false, "unschedulable, by " + n.CordonedBy
	}
	removed, n.Unschedulable = n.Unschedulable, false
	return removed, ""
}

func (n Node) cordonedBySomebodyElse() bool {
	return n.Unschedulable && n.CordonedBy != "" && !strings.HasPrefix(n.CordonedBy, fieldManager)
}

func formatTaint(t Taint) string { return "taint " + formatPair(t.Key, t.Value) + ":" + t.Effect }

func formatPair(key, value string) string {
	if value == "" {
		return key
	}
	return key + "=" + value
}
