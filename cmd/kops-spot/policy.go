package main

import (
	"reflect"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/spot"
)

// policy reads the function's policy from the environment, and returns where it comes from.
func (c *console) policy(cluster string) (p spot.Policy, from string, err error) {
	if p, err = app.PolicyOf(c.environ); err != nil {
		return p, "", err
	}
	p.Cluster = cluster
	if reflect.DeepEqual(p, spot.DefaultPolicy(cluster)) {
		return p, "(the defaults)", nil
	}
	return p, "(from the KOPS_SPOT_ variables)", nil
}
