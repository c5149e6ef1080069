package spot

import (
	"maps"
	"slices"
	"strings"
	"time"
)

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
