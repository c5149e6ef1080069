package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/spot"
)

// findNode finds a node by its name or by its instance's id. hint is said too if there is none.
func findNode(ctx context.Context, k cluster, name, hint string) (spot.Node, error) {
	n, err := k.NodeNamed(ctx, name)
	if errors.Is(err, spot.ErrNotFound) && onboard.InstanceID.MatchString(name) {
		n, err = k.NodeOf(ctx, name)
	}
	if errors.Is(err, spot.ErrNotFound) {
		return n, fmt.Errorf("%s has no node %s: kubectl get nodes lists them%s", k.name, name, hint)
	}
	return n, err
}

// machine is the EC2 instance behind a node.
type machine struct{ id, region string }

// machineOf reads which instance a node is.
func machineOf(n spot.Node) (machine, error) {
	id, region, ok := onboard.InstanceOf(n.ProviderID)
	switch {
	case n.ProviderID == "":
		return machine{}, fmt.Errorf("node %s does not say which EC2 instance it is: its spec.providerID is empty: "+
			"if it has just registered, try again in a minute; else look at the cloud controller's log", n.Name)
	case !ok:
		return machine{}, fmt.Errorf("node %s is no EC2 instance: its spec.providerID is %s: only EC2's warnings are handled", n.Name, n.ProviderID)
	}
	return machine{id, cmp.Or(n.Labels["topology.kubernetes.io/region"], region)}, nil
}
