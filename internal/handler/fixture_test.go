package handler_test

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	cluster  = "prod.example.com"
	instance = "i-0123456789abcdef0"
	group    = "nodes-us-east-1a." + cluster
)

var eventTime = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func warning(kind spot.Kind) spot.Interruption {
	return spot.Interruption{EventID: "e1", Kind: kind, Instance: instance, Region: "us-east-1", Time: eventTime}
}

// ours is an instance of the cluster in its group, and its node: everything as usual.
func ours() spot.Target {
	tags := map[string]string{spot.TagCluster: cluster}
	return spot.Target{
		Node:       &spot.Node{Name: instance, ProviderID: "aws:///us-east-1a/" + instance},
		Instance:   &spot.Instance{ID: instance, State: "running", Spot: true, Tags: tags},
		Membership: &spot.Membership{Group: group, LifecycleState: "InService", GroupTags: tags},
	}
}

func hasTaint(n spot.Node, key string) bool {
	return slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == key })
}

// same reports whether two nodes are alike, none and empty being alike.
func same(a, b spot.Node) bool {
	alike := maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Taints, b.Taints)
	a.Labels, a.Annotations, a.Taints, b.Labels, b.Annotations, b.Taints = nil, nil, nil, nil, nil, nil
	return alike && reflect.DeepEqual(a, b)
}
