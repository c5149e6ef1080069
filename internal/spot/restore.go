package spot

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Restoration is what it takes to give a node back to its cluster: what is taken away of what was added to it, and what
// is not.
type Restoration struct {
	Event    string    // the event that the node is marked for; empty if it does not say
	Deadline time.Time // the end of its machine, by the mark; zero if it does not say
	Removed  []string  // in words, as are those that stay; none: the node is not marked
	Changed  []string  // added by us, and changed by somebody since
}

// Marked reports whether there is anything of ours on the node.
func (r Restoration) Marked() bool { return len(r.Removed) > 0 }

// Restore returns the node as it would be had it never been cordoned: without what the marks say was added to it, and
// without our annotations. What was there before stays, and so does what somebody has changed since: it is no longer
// ours.
func Restore(n Node) Node {
	after, _ := restore(n)
	return after
}

// Restoring says what Restore does to the node.
func Restoring(n Node) Restoration {
	_, told := restore(n)
	return told
}

func restore(n Node) (Node, Restoration) {
	told := Restoration{Event: n.Annotations[annotationEvent]}
	told.Deadline, _ = time.Parse(time.RFC3339, n.Annotations[annotationDeadline])
	n = n.clone()
	marks := strings.Split(n.Annotations[annotationMarks], ",")
	for _, t := range traces {
		if !slices.Contains(marks, t.mark) {
			continue
		}
		switch removed, changed := t.removeFrom(&n); {
		case removed:
			told.Removed = append(told.Removed, t.String())
		case changed:
			told.Changed = append(told.Changed, t.String())
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
type trace struct {
	mark  string // its name in the annotation
	taint Taint
	label string
	value string // of the label
}

// traces are all things that are added to nodes, and how they are added: what is not just so is not ours.
var traces = []trace{
	{mark: markUnschedulable},
	{mark: markUnschedTaintKey, taint: Taint{Key: taintUnschedulable, Effect: effectNoSchedule}},
	{mark: markDrainingTaint, taint: Taint{Key: labelDraining, Value: "true", Effect: effectNoSchedule}},
	{mark: markOutOfService, taint: Taint{Key: taintOutOfService, Value: "nodeshutdown", Effect: effectNoExecute}},
	{mark: markDrainingLabel, label: labelDraining, value: drainingReason},
	{mark: markExcludeLB, label: labelExcludeLB},
}

func (t trace) String() string {
	name, value, effect := "label "+t.label, t.value, ""
	switch {
	case t.taint.Key != "":
		name, value, effect = "taint "+t.taint.Key, t.taint.Value, ":"+t.taint.Effect
	case t.label == "":
		return "unschedulable"
	}
	if value != "" {
		value = "=" + value
	}
	return name + value + effect
}

// removeFrom takes it away from the node if it is there as it was added; changed says that it is there in another form.
func (t trace) removeFrom(n *Node) (removed, changed bool) {
	switch {
	case t.mark == markUnschedTaintKey && n.cordonedBySomebodyElse():
		return false, false // it goes with the cordon: the node lifecycle controller would put it straight back
	case t.taint.Key != "":
		before := len(n.Taints)
		n.Taints = slices.DeleteFunc(n.Taints, func(have Taint) bool {
			have.TimeAdded = time.Time{} // who adds a taint may write when
			return have == t.taint
		})
		removed = len(n.Taints) < before
		return removed, !removed && n.hasTaint(t.taint.Key)
	case t.label != "":
		value, there := n.Labels[t.label]
		if there && value == t.value {
			delete(n.Labels, t.label)
			return true, false
		}
		return false, there
	}
	if n.cordonedBySomebodyElse() {
		return false, true // who has opened the node since, and cordoned it again
	}
	removed, n.Unschedulable = n.Unschedulable, false
	return removed, false
}

func (n Node) cordonedBySomebodyElse() bool {
	return n.Unschedulable && n.CordonedBy != "" && !strings.HasPrefix(n.CordonedBy, managerOurs)
}
