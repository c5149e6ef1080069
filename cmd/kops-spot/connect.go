package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // a way to log in that kubeconfigs may name, as for kubectl
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/kube"
)

// place says which cluster a command is for. Every command that works on one has these flags.
type place struct{ kubeconfig, context, cluster string }

func (p *place) flags(f *pflag.FlagSet) {
	f.StringVar(&p.kubeconfig, "kubeconfig", "", "the `file` to log in with; else KUBECONFIG, or .kube/config in the home directory")
	f.StringVar(&p.context, "context", "", "the kubeconfig's `context`; else its current one")
	f.StringVar(&p.cluster, "cluster", "", "the `name` of the kOps cluster; else KOPS_SPOT_CLUSTER, or what the cluster itself says")
}

// cluster is a kOps cluster that we are logged in to, and that is the one that was ref.
type cluster struct {
	*kube.Cluster
	name  string
	store string // kOps' state store, where the cluster says it

	login *rest.Config // as the kubeconfig says
	in    kube.Context // the kubeconfig's
}

// connect logs in to the cluster and makes sure that it is the one that is ref. It is the only way to a cluster.
func (c *console) connect(ctx context.Context, p place) (cluster, error) {
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
	name, err := rightCluster(cmp.Or(p.cluster, c.getenv("KOPS_SPOT_CLUSTER")), own.Name, in)
	return cluster{k, name, own.Store, login, in}, err
}

// kubeconfigs are the files in which kubectl would look.
func (c *console) kubeconfigs() []string {
	files := slices.DeleteFunc(filepath.SplitList(c.getenv("KUBECONFIG")), func(f string) bool { return f == "" })
	if home := c.getenv("HOME"); len(files) == 0 && home != "" {
		files = append(files, filepath.Join(home, ".kube", "config"))
	}
	return files
}

// rightCluster is the name of the cluster that is ref: the one that was said, else what the cluster itself says, else
// what the kubeconfig calls it, as kOps writes it there. A cluster that says another name than was said is the wrong one.
func rightCluster(said, own string, in kube.Context) (string, error) {
	switch {
	case said != "" && !kube.IsKopsName(said):
		return "", fmt.Errorf("%q is no kOps cluster's name: it is a DNS name, such as prod.example.com", said)
	case said != "" && own != "" && said != own:
		return "", fmt.Errorf("this is the wrong cluster: %s was said, and the kubeconfig's context %s leads to %s: "+
			"choose the other with --context, or say --cluster %s", said, in.Name, own, own)
	case said == "" && own == "" && !kube.IsKopsName(in.Cluster):
		return "", errors.New("which kOps cluster this is cannot be found out: neither it nor the kubeconfig says: say it with --cluster")
	case said == "" && own == "":
		return in.Cluster, nil
	}
	return cmp.Or(said, own), nil
}
