package onboard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// rbacResources are the kinds that manifests have, by what the API calls them.
var rbacResources = map[string]string{
	"ServiceAccount":     "serviceaccounts",
	"ClusterRole":        "clusterroles",
	"ClusterRoleBinding": "clusterrolebindings",
	"Role":               "roles",
	"RoleBinding":        "rolebindings",
}

// manifestObjects are what the manifests in deploy/ say about who may do what.
func manifestObjects() (map[kubeadmin.Ref]kubeadmin.Object, error) {
	all := map[kubeadmin.Ref]kubeadmin.Object{}
	docs := yaml.NewDecoder(io.MultiReader(bytes.NewReader(deploy.RBAC), strings.NewReader("\n---\n"), bytes.NewReader(deploy.KarpenterRBAC)))
	for {
		var o map[string]any
		switch err := docs.Decode(&o); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("reading the manifests in deploy/: %w", err)
		}
		ref := refOf(o)
		if ref.Resource == "" {
			return nil, fmt.Errorf("reading the manifests in deploy/: a %s says nothing about who may do what", ref.Kind)
		}
		all[ref] = o
	}
}

func refOf(o kubeadmin.Object) kubeadmin.Ref {
	return kubeadmin.Ref{APIVersion: o.Text("apiVersion"), Kind: o.Text("kind"), Resource: rbacResources[o.Text("kind")],
		Namespace: o.Text("metadata", "namespace"), Name: o.Text("metadata", "name")}
}

// isKarpenters reports whether an object is of rbac-karpenter.yaml.
func isKarpenters(r kubeadmin.Ref) bool { return strings.HasSuffix(r.Name, "-karpenter") }

// sortedRefs are the objects in the order in which they are made: what is bound before what binds it.
func sortedRefs(objects map[kubeadmin.Ref]kubeadmin.Object) []kubeadmin.Ref {
	refs := make([]kubeadmin.Ref, 0, len(objects))
	for ref := range objects {
		refs = append(refs, ref)
	}
	rank := func(r kubeadmin.Ref) int {
		switch {
		case r.Kind == "ServiceAccount":
			return 0
		case strings.HasSuffix(r.Kind, "Binding"):
			return 2
		}
		return 1
	}
	slices.SortFunc(refs, func(a, b kubeadmin.Ref) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.String(), b.String())
	})
	return refs
}

// rebound reports whether a binding is to another role, which the API does not let anybody change: it has to be made anew.
func rebound(now, next kubeadmin.Object) bool {
	was, is := now["roleRef"], next["roleRef"]
	return was != nil && is != nil && !sameObject(asMap(was), asMap(is))
}
