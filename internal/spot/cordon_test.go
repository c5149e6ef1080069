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
)

func TestCordonKeepsEarlierDeadline(t *testing.T) {
	deadline := after(120)
	n := spot.Cordon(spot.Node{Name: instance}, warning(spot.SpotTerminate), spot.Plan{Deadline: deadline})
	rebalance := warning(spot.Rebalance)
	rebalance.EventID, rebalance.Time = "e0", after(1)
	got := spot.Cordon(n, rebalance, spot.Plan{Deadline: after(900)}).Annotations
	if got["kops-spot.cast.ai/event"] != "e1" || got["kops-spot.cast.ai/deadline"] != deadline.Format(time.RFC3339) {
		t.Errorf("got %v, want event e1 and its deadline", got)
	}
	rebalance.Time = deadline.Add(time.Minute)
	got = spot.Cordon(n, rebalance, spot.Plan{Deadline: after(3600)}).Annotations
	if got["kops-spot.cast.ai/event"] != "e0" {
		t.Errorf("after the deadline: got %v, want event e0", got)
	}
}

func TestRestore(t *testing.T) {
	const (
		unschedulable      = "unschedulable"
		unschedulableTaint = "taint " + unschedulableKey + ":NoSchedule"
		drainingTaint      = "taint " + drainingKey + "=true:NoSchedule"
		outOfServiceTaint  = "taint " + outOfServiceKey + "=nodeshutdown:NoExecute"
		drainingLabel      = "label " + drainingKey + "=spot-interruption"
		excludeLBLabel     = "label " + excludeLBKey
	)
	all := []string{unschedulable, unschedulableTaint, drainingTaint, drainingLabel, excludeLBLabel}
	allBut := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(names, s) })
	}
	unchanged := func(*spot.Node) {}
	taint := func(key, value, effect string) func(*spot.Node) {
		return func(n *spot.Node) {
			n.Taints = append(n.Taints, spot.Taint{Key: key, Value: value, Effect: effect})
		}
	}
	for _, c := range []struct {
		name          string
		before, since func(*spot.Node) // changes by somebody else before and since the cordon
		removed       []string         // besides annotations
		changed       []string
		want          func(spot.Node) bool
	}{
		{name: "unchanged", before: unchanged, since: unchanged, removed: all, want: func(n spot.Node) bool {
			return !n.Unschedulable && len(n.Labels) == 1 && len(n.Taints) == 1 && n.Taints[0].Key == "dedicated"
		}},
		{name: "cordoned before", before: func(n *spot.Node) { n.Unschedulable = true }, since: unchanged,
			removed: allBut(unschedulable), want: func(n spot.Node) bool { return n.Unschedulable }},
		{name: "cordoned by kops-spot", before: unchanged, since: func(n *spot.Node) { n.CordonedBy = "kops-spot" },
			removed: all, want: func(n spot.Node) bool { return !n.Unschedulable }},
		{name: "cordoned again", before: unchanged, since: func(n *spot.Node) { n.CordonedBy = "kubectl-cordon" },
			removed: allBut(unschedulable, unschedulableTaint), changed: []string{"unschedulable, by kubectl-cordon"},
			want: func(n spot.Node) bool { return n.Unschedulable && hasTaint(n, unschedulableKey) }},
		{name: "tainted before", before: taint(drainingKey, "true", "NoSchedule"), since: unchanged,
			removed: allBut(drainingTaint), want: func(n spot.Node) bool { return hasTaint(n, drainingKey) }},
		{name: "labeled before", before: func(n *spot.Node) {
			n.Labels[drainingKey], n.Labels[excludeLBKey] = "spot-interruption", ""
		}, since: unchanged, removed: allBut(drainingLabel, excludeLBLabel), want: func(n spot.Node) bool {
			return n.Labels[drainingKey] == "spot-interruption" && hasLabel(n, excludeLBKey)
		}},
		{name: "label changed", before: unchanged, since: func(n *spot.Node) { n.Labels[drainingKey] = "rebalancing" },
			removed: allBut(drainingLabel), changed: []string{"label " + drainingKey + "=rebalancing"},
			want: func(n spot.Node) bool { return n.Labels[drainingKey] == "rebalancing" }},
		{name: "taint changed", before: unchanged, since: func(n *spot.Node) { n.Taints[2].Effect = "NoExecute" },
			removed: allBut(drainingTaint), changed: []string{"taint " + drainingKey + "=true:NoExecute"},
			want: func(n spot.Node) bool { return hasTaint(n, drainingKey) }},
		{name: "removed by somebody else", before: unchanged, since: func(n *spot.Node) {
			n.Unschedulable, n.Taints, n.Labels = false, nil, nil
		}, want: func(n spot.Node) bool { return len(n.Taints) == 0 && len(n.Labels) == 0 }},
		{name: "time added to the taint", before: unchanged, since: func(n *spot.Node) { n.Taints[2].TimeAdded = eventTime },
			removed: all, want: func(n spot.Node) bool { return !hasTaint(n, drainingKey) }},
		{name: "label and taint added", before: unchanged, since: func(n *spot.Node) {
			n.Labels["new"] = "1"
			taint("new", "", "NoExecute")(n)
		}, removed: all, want: func(n spot.Node) bool { return hasLabel(n, "new") && hasTaint(n, "new") }},
		{name: "out-of-service taint", before: unchanged, since: func(n *spot.Node) {
			taint(outOfServiceKey, "nodeshutdown", "NoExecute")(n)
			n.Annotations["kops-spot.cast.ai/applied"] += ",out-of-service-taint"
		}, removed: slices.Insert(slices.Clone(all), 3, outOfServiceTaint),
			want: func(n spot.Node) bool { return !hasTaint(n, outOfServiceKey) }},
		{name: "out-of-service taint by somebody else", before: unchanged,
			since: taint(outOfServiceKey, "nodeshutdown", "NoExecute"), removed: all,
			want: func(n spot.Node) bool { return hasTaint(n, outOfServiceKey) }},
		{name: "unknown annotation", before: unchanged,
			since:   func(n *spot.Node) { n.Annotations["kops-spot.cast.ai/later"] = "1" },
			removed: all, want: func(n spot.Node) bool { return true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cordonedNode(c.before, c.since)
			input := n
			input.Labels, input.Annotations, input.Taints =
				maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
			got, restored := spot.WhatRestoreRemoves(n), spot.Restore(n)
			removed := slices.DeleteFunc(slices.Clone(got.Removed), func(s string) bool {
				return strings.HasPrefix(s, "annotation ")
			})
			if !slices.Equal(removed, c.removed) || !slices.Equal(got.Changed, c.changed) {
				t.Errorf("got removed %q, changed %q\nwant %q, %q", removed, got.Changed, c.removed, c.changed)
			}
			if !got.Any() || got.Event != input.Annotations["kops-spot.cast.ai/event"] ||
				!got.Deadline.Equal(after(120)) {
				t.Errorf("got %+v, want the event and the deadline of %v", got, input.Annotations)
			}
			if !c.want(restored) {
				t.Errorf("got %+v", restored)
			}
			if want := map[string]string{"cast.ai/other": "x"}; !maps.Equal(restored.Annotations, want) {
				t.Errorf("got annotations %v, want %v", restored.Annotations, want)
			}
			if !reflect.DeepEqual(n, input) {
				t.Errorf("input changed: got %+v, want %+v", n, input)
			}
			if again := spot.WhatRestoreRemoves(restored); again.Any() || !sameNode(spot.Restore(restored), restored) {
				t.Errorf("restored twice: got %+v, want no change", again)
			}
		})
	}
}

// TestRestoreUnrecorded checks that Restore keeps what the annotation does not list.
func TestRestoreUnrecorded(t *testing.T) {
	n := cordonedNode(func(*spot.Node) {}, func(n *spot.Node) {
		maps.DeleteFunc(n.Annotations, func(key, _ string) bool { return strings.HasPrefix(key, spot.AnnotationPrefix) })
	})
	if got := spot.WhatRestoreRemoves(n); got.Any() || !sameNode(spot.Restore(n), n) {
		t.Errorf("got %+v, want no change", got)
	}
}

// cordonedNode returns a node that somebody else changed before and since the cordon.
func cordonedNode(before, since func(*spot.Node)) spot.Node {
	n := spot.Node{Name: "n", Labels: map[string]string{"team": "shop"},
		Annotations: map[string]string{"cast.ai/other": "x"},
		Taints:      []spot.Taint{{Key: "dedicated", Value: "gpu", Effect: "NoSchedule"}}}
	before(&n)
	n = spot.Cordon(n, warning(spot.SpotTerminate), spot.Plan{Deadline: after(120), Drain: true})
	since(&n)
	return n
}

// sameNode compares two nodes. Empty and nil maps and slices are equal.
func sameNode(a, b spot.Node) bool {
	same := maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Taints, b.Taints)
	a.Labels, a.Annotations, a.Taints, b.Labels, b.Annotations, b.Taints = nil, nil, nil, nil, nil, nil
	return same && reflect.DeepEqual(a, b)
}

func hasTaint(n spot.Node, key string) bool {
	return slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == key })
}

func hasLabel(n spot.Node, key string) bool {
	_, ok := n.Labels[key]
	return ok
}
