package spot_test

import (
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// warned is a node that was cordoned for a warning, its instance, and the first moment at which that is overdue.
func warned() (spot.Node, spot.Instance, time.Time) {
	deadline := eventTime.Add(2 * time.Minute)
	n := spot.Cordon(node(instance), warning(spot.SpotTerminate), spot.Plan{Deadline: deadline})
	return n, spot.Instance{ID: instance, State: "running"}, deadline.Add(15 * time.Minute)
}

func TestOverdue(t *testing.T) {
	node, machine, now := warned()
	ids := func(nodes []spot.Node, instances map[string]spot.Instance, now time.Time) (found []string) {
		for _, o := range spot.Overdue(nodes, instances, now) {
			found = append(found, o.Instance)
		}
		return found
	}
	running := map[string]spot.Instance{instance: machine}
	if got := spot.OverdueCandidates([]spot.Node{node}, now); !slices.Equal(got, []string{instance}) {
		t.Errorf("to be asked for are %v", got)
	}
	if got := spot.Overdue([]spot.Node{node}, running, now); !slices.Equal(got, []spot.OverdueInstance{
		{Node: instance, Instance: instance, Since: eventTime.Add(2 * time.Minute).UTC()}}) {
		t.Errorf("overdue are %+v", got)
	}
	for name, n := range map[string]func(*spot.Node){
		"drained by CAST AI": func(n *spot.Node) { n.Annotations = map[string]string{} },
		"no deadline":        func(n *spot.Node) { delete(n.Annotations, "kops-spot.cast.ai/deadline") },
		"no instance":        func(n *spot.Node) { n.ProviderID = "" },
		"of another cloud":   func(n *spot.Node) { n.ProviderID = "gce://project/zone/name" },
	} {
		node, machine, now := warned()
		n(&node)
		if got := spot.OverdueCandidates([]spot.Node{node}, now); len(got) != 0 {
			t.Errorf("%s: asked for %v", name, got)
		}
		if got := ids([]spot.Node{node}, map[string]spot.Instance{instance: machine, "": {State: "running"}}, now); len(got) != 0 {
			t.Errorf("%s: overdue are %v", name, got)
		}
	}
	if got := ids([]spot.Node{node}, running, now.Add(-time.Second)); len(got) != 0 {
		t.Errorf("overdue too early: %v", got)
	}
	for _, state := range []string{"pending", "stopping", "stopped", "shutting-down", "terminated"} {
		i := machine
		i.State = state
		if got := ids([]spot.Node{node}, map[string]spot.Instance{instance: i}, now); len(got) != 0 {
			t.Errorf("an instance that is %s is overdue", state)
		}
	}
	if got := ids([]spot.Node{node}, nil, now); len(got) != 0 {
		t.Errorf("one that EC2 does not know is overdue")
	}
	a, b := node, node
	a.Name, b.Name = "a", "b"
	if got := spot.Overdue([]spot.Node{b, a}, running, now); len(got) != 2 || got[0].Node != "a" {
		t.Errorf("they are told in another order: %+v", got)
	}
}

func node(id string) spot.Node { return spot.Node{Name: id, ProviderID: "aws:///us-east-1a/" + id} }
