package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/spot"
)

// findNode finds a node by its name or its instance ID. hint is appended to the error if there is none.
func findNode(ctx context.Context, k cluster, name, hint string) (spot.Node, error) {
	n, err := k.NodeNamed(ctx, name)
	if errors.Is(err, spot.ErrNotFound) && onboard.InstanceID.MatchString(name) {
		n, err = k.NodeOf(ctx, name)
	}
	if errors.Is(err, spot.ErrNotFound) {
		return n, fmt.Errorf("node %s not found in %s: kubectl get nodes lists the nodes%s", name, k.name, hint)
	}
	return n, err
}

// machine is the EC2 instance behind a node.
type machine struct{ id, region string }

// machineOf returns the instance of a node.
func machineOf(n spot.Node) (machine, error) {
	id, region, ok := onboard.InstanceOf(n.ProviderID)
	switch {
	case n.ProviderID == "":
		return machine{}, fmt.Errorf("node %s has an empty spec.providerID: if it has just registered, try again in a minute; "+
			"otherwise check the log of the cloud controller", n.Name)
	case !ok:
		return machine{}, fmt.Errorf("node %s is not an EC2 instance: its spec.providerID is %s", n.Name, n.ProviderID)
	}
	return machine{id, cmp.Or(n.Labels["topology.kubernetes.io/region"], region)}, nil
}
