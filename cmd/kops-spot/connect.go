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
)

// cluster is a kOps cluster that we are logged in to, and that is the one that was ref.
type cluster struct {
	*kube.Cluster
	name  string
	store string // kOps' state store; empty if unknown

	login *rest.Config // from the kubeconfig
	in    kube.Context
}

// connect logs in to the cluster and makes sure that it is the one that is ref. It is the only way to a cluster.
func (c *console) connect(ctx context.Context, p kubeFlags) (cluster, error) {
	kubeconfig := kube.Kubeconfig{File: p.kubeconfig, Files: c.kubeconfigs(), Context: p.context}
	login, in, err := kubeconfig.LogIn("kops-spot/" + version)
	if err != nil {
		return cluster{}, err
	}
	k, err := kube.New(login)
	if err != nil {
		return cluster{}, err
	}
	own, err := k.KopsName(ctx)
	if err != nil {
		return cluster{}, err
	}
	name, err := clusterName(cmp.Or(p.cluster, c.getenv("KOPS_SPOT_CLUSTER")), own.Name, in)
	return cluster{k, name, own.Store, login, in}, err
}

// kubeconfigs returns the kubeconfig files that kubectl would read.
func (c *console) kubeconfigs() []string {
	files := slices.DeleteFunc(filepath.SplitList(c.getenv("KUBECONFIG")), func(f string) bool { return f == "" })
	if home := c.getenv("HOME"); len(files) == 0 && home != "" {
		files = append(files, filepath.Join(home, ".kube", "config"))
	}
	return files
}

// rightCluster is the name of the cluster that is ref: the one that was said, else what the cluster itself says, else
// what the kubeconfig calls it, as kOps writes it there. A cluster that says another name than was said is the wrong one.
func clusterName(given, own string, in kube.Context) (string, error) {
	switch {
	case given != "" && !kube.IsKopsName(given):
		return "", fmt.Errorf("%q is not the name of a kOps cluster: use a DNS name, such as prod.example.com", given)
	case given != "" && own != "" && given != own:
		return "", fmt.Errorf("wrong cluster: expected %s, but the kubeconfig context %s connects to %s: "+
			"choose another context with --context, or set --cluster %s", given, in.Name, own, own)
	case given == "" && own == "" && !kube.IsKopsName(in.Cluster):
		return "", errors.New("the name of the kOps cluster is unknown: neither the cluster nor the kubeconfig contains it: set it with --cluster")
	case given == "" && own == "":
		return in.Cluster, nil
	}
	return cmp.Or(given, own), nil
}
