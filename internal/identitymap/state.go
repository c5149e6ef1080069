package identitymap

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/kube"
)

const kubeSystem = "kube-system"

var (
	authenticatorRef = inKubeSystem("apps", "DaemonSet", "aws-iam-authenticator")
	awsAuthRef       = configMapRef("aws-auth")
	tokenRef         = inKubeSystem("", "Secret", "kops-spot-token")
	crdKind          = ref{GroupVersionKind: schema.GroupVersionKind{
		Group: "iamauthenticator.k8s.aws", Version: "v1alpha1", Kind: "IAMIdentityMapping"}}
)

func inKubeSystem(group, kind, name string) ref {
	return ref{schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}, kubeSystem, name}
}

func configMapRef(name string) ref { return inKubeSystem("", "ConfigMap", name) }

// configRef names the ConfigMap with the authenticator's file.
func configRef(daemonSet object) ref {
	for _, v := range podSpec(daemonSet).Volumes {
		if v.ConfigMap != nil && v.ConfigMap.Name != "" {
			return configMapRef(v.ConfigMap.Name)
		}
	}
	return configMapRef(authenticatorRef.name)
}

// state is what a plan is based on.
type state struct {
	objects  map[ref]object // nil if one does not exist
	applied  map[ref]object // result of applying our manifests, by a dry run
	mappings []object       // of kind IAMIdentityMapping
	hasCRD   bool           // the cluster has that kind
}

func inspect(ctx context.Context, cluster dynamic.Interface) (state, error) {
	s := state{objects: map[ref]object{}, applied: map[ref]object{}}
	refs := []ref{authenticatorRef, awsAuthRef, tokenRef, configMapRef(authenticatorRef.name)}
	for _, o := range allManifests {
		refs = append(refs, refOf(o))
	}
	for _, r := range refs {
		if err := s.read(ctx, cluster, r); err != nil {
			return s, err
		}
	}
	if err := s.read(ctx, cluster, configRef(s.objects[authenticatorRef])); err != nil {
		return s, err
	}
	list, err := crdKind.in(cluster).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return s, nil
	case err != nil:
		return s, fmt.Errorf("listing %s objects: %w", crdKind.Kind, kube.Advise(err))
	}
	s.hasCRD = true
	for i := range list.Items {
		s.mappings = append(s.mappings, &list.Items[i])
	}
	return s, nil
}

func (s *state) read(ctx context.Context, cluster dynamic.Interface, r ref) error {
	if _, known := s.objects[r]; known {
		return nil
	}
	o, err := r.get(ctx, cluster)
	if err != nil {
		return err
	}
	if r == tokenRef && o != nil {
		unset(o, "data") // so that nothing can print it by mistake
	}
	s.objects[r] = o
	return nil
}

// file is the backend MountedFile of the cluster.
func (s state) file(cluster string) configMapBackend {
	return fileBackend(configRef(s.objects[authenticatorRef]), cluster)
}

// crdsFor returns the IAMIdentityMappings of an ARN.
func (s state) crdsFor(arn string) (all []object) {
	for _, o := range s.mappings {
		if strings.EqualFold(stringAt(o, "spec", "arn"), arn) {
			all = append(all, o)
		}
	}
	return all
}

func (s state) objectOf(r ref) object {
	for _, o := range s.mappings {
		if refOf(o) == r {
			return o
		}
	}
	return s.objects[r]
}
