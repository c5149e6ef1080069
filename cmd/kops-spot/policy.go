package main

import (
	"reflect"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/spot"
)

// policy is what the function is told to decide by, as far as its settings are set here too, and whence that is known.
// It is read in this one place.
func (c *console) policy(cluster string) (p spot.Policy, from string, err error) {
	if p, err = app.PolicyOf(c.environ); err != nil {
		return p, "", err
	}
	p.Cluster = cluster
	if reflect.DeepEqual(p, spot.DefaultPolicy(cluster)) {
		return p, "(the defaults)", nil
	}
	return p, "(as the KOPS_SPOT_ variables here say)", nil
}
