package spot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// TestRelease is the table of what is given free after the end of a machine, and what never is.
func TestRelease(t *testing.T) {
	marked := func(kind spot.Kind) func(*spot.Target) {
		return func(t *spot.Target) {
			n := spot.Cordon(*t.Node, spot.Interruption{EventID: "e1", Kind: kind}, spot.Plan{Deadline: eventTime})
			t.Node = &n
		}
	}
	state := func(s string) func(*spot.Target) { return func(t *spot.Target) { t.Instance.State = s } }
	onDemand := func(t *spot.Target) { t.Instance.Spot = false }
	forgotten := func(t *spot.Target) { t.Instance, t.InstanceErr = nil, fmt.Errorf("x: %w", spot.ErrNotFound) }
	for _, c := range []struct {
		name    string
		target  []func(*spot.Target)
		free    bool
		node    bool // deleted
		because string
	}{
		{name: "a Spot instance that was terminated", target: []func(*spot.Target){state("terminated")}, free: true, node: true},
		{name: "a warned one", target: []func(*spot.Target){onDemand, marked(spot.SpotTerminate), state("terminated")}, free: true, node: true},
		{name: "one by its node's label", target: []func(*spot.Target){forgotten, func(t *spot.Target) { t.Node.Labels = map[string]string{"node-role.kubernetes.io/spot-worker": "true"} }}, free: true, node: true},
		{name: "one that EC2 has forgotten and nobody calls Spot", target: []func(*spot.Target){forgotten}, because: "not a Spot instance"},
		{name: "an on-demand one whose node is called Spot", target: []func(*spot.Target){onDemand, state("terminated"), func(t *spot.Target) { t.Node.Labels = map[string]string{"node-role.kubernetes.io/spot-worker": "true"} }}, because: "not a Spot instance"},
		{name: "Karpenter's", target: []func(*spot.Target){forgotten, func(t *spot.Target) { t.Node.Labels = map[string]string{"karpenter.sh/capacity-type": "spot"} }}, free: true, node: true},
		{name: "one that EC2 has forgotten", target: []func(*spot.Target){marked(spot.SpotTerminate), forgotten}, free: true, node: true},
		{name: "an on-demand one", target: []func(*spot.Target){onDemand, state("terminated")}, because: "not a Spot instance"},
		{name: "stopped after a warning", target: []func(*spot.Target){marked(spot.SpotStop), state("stopped")}, free: true},
		{name: "stopped by an operator", target: []func(*spot.Target){onDemand, state("stopped")}, because: "without a warning"},
		{name: "a Spot instance stopped by an operator", target: []func(*spot.Target){state("stopped")}, because: "without a warning"},
		{name: "stopped after a mere recommendation", target: []func(*spot.Target){marked(spot.Rebalance), state("stopped")}, because: "does not stop instances"},
		{name: "hibernated", target: []func(*spot.Target){marked(spot.SpotHibernate), state("stopped"), func(t *spot.Target) { t.Instance.Hibernates = true }}, because: "hibernated"},
		{name: "hibernated and then terminated", target: []func(*spot.Target){marked(spot.SpotHibernate), state("terminated"), func(t *spot.Target) { t.Instance.Hibernates = true }}, free: true, node: true},
		{name: "stopping", target: []func(*spot.Target){marked(spot.SpotStop), state("stopping")}, because: "is stopping"},
		{name: "shutting down", target: []func(*spot.Target){marked(spot.SpotTerminate), state("shutting-down")}, because: "is shutting-down"},
		{name: "running", target: []func(*spot.Target){marked(spot.SpotTerminate)}, because: "is running"},
		{name: "one that EC2 cannot be asked about", target: []func(*spot.Target){marked(spot.SpotTerminate), func(t *spot.Target) { t.Instance, t.InstanceErr = nil, errors.New("timeout") }}, because: "unknown"},
		{name: "a control plane's", target: []func(*spot.Target){marked(spot.SpotTerminate), state("terminated"), func(t *spot.Target) { t.Instance.Tags["k8s.io/role/control-plane"] = "1" }}, because: "control-plane"},
		{name: "one without a node", target: []func(*spot.Target){state("terminated"), func(t *spot.Target) { t.Node = nil }}, because: "no node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := ours()
			for _, change := range c.target {
				change(&target)
			}
			got := spot.DefaultPolicy(cluster).Cleanup(target)
			if got.CleanUp != c.free || got.DeleteNode != c.node || !strings.Contains(got.Reason, c.because) {
				t.Errorf("got %+v, want free %v, node %v, %q", got, c.free, c.node, c.because)
			}
		})
	}
}

// TestARecommendationDoesNotBlurAWarning that came before it.
func TestARecommendationDoesNotBlurAWarning(t *testing.T) {
	deadline := eventTime.Add(2 * time.Minute)
	n := spot.Cordon(spot.Node{Name: instance}, warning(spot.SpotTerminate), spot.Plan{Deadline: deadline})
	mild := warning(spot.Rebalance)
	mild.EventID, mild.Time = "e0", eventTime.Add(time.Second)
	if got := spot.Cordon(n, mild, spot.Plan{Deadline: eventTime.Add(15 * time.Minute)}).Annotations; got["kops-spot.cast.ai/event"] != "e1" || got["kops-spot.cast.ai/deadline"] != deadline.Format(time.RFC3339) {
		t.Errorf("the marks became %v", got)
	}
	mild.Time = deadline.Add(time.Minute)
	if got := spot.Cordon(n, mild, spot.Plan{Deadline: eventTime.Add(time.Hour)}).Annotations; got["kops-spot.cast.ai/event"] != "e0" {
		t.Errorf("marks whose time has passed stayed: %v", got)
	}
}
