package identitymap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/change"
)

// The permissions of the function's group and ServiceAccount.
var (
	rbac          = readManifests(deploy.RBAC)
	karpenterRBAC = readManifests(deploy.KarpenterRBAC)
	allManifests  = readManifests(deploy.RBAC, deploy.KarpenterRBAC)
)

// manifests are objects to apply, in order: roles before their bindings. Each has the label of our own objects.
type manifests []*unstructured.Unstructured

func (m Mapping) manifests() manifests {
	if m.Karpenter {
		return allManifests
	}
	return rbac
}

// readManifests reads embedded YAML files.
func readManifests(files ...[]byte) (all manifests) {
	for _, file := range files {
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(file), len(file))
		for {
			o := &unstructured.Unstructured{}
			if err := decoder.Decode(o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				panic(fmt.Errorf("reading a manifest: %w", err))
			}
			set(o, managedBy, "metadata", "labels", labelManagedBy)
			all = append(all, o)
		}
	}
	slices.SortStableFunc(all, func(a, b object) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.GetKind()), slices.Index(order, b.GetKind())),
			strings.Compare(a.GetName(), b.GetName()))
	})
	return all
}

// order is the order of manifests: what others refer to comes first.
var order = []string{"Namespace", "ServiceAccount", "ResourceQuota", "Secret", "ConfigMap", "ClusterRole",
	"ClusterRoleBinding", "Role", "RoleBinding", "PodDisruptionBudget", "Deployment"}

// dryRun reads the existing objects, and lets the API server compute the result of applying the manifests. It cannot
// compute that of an object that refers to another one which does not exist yet.
func (m manifests) dryRun(ctx context.Context, cluster dynamic.Interface, s *state) error {
	for _, o := range m {
		r := refOf(o)
		if err := s.read(ctx, cluster, r); err != nil {
			return err
		}
		if roleRefChanged(s.objects[r], o) {
			continue
		}
		dry, err := applyManifest(ctx, cluster, o, metav1.DryRunAll)
		if err != nil && !m.creates(err) {
			return fmt.Errorf("applying %s, as a dry run: %w", r, err)
		}
		s.applied[r] = dry
	}
	return nil
}

// creates reports whether an error says that one of the manifests does not exist yet.
func (m manifests) creates(err error) bool {
	status := apierrors.APIStatus(nil)
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	missing := status.Status().Details
	return slices.ContainsFunc(m, func(o object) bool {
		resource, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		return resource.Resource == missing.Kind && o.GetName() == missing.Name
	})
}

func whyRBAC(o object) string {
	if o.GetKind() == "ServiceAccount" {
		return "the function's identity where IAM is not available"
	}
	return "the function's permissions in the cluster"
}

func (p *Plan) addManifests(m manifests, why func(object) string) {
	for _, o := range m {
		s := step{ref: refOf(o), manifest: o, Change: change.Change{Why: why(o)}}
		now, next := p.state.objects[s.ref], p.state.applied[s.ref]
		other := func(now object) bool { return roleRefChanged(now, o) }
		if now != nil && !isManaged(now) {
			s.Why += "; somebody else has created it: kops-spot takes it over, and deletes it with its own"
		}
		switch {
		case now == nil:
			p.addStep(change.Create, s)
		case other(now):
			p.addStep(change.Delete, step{ref: s.ref, mutate: deleteIf(other), Change: change.Change{
				Why: "it binds another role, and roleRef is immutable: it is deleted and recreated"}})
			p.addStep(change.Create, s)
		case next == nil:
			p.addStep(change.Update, s)
		default:
			verb, diff := change.Keep, objectDiff(now, next)
			if len(diff) > 0 {
				verb = change.Update
			}
			p.addStep(verb, s, diff...)
		}
	}
}

// roleRefChanged reports whether a binding binds another role, which the API server does not allow to change.
func roleRefChanged(now, next object) bool {
	return now != nil && next.Object["roleRef"] != nil && !reflect.DeepEqual(now.Object["roleRef"], next.Object["roleRef"])
}

// deleteIf deletes an object if a condition holds.
func deleteIf(is func(now object) bool) mutateFunc {
	return func(now object) (object, change.Plan, error) {
		if is(now) {
			return nil, nil, nil
		}
		return now, nil, nil
	}
}

// isManaged reports whether an object has our label.
func isManaged(o object) bool { return stringAt(o, "metadata", "labels", labelManagedBy) == managedBy }
