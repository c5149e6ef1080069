package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfigs may use it, as with kubectl
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/internal/spot"
)

// cluster is a connection to the kOps cluster that the user selected.
type cluster struct {
	*kube.Cluster
	name  string
	store string // kOps' state store; empty if unknown

	config  *rest.Config
	context kube.Context // of the kubeconfig
}

// connect connects to the cluster and verifies that it is the selected one. No command connects in another way.
func (c *console) connect(ctx context.Context, p kubeFlags) (cluster, error) {
	kubeconfig := kube.Kubeconfig{File: p.kubeconfig, Files: c.kubeconfigs(), Context: p.context}
	config, in, err := kubeconfig.LogIn("kops-spot/" + version)
	if err != nil {
		return cluster{}, err
	}
	k, err := kube.New(config)
	if err != nil {
		return cluster{}, err
	}
	own, err := k.KopsName(ctx)
	if err != nil {
		return cluster{}, err
	}
	name, err := clusterName(cmp.Or(p.cluster, c.getenv("KOPS_SPOT_CLUSTER")), own.Name, in)
	return cluster{k, name, own.Store, config, in}, err
}

// kubeconfigs returns the kubeconfig files that kubectl would read.
func (c *console) kubeconfigs() []string {
	files := slices.DeleteFunc(filepath.SplitList(c.getenv("KUBECONFIG")), func(f string) bool { return f == "" })
	if home := c.getenv("HOME"); len(files) == 0 && home != "" {
		files = append(files, filepath.Join(home, ".kube", "config"))
	}
	return files
}

// clusterName returns the cluster's name: the given one, else the cluster's own, else the kubeconfig's, as kOps writes it.
// It is an error if the given name is not the cluster's own.
func clusterName(given, own string, in kube.Context) (string, error) {
	switch {
	case given != "" && !kube.IsKopsName(given):
		return "", fmt.Errorf("%q is not the name of a kOps cluster: use a DNS name, such as prod.example.com", given)
	case given != "" && own != "" && given != own:
		return "", fmt.Errorf("wrong cluster: expected %s, but the kubeconfig context %s connects to %s: "+
			"choose another context with --context, or set --cluster %s", given, in.Name, own, own)
	case given == "" && own == "" && !kube.IsKopsName(in.Cluster):
		return "", errors.New("the name of the kOps cluster is unknown: neither the cluster nor the kubeconfig contains it: " +
			"set it with --cluster")
	}
	return cmp.Or(given, own, in.Cluster), nil
}

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

// instance is the EC2 instance of a node.
type instance struct{ id, region string }

func instanceOf(n spot.Node) (instance, error) {
	id, region, ok := onboard.InstanceOf(n.ProviderID)
	switch {
	case n.ProviderID == "":
		return instance{}, fmt.Errorf("node %s has an empty spec.providerID: if it has just registered, try again in a minute; "+
			"otherwise, check the log of the cloud controller", n.Name)
	case !ok:
		return instance{}, fmt.Errorf("node %s is not an EC2 instance: its spec.providerID is %s", n.Name, n.ProviderID)
	}
	return instance{id, cmp.Or(n.Labels["topology.kubernetes.io/region"], region)}, nil
}
