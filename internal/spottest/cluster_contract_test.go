package spottest_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func TestClusterContract(t *testing.T) {
	spottest.ClusterContract(t, func(t *testing.T, check func(*testing.T, spottest.World)) {
		synctest.Test(t, func(t *testing.T) {
			c := spottest.NewCluster()
			c.Forbid("create", "pods")
			c.Forbid("delete", "namespaces")
			check(t, &world{cluster: c})
		})
	})
}

// world sets up a Cluster for the contract.
type world struct {
	cluster *spottest.Cluster
	made    int
}

func (w *world) Cluster() spottest.ClusterUnderTest { return w.cluster }

func (w *world) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s-%d", prefix, w.made)
}

func (w *world) AddNode(*testing.T) spot.Node {
	name := w.name("i-0")
	return w.cluster.AddNode(spot.Node{Name: name, ProviderID: "aws:///eu-west-1a/" + name})
}

func (w *world) AddPod(_ *testing.T, p spottest.PodSpec) spot.Pod {
	pod := spottest.Pod{
		Pod: spot.Pod{Name: w.name("pod"), GracePeriod: p.Grace, Volumes: p.Volume, EmptyDir: p.EmptyDir,
			Annotations: p.Annotations},
		Node: p.Node, Labels: map[string]string{"app": p.App}, Exit: p.Exit,
	}
	if p.Finalizer != "" {
		pod.Finalizers = []string{p.Finalizer}
	}
	return w.cluster.AddPod(pod)
}

func (w *world) AddBudget(_ *testing.T, app string, minAvailable int) (lift func()) {
	name := w.name("budget")
	w.cluster.AddBudget(spottest.Budget{
		Name: name, Available: minAvailable,
		Match: func(labels map[string]string) bool { return labels["app"] == app },
	})
	return func() { w.cluster.RemoveBudget(name) }
}

func (w *world) SIGTERM(p spot.Pod) (spottest.SIGTERM, bool) {
	for _, e := range w.cluster.Terminations() {
		if e.UID == p.UID {
			return spottest.SIGTERM{At: e.SIGTERM, Grace: e.Grace}, true
		}
	}
	return spottest.SIGTERM{}, false
}

func (w *world) Cordon(_ *testing.T, node, manager string) {
	w.cluster.WriteNode(node, func(n *spot.Node) { n.Unschedulable, n.CordonedBy = true, manager })
}

func (w *world) PowerOff(_ *testing.T, node string) { w.cluster.PowerOff(node) }

func (w *world) Release(_ *testing.T, p spot.Pod) {
	w.cluster.ChangePod(p.ID(), func(p *spottest.Pod) { p.Finalizers = nil })
}

func (w *world) AddClaim(_ *testing.T, node string) string {
	name := w.name("claim")
	w.cluster.AddClaim(name)
	if node != "" {
		w.cluster.WriteNode(node, func(n *spot.Node) { n.NodeClaim = name })
	}
	return name
}

func (w *world) HasClaim(_ *testing.T, name string) bool {
	return slices.Contains(w.cluster.Claims(), name)
}
