package sim_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/sim/simtest"
	"github.com/castai/kops-spot/internal/spot"
)

func TestClusterContract(t *testing.T) {
	simtest.ClusterContract(t, func(t *testing.T, check func(*testing.T, simtest.World)) {
		synctest.Test(t, func(t *testing.T) {
			c := sim.NewCluster()
			c.Forbid("create", "pods")
			c.Forbid("delete", "namespaces")
			check(t, &world{cluster: c})
		})
	})
}

// world arranges a simulated cluster for the contract.
type world struct {
	cluster *sim.Cluster
	made    int
}

func (w *world) Cluster() simtest.Cluster { return w.cluster }

func (w *world) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s-%d", prefix, w.made)
}

func (w *world) AddNode(*testing.T) spot.Node {
	name := w.name("i-0")
	return w.cluster.AddNode(spot.Node{Name: name, ProviderID: "aws:///eu-west-1a/" + name})
}

func (w *world) AddPod(_ *testing.T, p simtest.PodSpec) spot.Pod {
	pod := sim.Pod{
		Pod:  spot.Pod{Name: w.name("pod"), Grace: p.Grace, Volumes: p.Volume, EmptyDir: p.EmptyDir, Annotations: p.Annotations},
		Node: p.Node, Labels: map[string]string{"app": p.App}, Exit: p.Exit,
	}
	if p.Finalizer != "" {
		pod.Finalizers = []string{p.Finalizer}
	}
	return w.cluster.AddPod(pod)
}

func (w *world) AddBudget(_ *testing.T, app string, minAvailable int) (lift func()) {
	name := w.name("budget")
	w.cluster.AddBudget(sim.Budget{
		Name: name, Available: minAvailable,
		Match: func(labels map[string]string) bool { return labels["app"] == app },
	})
	return func() { w.cluster.RemoveBudget(name) }
}

func (w *world) SIGTERM(p spot.Pod) (simtest.SIGTERM, bool) {
	for _, e := range w.cluster.Endings() {
		if e.UID == p.UID {
			return simtest.SIGTERM{At: e.SIGTERM, Grace: e.Grace}, true
		}
	}
	return simtest.SIGTERM{}, false
}

func (w *world) Cordon(_ *testing.T, node, manager string) {
	w.cluster.WriteNode(node, func(n *spot.Node) { n.Unschedulable, n.CordonedBy = true, manager })
}

func (w *world) PowerOff(_ *testing.T, node string) { w.cluster.PowerOff(node) }

func (w *world) Release(_ *testing.T, p spot.Pod) {
	w.cluster.ChangePod(p.ID(), func(p *sim.Pod) { p.Finalizers = nil })
}

func (w *world) AddClaim(_ *testing.T, node string) string {
	name := w.name("claim")
	w.cluster.AddClaim(name)
	if node != "" {
		w.cluster.WriteNode(node, func(n *spot.Node) { n.Claim = name })
	}
	return name
}

func (w *world) HasClaim(_ *testing.T, name string) bool {
	return slices.Contains(w.cluster.Claims(), name)
}
