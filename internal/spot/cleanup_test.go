package spot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func TestCleanup(t *testing.T) {
	type changes []func(*spot.Target)
	cordonedFor := func(kind spot.Kind) func(*spot.Target) {
		return func(t *spot.Target) {
			n := spot.Cordon(*t.Node, spot.Interruption{EventID: "e1", Kind: kind}, spot.Plan{Deadline: eventTime})
			t.Node = &n
		}
	}
	state := func(s string) func(*spot.Target) { return func(t *spot.Target) { t.Instance.State = s } }
	onDemand := func(t *spot.Target) { t.Instance.Spot = false }
	hibernates := func(t *spot.Target) { t.Instance.Hibernates = true }
	notFound := func(t *spot.Target) { t.Instance, t.InstanceErr = nil, fmt.Errorf("x: %w", spot.ErrNotFound) }
	unknown := func(t *spot.Target) { t.Instance, t.InstanceErr = nil, errors.New("timeout") }
	controlPlane := func(t *spot.Target) { t.Instance.Tags["k8s.io/role/control-plane"] = "1" }
	noNode := func(t *spot.Target) { t.Node = nil }
	spotWorker := labeled("node-role.kubernetes.io/spot-worker", "true")
	for _, c := range []struct {
		name       string
		target     changes
		cleanUp    bool
		deleteNode bool
		reason     string
	}{
		{name: "terminated", target: changes{state("terminated")}, cleanUp: true, deleteNode: true},
		{name: "terminated on-demand instance, cordoned",
			target: changes{onDemand, cordonedFor(spot.SpotTerminate), state("terminated")}, cleanUp: true, deleteNode: true},
		{name: "not found, Spot by kOps label", target: changes{notFound, spotWorker}, cleanUp: true, deleteNode: true},
		{name: "not found, no Spot label", target: changes{notFound}, reason: "not a Spot instance"},
		{name: "terminated on-demand instance, Spot label", target: changes{onDemand, state("terminated"), spotWorker},
			reason: "not a Spot instance"},
		{name: "not found, Spot by Karpenter label",
			target: changes{notFound, labeled("karpenter.sh/capacity-type", "spot")}, cleanUp: true, deleteNode: true},
		{name: "not found, cordoned", target: changes{cordonedFor(spot.SpotTerminate), notFound},
			cleanUp: true, deleteNode: true},
		{name: "terminated on-demand instance", target: changes{onDemand, state("terminated")},
			reason: "not a Spot instance"},
		{name: "stopped after a warning", target: changes{cordonedFor(spot.SpotStop), state("stopped")}, cleanUp: true},
		{name: "on-demand instance stopped by the operator", target: changes{onDemand, state("stopped")},
			reason: "without a warning"},
		{name: "stopped by the operator", target: changes{state("stopped")}, reason: "without a warning"},
		{name: "stopped after a rebalance recommendation", target: changes{cordonedFor(spot.Rebalance), state("stopped")},
			reason: "does not stop instances"},
		{name: "hibernated", target: changes{cordonedFor(spot.SpotHibernate), state("stopped"), hibernates},
			reason: "hibernated"},
		{name: "terminated after hibernation",
			target:  changes{cordonedFor(spot.SpotHibernate), state("terminated"), hibernates},
			cleanUp: true, deleteNode: true},
		{name: "stopping", target: changes{cordonedFor(spot.SpotStop), state("stopping")}, reason: "is stopping"},
		{name: "shutting down", target: changes{cordonedFor(spot.SpotTerminate), state("shutting-down")},
			reason: "is shutting-down"},
		{name: "running", target: changes{cordonedFor(spot.SpotTerminate)}, reason: "is running"},
		{name: "unknown", target: changes{cordonedFor(spot.SpotTerminate), unknown}, reason: "unknown"},
		{name: "control plane", target: changes{cordonedFor(spot.SpotTerminate), state("terminated"), controlPlane},
			reason: "control-plane"},
		{name: "no node", target: changes{state("terminated"), noNode}, cleanUp: true},
		{name: "no node, on-demand instance", target: changes{state("terminated"), noNode, onDemand}, reason: "no node"},
		{name: "no node, stopped", target: changes{state("stopped"), noNode}, reason: "no node"},
		{name: "no node, not found", target: changes{notFound, noNode}, reason: "no node"},
		{name: "no node, other cluster", target: changes{state("terminated"), noNode,
			func(t *spot.Target) { t.Instance.Tags[spot.TagCluster] = "other" }}, reason: "no node"},
		{name: "no node, control plane", target: changes{state("terminated"), noNode, controlPlane}, reason: "control-plane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := newTarget()
			for _, change := range c.target {
				change(&target)
			}
			got := spot.DefaultPolicy(cluster).Cleanup(target)
			if got.CleanUp != c.cleanUp || got.DeleteNode != c.deleteNode || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %+v, want clean up %v, delete node %v, %q", got, c.cleanUp, c.deleteNode, c.reason)
			}
		})
	}
}

func TestOverdue(t *testing.T) {
	deadline := after(120)
	overdueAt := deadline.Add(15 * time.Minute)
	node := spot.Cordon(newNode(), warning(spot.SpotTerminate), spot.Plan{Deadline: deadline})
	running := map[string]spot.Instance{instance: {ID: instance, State: "running"}}
	if got := spot.OverdueCandidates([]spot.Node{node}, overdueAt); !slices.Equal(got, []string{instance}) {
		t.Errorf("got candidates %v, want %s", got, instance)
	}
	want := []spot.OverdueInstance{{Node: instance, Instance: instance, Since: deadline}}
	if got := spot.Overdue([]spot.Node{node}, running, overdueAt); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, change := range map[string]func(*spot.Node){
		"drained by CAST AI": func(n *spot.Node) { n.Annotations = nil },
		"no deadline":        func(n *spot.Node) { delete(n.Annotations, "kops-spot.cast.ai/deadline") },
		"no provider ID":     func(n *spot.Node) { n.ProviderID = "" },
		"other cloud":        func(n *spot.Node) { n.ProviderID = "gce://project/zone/name" },
		"rehearsal":          func(n *spot.Node) { n.Annotations["kops-spot.cast.ai/rehearsal"] = "true" },
		"recommendation":     func(n *spot.Node) { n.Annotations["kops-spot.cast.ai/kind"] = string(spot.Rebalance) },
		"lifecycle action":   func(n *spot.Node) { n.Annotations["kops-spot.cast.ai/kind"] = string(spot.LifecycleTerminate) },
	} {
		n := spot.Cordon(newNode(), warning(spot.SpotTerminate), spot.Plan{Deadline: deadline})
		change(&n)
		if got := spot.OverdueCandidates([]spot.Node{n}, overdueAt); len(got) != 0 {
			t.Errorf("%s: got candidates %v, want none", name, got)
		}
		instances := map[string]spot.Instance{instance: running[instance], "": {State: "running"}}
		if got := spot.Overdue([]spot.Node{n}, instances, overdueAt); len(got) != 0 {
			t.Errorf("%s: got %v, want none", name, got)
		}
	}
	if got := spot.Overdue([]spot.Node{node}, running, overdueAt.Add(-time.Second)); len(got) != 0 {
		t.Errorf("one second early: got %v, want none", got)
	}
	for _, state := range []string{"pending", "stopping", "stopped", "shutting-down", "terminated"} {
		instances := map[string]spot.Instance{instance: {ID: instance, State: state}}
		if got := spot.Overdue([]spot.Node{node}, instances, overdueAt); len(got) != 0 {
			t.Errorf("%s: got %v, want none", state, got)
		}
	}
	if got := spot.Overdue([]spot.Node{node}, nil, overdueAt); len(got) != 0 {
		t.Errorf("not found: got %v, want none", got)
	}
	a, b := node, node
	a.Name, b.Name = "a", "b"
	if got := spot.Overdue([]spot.Node{b, a}, running, overdueAt); len(got) != 2 || got[0].Node != "a" {
		t.Errorf("got %+v, want two, sorted by node", got)
	}
}
