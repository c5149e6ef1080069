package handler_test

import (
	"maps"
	"reflect"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	cluster  = "prod.example.com"
	instance = "i-0123456789abcdef0"
	group    = "nodes-us-east-1a." + cluster
)

func hasTaint(n spot.Node, key string) bool {
	return slices.ContainsFunc(n.Taints, func(t spot.Taint) bool { return t.Key == key })
}

// same reports whether two nodes are alike, none and empty being alike.
func same(a, b spot.Node) bool {
	alike := maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) && slices.Equal(a.Taints, b.Taints)
	a.Labels, a.Annotations, a.Taints, b.Labels, b.Annotations, b.Taints = nil, nil, nil, nil, nil, nil
	return alike && reflect.DeepEqual(a, b)
}
