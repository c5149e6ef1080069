package sim_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/sim/simtest"
	"github.com/castai/kops-spot/internal/spot"
)

func TestClusterContract(t *testing.T) {
	simtest.ClusterContract(t, func(t *testing.T, check func(*testing.T, simtest.World)) {
		synctest.Test(t, func(t *testing.T) {
			check(t, &world{cluster: sim.NewCluster()})
		})
	})
}

// world arranges a simulated cluster for the contract.
type world struct {
	cluster *sim.Cluster
	made    int
}

func (w *world) Cluster() spot.Cluster { return w.cluster }

func (w *world) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s-%d", prefix, w.made)
}

func (w *world) AddNode(*testing.T) spot.Node {
	name := w.name("i-0")
	return w.cluster.AddNode(spot.Node{Name: name, ProviderID: "aws:///eu-west-1a/" + name})
}

func (w *world) AddPod(_ *testing.T, p simtest.PodSpec) spot.Pod {
	return w.cluster.AddPod(sim.Pod{
		Pod:  spot.Pod{Name: w.name("pod"), Grace: p.Grace},
		Node: p.Node, Labels: map[string]string{"app": p.App}, Exit: p.Exit,
	})
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
