package spot_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	drainingKey      = "autoscaling.cast.ai/draining"
	unschedulableKey = "node.kubernetes.io/unschedulable"
	excludeLBKey     = "node.kubernetes.io/exclude-from-external-load-balancers"
	outOfServiceKey  = "node.kubernetes.io/out-of-service"
	marksKey         = "kops-spot.cast.ai/applied"
)

// cordoned is a node with a life of its own that was cordoned, and that somebody has changed since.
func cordoned(before, since func(*spot.Node)) spot.Node {
	n := spot.Node{Name: "n", Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{"cast.ai/other": "x"},
		Taints: []spot.Taint{{Key: "dedicated", Value: "gpu", Effect: "NoSchedule"}}}
	before(&n)
	n = spot.Cordon(n, warning(spot.SpotTerminate), spot.Plan{Deadline: eventTime.Add(2 * time.Minute), Drain: true})
	since(&n)
	return n
}

func nothing(*spot.Node) {}

func TestRestore(t *testing.T) {
	ours := []string{"unschedulable", "taint " + unschedulableKey + ":NoSchedule", "taint " + drainingKey + "=true:NoSchedule",
		"label " + drainingKey + "=spot-interruption", "label " + excludeLBKey}
	without := func(all []string, names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(names, s) })
	}
	for _, c := range []struct {
		name          string
		before, since func(*spot.Node)
		removed       []string // beside the annotations
		changed       []string
		stays         func(spot.Node) bool
	}{
		{name: "all that was added goes", before: nothing, since: nothing, removed: ours,
			stays: func(n spot.Node) bool {
				return !n.Unschedulable && len(n.Labels) == 1 && len(n.Taints) == 1 && n.Taints[0].Key == "dedicated"
			}},
		{name: "a cordon that was there before stays", before: func(n *spot.Node) { n.Unschedulable = true }, since: nothing,
			removed: without(ours, "unschedulable"), stays: func(n spot.Node) bool { return n.Unschedulable }},
		{name: "the cordon that the API server knows as ours goes", before: nothing, since: func(n *spot.Node) { n.CordonedBy = "kops-spot" },
			removed: ours, stays: func(n spot.Node) bool { return !n.Unschedulable }},
		{name: "a cordon of somebody else's since stays", before: nothing, since: func(n *spot.Node) { n.CordonedBy = "kubectl-cordon" },
			removed: without(ours, ours[0], ours[1]), changed: []string{"unschedulable, by kubectl-cordon"}, stays: func(n spot.Node) bool { return n.Unschedulable && hasTaint(n, unschedulableKey) }},
		{name: "a taint that was there before stays", before: func(n *spot.Node) {
			n.Taints = append(n.Taints, spot.Taint{Key: drainingKey, Value: "true", Effect: "NoSchedule"})
		}, since: nothing, removed: without(ours, ours[2]), stays: func(n spot.Node) bool { return hasTaint(n, drainingKey) }},
		{name: "labels that were there before stay", before: func(n *spot.Node) {
			n.Labels[drainingKey], n.Labels[excludeLBKey] = "spot-interruption", ""
		}, since: nothing, removed: without(ours, ours[3], ours[4]), stays: func(n spot.Node) bool {
			return n.Labels[drainingKey] == "spot-interruption" && hasLabel(n, excludeLBKey)
		}},
		{name: "a label that somebody has changed since stays", before: nothing, since: func(n *spot.Node) { n.Labels[drainingKey] = "rebalancing" },
			removed: without(ours, ours[3]), changed: []string{"label " + drainingKey + "=rebalancing"}, stays: func(n spot.Node) bool { return n.Labels[drainingKey] == "rebalancing" }},
		{name: "a taint that somebody has changed since stays", before: nothing, since: func(n *spot.Node) { n.Taints[2].Effect = "NoExecute" },
			removed: without(ours, ours[2]), changed: []string{"taint " + drainingKey + "=true:NoExecute"}, stays: func(n spot.Node) bool { return hasTaint(n, drainingKey) }},
		{name: "what somebody has taken away since is not missed", before: nothing, since: func(n *spot.Node) {
			n.Unschedulable, n.Taints, n.Labels = false, nil, nil
		}, stays: func(n spot.Node) bool { return len(n.Taints) == 0 && len(n.Labels) == 0 }},
		{name: "when a taint was added does not matter", before: nothing, since: func(n *spot.Node) { n.Taints[2].TimeAdded = eventTime },
			removed: ours, stays: func(n spot.Node) bool { return !hasTaint(n, drainingKey) }},
		{name: "what was added since stays", before: nothing, since: func(n *spot.Node) {
			n.Labels["new"] = "1"
			n.Taints = append(n.Taints, spot.Taint{Key: "new", Effect: "NoExecute"})
		}, removed: ours, stays: func(n spot.Node) bool { return hasLabel(n, "new") && hasTaint(n, "new") }},
		{name: "the out-of-service taint goes", before: nothing, since: func(n *spot.Node) {
			n.Taints = append(n.Taints, spot.Taint{Key: outOfServiceKey, Value: "nodeshutdown", Effect: "NoExecute"})
			n.Annotations[marksKey] += ",out-of-service-taint"
		}, removed: slices.Insert(slices.Clone(ours), 3, "taint "+outOfServiceKey+"=nodeshutdown:NoExecute"),
			stays: func(n spot.Node) bool { return !hasTaint(n, outOfServiceKey) }},
		{name: "an out-of-service taint of somebody else's stays", before: nothing, since: func(n *spot.Node) {
			n.Taints = append(n.Taints, spot.Taint{Key: outOfServiceKey, Value: "nodeshutdown", Effect: "NoExecute"})
		}, removed: ours, stays: func(n spot.Node) bool { return hasTaint(n, outOfServiceKey) }},
		{name: "every annotation of ours goes, known or not", before: nothing, since: func(n *spot.Node) { n.Annotations["kops-spot.cast.ai/later"] = "1" },
			removed: ours, stays: func(n spot.Node) bool { return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cordoned(c.before, c.since)
			was := n
			was.Labels, was.Annotations, was.Taints = maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
			told, after := spot.WhatRestoreRemoves(n), spot.Restore(n)
			removed := slices.DeleteFunc(slices.Clone(told.Removed), func(s string) bool { return strings.HasPrefix(s, "annotation ") })
			if !slices.Equal(removed, c.removed) || !slices.Equal(told.Changed, c.changed) {
				t.Errorf("removed %q, changed %q\nwant    %q, %q", removed, told.Changed, c.removed, c.changed)
			}
			if !told.Any() || told.Event != was.Annotations["kops-spot.cast.ai/event"] || !told.Deadline.Equal(eventTime.Add(2*time.Minute)) {
				t.Errorf("told %+v", told)
			}
			if !c.stays(after) {
				t.Errorf("restored to %+v", after)
			}
			if want := map[string]string{"cast.ai/other": "x"}; !maps.Equal(after.Annotations, want) {
				t.Errorf("annotations %v, want %v", after.Annotations, want)
			}
			if !reflect.DeepEqual(n, was) {
				t.Errorf("the node that was handed in has changed: %+v", n)
			}
			if again := spot.WhatRestoreRemoves(after); again.Any() || !same(spot.Restore(after), after) {
				t.Errorf("a second time: %+v", again)
			}
		})
	}
}

// TestRestoreLeavesUnmarkedNodesAlone: what looks like ours and is not marked so is somebody else's.
func TestRestoreLeavesUnmarkedNodesAlone(t *testing.T) {
	n := cordoned(nothing, func(n *spot.Node) {
		maps.DeleteFunc(n.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, "kops-spot.cast.ai/") })
	})
	if told := spot.WhatRestoreRemoves(n); told.Any() || !same(spot.Restore(n), n) {
		t.Errorf("%+v", told)
	}
}

func TestPropertyRestoreUndoesCordon(t *testing.T) {
	r := random(5)
	for range tries {
		n := r.node()
		after := n
		for range 1 + r.IntN(3) { // a second event marks the node again
			after = spot.Cordon(after, warning(spot.SpotTerminate), spot.Plan{Deadline: eventTime, Drain: true})
		}
		if after = spot.Restore(after); !same(after, n) {
			t.Fatalf("%+v was cordoned and restored to %+v", n, after)
		}
	}
}

// node is a random one that carries some of what a cordon adds, in the same or in another form.
func (r madeUp) node() spot.Node {
	n := spot.Node{Name: "n", Unschedulable: r.flag(3), Labels: map[string]string{}, Annotations: map[string]string{}}
	values := []string{"", "true", "spot-interruption", "x"}
	for _, key := range []string{drainingKey, excludeLBKey, "team"} {
		if r.flag(2) {
			n.Labels[key] = values[r.IntN(len(values))]
		}
	}
	for _, key := range []string{"kops-spot.cast.air", "cast.ai/deadline"} {
		if r.flag(2) {
			n.Annotations[key] = values[r.IntN(len(values))]
		}
	}
	effects := []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}
	for _, key := range []string{unschedulableKey, drainingKey, outOfServiceKey, "dedicated"} {
		for _, effect := range effects {
			if r.flag(5) {
				n.Taints = append(n.Taints, spot.Taint{Key: key, Value: values[r.IntN(len(values))], Effect: effect})
			}
		}
	}
	r.Shuffle(len(n.Taints), func(i, j int) { n.Taints[i], n.Taints[j] = n.Taints[j], n.Taints[i] })
	return n
}

// same reports whether two nodes are alike, none and empty being alike.
func same(a, b spot.Node) bool {
	alike := maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Taints, b.Taints)
	a.Labels, a.Annotations, a.Taints, b.Labels, b.Annotations, b.Taints = nil, nil, nil, nil, nil, nil
	return alike && reflect.DeepEqual(a, b)
}

func hasTaint(n spot.Node, key string) bool {
	return slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == key })
}

func hasLabel(n spot.Node, key string) bool {
	_, ok := n.Labels[key]
	return ok
}
