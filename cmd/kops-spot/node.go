package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

var (
	instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

	// zoneRegion is the region that begins a zone's name, that of a local or wavelength zone too: us-west-2-lax-1a.
	zoneRegion = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-[0-9]+`)
)

// findNode finds a node by its name or by its instance's id. hint is said too if there is none.
func findNode(ctx context.Context, k cluster, name, hint string) (spot.Node, error) {
	n, err := k.NodeNamed(ctx, name)
	if errors.Is(err, spot.ErrNotFound) && instanceID.MatchString(name) {
		n, err = k.NodeOf(ctx, name)
	}
	if errors.Is(err, spot.ErrNotFound) {
		return n, fmt.Errorf("%s has no node %s: kubectl get nodes lists them%s", k.name, name, hint)
	}
	return n, err
}

// machine is the EC2 instance behind a node.
type machine struct{ id, region string }

// machineOf reads which instance a node is: kubelet, kOps or the cloud controller write aws:///<zone>/<instance id> into
// spec.providerID.
func machineOf(n spot.Node) (machine, error) {
	parts := strings.Split(n.ProviderID, "/")
	switch id := parts[len(parts)-1]; {
	case n.ProviderID == "":
		return machine{}, fmt.Errorf("node %s does not say which EC2 instance it is: its spec.providerID is empty: "+
			"if it has just registered, try again in a minute; else look at the cloud controller's log", n.Name)
	case !strings.HasPrefix(n.ProviderID, "aws://") || !instanceID.MatchString(id) || len(parts) < 2:
		return machine{}, fmt.Errorf("node %s is no EC2 instance: its spec.providerID is %s: only EC2's warnings are handled", n.Name, n.ProviderID)
	default:
		region := n.Labels["topology.kubernetes.io/region"]
		if region == "" {
			region = zoneRegion.FindString(parts[len(parts)-2])
		}
		return machine{id, region}, nil
	}
}
