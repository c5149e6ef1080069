package spot_test

import (
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

func TestInstanceInfo(t *testing.T) {
	node := &spot.Node{Labels: map[string]string{"node.kubernetes.io/instance-type": "m5.node",
		"topology.kubernetes.io/zone": "zone-of-node"}}
	instance := func(tags ...string) *spot.Instance {
		i := &spot.Instance{Type: "m5.large", Zone: "eu-west-1a", Spot: true, Tags: map[string]string{}}
		for _, key := range tags {
			i.Tags[key] = key
		}
		return i
	}
	for name, c := range map[string]struct {
		target spot.Target
		want   spot.InstanceInfo
	}{
		"nothing is known": {},
		"only the node":    {spot.Target{Node: node}, spot.InstanceInfo{Type: "m5.node", Zone: "zone-of-node"}},
		"EC2 takes precedence over the node": {spot.Target{Node: node, Instance: instance()},
			spot.InstanceInfo{Type: "m5.large", Zone: "eu-west-1a", Lifecycle: "spot"}},
		"on demand": {spot.Target{Instance: &spot.Instance{}}, spot.InstanceInfo{Lifecycle: "on-demand"}},
		"a member": {spot.Target{Membership: &spot.Membership{Group: "nodes"}, Instance: instance(spot.TagGroup)},
			spot.InstanceInfo{Group: "nodes", Type: "m5.large", Zone: "eu-west-1a", Lifecycle: "spot"}},
		"a member, by its tag": {spot.Target{Instance: instance(spot.TagGroup, spot.TagDetached)},
			spot.InstanceInfo{Group: spot.TagGroup, Type: "m5.large", Zone: "eu-west-1a", Lifecycle: "spot"}},
		"detached": {spot.Target{Instance: instance(spot.TagDetached)},
			spot.InstanceInfo{Group: spot.TagDetached, Type: "m5.large", Zone: "eu-west-1a", Lifecycle: "spot"}},
	} {
		if got := c.target.InstanceInfo(); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}
