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

	"github.com/castai/kops-spot/internal/change"
)

// Manifests are objects that a cluster is to have as they say, in the order in which they are made: what others need
// before them. Each has the label by which we know again what is ours.
type Manifests []*unstructured.Unstructured

// ReadManifests reads files of YAML.
func ReadManifests(files ...[]byte) (all Manifests, err error) {
	for _, file := range files {
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(file), len(file))
		for {
			o := &unstructured.Unstructured{}
			if err := decoder.Decode(o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("reading a manifest: %w", err)
			}
			set(o, managedBy, "metadata", "labels", labelManagedBy)
			all = append(all, o)
		}
	}
	rank := func(o object) int {
		switch kind := o.GetKind(); {
		case kind == "Namespace":
			return 0
		case kind == "ServiceAccount":
			return 1
		case strings.HasSuffix(kind, "Binding"):
			return 3
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b object) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(refOf(a).String(), refOf(b).String()))
	})
	return all, nil
}

// mustRead is for the manifests that the program carries.
func mustRead(files ...[]byte) Manifests {
	all, err := ReadManifests(files...)
	if err != nil {
		panic(err)
	}
	return all
}

// Plan says what applying the manifests would change.
func (m Manifests) Plan(ctx context.Context, cluster dynamic.Interface) (p Plan, err error) {
	p.state = state{objects: map[ref]object{}, applied: map[ref]object{}}
	if err = m.dryRun(ctx, cluster, &p.state); err == nil {
		p.addManifests(m, nil)
	}
	return p, err
}

// dryRun reads what there is, and asks the API server what applying the manifests would make of it. It cannot say that
// of an object that needs another one of them which is not there yet.
func (m Manifests) dryRun(ctx context.Context, cluster dynamic.Interface, s *state) error {
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
			return fmt.Errorf("asking the API server what it would make of %s: %w", r, err)
		}
		s.applied[r] = dry
	}
	return nil
}

// makes reports whether an error is that something is not there which is among the manifests.
func (m Manifests) creates(err error) bool {
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

// addManifests puts the rows of the manifests into a plan. why is by kind; that of "" is of all others.
func (p *Plan) addManifests(m Manifests, why map[string]string) {
	for _, o := range m {
		s := step{ref: refOf(o), manifest: o, Change: change.Change{Why: cmp.Or(why[o.GetKind()], why[""])}}
		now, next := p.state.objects[s.ref], p.state.applied[s.ref]
		other := func(now object) bool { return roleRefChanged(now, o) }
		if o.GetKind() == "Namespace" {
			s.then = func(ctx context.Context, cluster dynamic.Interface) error {
				return m.validate(ctx, cluster, o.GetName())
			}
		}
		switch {
		case now == nil:
			p.addStep(change.Create, s)
		case other(now):
			p.addStep(change.Delete, step{ref: s.ref, mutate: deleteIf(other), Change: change.Change{
				Why: "it is bound to another role, which cannot be changed: it is deleted and created again"}})
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

// validate has the API server look at what is to be made in a namespace, which it could not while there was none.
func (m Manifests) validate(ctx context.Context, cluster dynamic.Interface, namespace string) error {
	for _, o := range m {
		if o.GetNamespace() != namespace {
			continue
		}
		if _, err := applyManifest(ctx, cluster, o, metav1.DryRunAll); err != nil && !m.creates(err) {
			return fmt.Errorf("the namespace is there, and the API server refuses what is to be made in it, %s: %w",
				refOf(o), err)
		}
	}
	return nil
}

// roleRefChanged reports whether a binding is to another role, which the API does not let anybody change.
func roleRefChanged(now, next object) bool {
	return now != nil && next.Object["roleRef"] != nil && !reflect.DeepEqual(now.Object["roleRef"], next.Object["roleRef"])
}

// deleteIf deletes an object of which something is true.
func deleteIf(is func(now object) bool) mutateFunc {
	return func(now object) (object, change.Plan, error) {
		if is(now) {
			return nil, nil, nil
		}
		return now, nil, nil
	}
}

// isManaged reports whether an object says that it is ours.
func isManaged(o object) bool { return stringAt(o, "metadata", "labels", labelManagedBy) == managedBy }
