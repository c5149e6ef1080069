package identitymap

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
)

const (
	// fieldManager is what the API server records as the owner of the fields that we write.
	fieldManager = "kops-spot"

	// requestTimeout allows a write to wait for admission webhooks, which have up to 10 s each.
	requestTimeout = 30 * time.Second
)

// NewClient returns a client for objects of any kind.
func NewClient(login *rest.Config) (dynamic.Interface, error) {
	cfg := rest.CopyConfig(login)
	cfg.Timeout, cfg.WarningHandler = requestTimeout, rest.NoWarnings{}
	cfg.QPS = -1 // a run makes a few dozen requests in all
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", cfg.Host, err)
	}
	return client, nil
}

// object is a Kubernetes object; nil if it does not exist.
type object = *unstructured.Unstructured

// ref names an object.
type ref struct {
	schema.GroupVersionKind
	namespace, name string
}

func refOf(o object) ref { return ref{o.GroupVersionKind(), o.GetNamespace(), o.GetName()} }

// String returns the object's kind and name: ConfigMap kube-system/aws-auth.
func (r ref) String() string { return r.Kind + " " + r.fullName() }

func (r ref) fullName() string {
	if r.namespace == "" {
		return r.name
	}
	return r.namespace + "/" + r.name
}

// leave is the row that says why an object is not changed.
func (r ref) leave(why string) change.Change {
	return change.Change{Verb: change.Leave, Kind: r.Kind, Name: r.fullName(), Why: why}
}

// empty returns an object with that name and nothing else.
func (r ref) empty() object {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(r.GroupVersionKind)
	o.SetNamespace(r.namespace)
	o.SetName(r.name)
	return o
}

// in returns the client for such objects.
func (r ref) in(cluster dynamic.Interface) dynamic.ResourceInterface {
	resource, _ := meta.UnsafeGuessKindToResource(r.GroupVersionKind)
	return cluster.Resource(resource).Namespace(r.namespace)
}

// get reads an object; nil if it does not exist.
func (r ref) get(ctx context.Context, cluster dynamic.Interface) (object, error) {
	o, err := r.in(cluster).Get(ctx, r.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", r, kube.Advise(err))
	}
	return o, nil
}

// applyManifest applies a manifest server-side.
func applyManifest(ctx context.Context, cluster dynamic.Interface, manifest object, dry ...string) (object, error) {
	o, err := refOf(manifest).in(cluster).Apply(ctx, manifest.GetName(), manifest,
		metav1.ApplyOptions{FieldManager: fieldManager, Force: true, DryRun: dry})
	return o, kube.Advise(err)
}

// change creates, updates or deletes an object. It retries if somebody else changes the object meanwhile.
func (r ref) change(ctx context.Context, cluster dynamic.Interface, mutate mutateFunc) error {
	raced := func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
	}
	backoff := wait.Backoff{Steps: 10, Duration: 10 * time.Millisecond, Factor: 1.5, Jitter: 1}
	return retry.OnError(backoff, raced, func() error {
		now, err := r.get(ctx, cluster)
		if err != nil {
			return err
		}
		next, _, err := mutate(now)
		switch {
		case err != nil, reflect.DeepEqual(now, next):
		case now == nil:
			_, err = r.in(cluster).Create(ctx, next, metav1.CreateOptions{FieldManager: fieldManager})
		case next == nil:
			uid, version, background := now.GetUID(), now.GetResourceVersion(), metav1.DeletePropagationBackground
			err = r.in(cluster).Delete(ctx, r.name, metav1.DeleteOptions{PropagationPolicy: &background,
				Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
		default:
			_, err = r.in(cluster).Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
		}
		return kube.Advise(err)
	})
}

// stringAt returns the string at a path; empty if there is none.
func stringAt(o object, path ...string) string {
	if o == nil {
		return ""
	}
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}

func stringMapAt(o object, path ...string) map[string]string {
	if o == nil {
		return nil
	}
	m, _, _ := unstructured.NestedStringMap(o.Object, path...)
	return m
}

// set sets the value at a path. In objects from the API server, all on the way there are maps.
func set(o object, value any, path ...string) {
	_ = unstructured.SetNestedField(o.Object, value, path...)
}

// unset removes the value at a path, and the maps on the way that become empty.
func unset(o object, path ...string) {
	for ; len(path) > 0; path = path[:len(path)-1] {
		unstructured.RemoveNestedField(o.Object, path...)
		if above, _, _ := unstructured.NestedMap(o.Object, path[:len(path)-1]...); len(above) > 0 {
			return
		}
	}
}

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
	for _, v := range asDaemonSet(daemonSet).Spec.Template.Spec.Volumes {
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
	bindings []object       // of others, for a removal
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

// readBindings reads the role bindings of others, as far as that is allowed.
func (s *state) readBindings(ctx context.Context, cluster dynamic.Interface) error {
	for _, kind := range []string{"ClusterRoleBinding", "RoleBinding"} {
		r := ref{GroupVersionKind: schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: kind}}
		list, err := r.in(cluster).List(ctx, metav1.ListOptions{})
		switch {
		case apierrors.IsForbidden(err):
			continue
		case err != nil:
			return fmt.Errorf("listing %s objects: %w", kind, kube.Advise(err))
		}
		for i := range list.Items {
			if o := &list.Items[i]; !isManaged(o) {
				s.bindings = append(s.bindings, o)
			}
		}
	}
	return nil
}

// boundBy names the bindings of others that grant a ClusterRole.
func (s state) boundBy(r ref) (names []string) {
	for _, o := range s.bindings {
		if r.Kind == "ClusterRole" && stringAt(o, "roleRef", "kind") == r.Kind && stringAt(o, "roleRef", "name") == r.name {
			names = append(names, refOf(o).String())
		}
	}
	return names
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
