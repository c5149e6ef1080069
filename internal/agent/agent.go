// Package agent connects a cluster to CAST AI: it installs CAST AI's agent, which reads the cluster, and removes it. It
// also fixes kube-router, which may keep CAST AI's nodes from joining.
package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	manifests "github.com/castai/kops-spot/deploy/agent"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
	"github.com/castai/kops-spot/internal/kube"
)

const (
	// Namespace is the agent's. Other parts of CAST AI may also be in it.
	Namespace = "castai-agent"

	name     = "castai-agent" // of the agent's objects
	tokenKey = "API_KEY"      // of the Secret
	image    = "castai-hub/library/agent"
)

// DefaultAPI is the URL of CAST AI's API.
const DefaultAPI = "https://api.cast.ai"

// Agent is what differs between the agents of clusters.
type Agent struct {
	Cluster string // name in kOps
	Region  string
	Store   string // kOps' state store: bucket[/prefix]
	API     string // URL
	Token   string // of the API; empty keeps the one in the cluster
}

type object = *unstructured.Unstructured

// objects returns the agent's objects. The Secret is among them only if there is a token.
func (a Agent) objects() []object {
	all := identitymap.ReadManifests(manifests.Manifests)
	// The agent finds out all of the KOPS_ values or none, and takes the first folder of a state store for the cluster.
	env := []any{entry("API_URL", a.API), entry("KOPS_CSP", "aws"), entry("KOPS_REGION", a.Region),
		entry("KOPS_CLUSTER_NAME", a.Cluster), entry("KOPS_STATE_STORE", a.Store)}
	for _, o := range all {
		switch {
		case o.GetKind() == "Secret":
			o.Object["data"] = map[string]any{tokenKey: base64.StdEncoding.EncodeToString([]byte(a.Token))}
		case o.GetKind() == "Deployment" && o.GetName() == name:
			containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			for _, c := range containers {
				c := c.(map[string]any)
				c["env"] = append(env[:len(env):len(env)], c["env"].([]any)...)
			}
			_ = unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
		}
	}
	return slices.DeleteFunc(all, func(o object) bool { return o.GetKind() == "Secret" && a.Token == "" })
}

func entry(name, value string) map[string]any { return map[string]any{"name": name, "value": value} }

// Export renders the objects for a repository, without the Secret.
func (a Agent) Export() ([]byte, error) {
	a.Token = ""
	out := bytes.NewBufferString("# The API token is not in this file. Create its Secret after the namespace:\n" +
		"# kubectl --namespace=" + Namespace + " create secret generic " + name + " --from-file=" + tokenKey + "=<file>\n")
	for i, o := range a.objects() {
		if i > 0 {
			out.WriteString("---\n")
		}
		encoder := yaml.NewEncoder(out)
		encoder.SetIndent(2)
		if err := encoder.Encode(o.Object); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// NeedsToken reports whether the cluster has neither a token nor an agent of somebody else.
func NeedsToken(ctx context.Context, cluster dynamic.Interface) (bool, error) {
	deployment, err := find(ctx, cluster)
	if err != nil || deployment != nil && !identitymap.IsManaged(deployment) {
		return false, err
	}
	secret, err := get(ctx, cluster, "", "secrets", Namespace, name)
	if secret == nil || err != nil {
		return err == nil, err
	}
	token, _, _ := unstructured.NestedString(secret.Object, "data", tokenKey)
	return token == "", nil
}

// Plan returns what to change so that the agent runs. It leaves an agent of somebody else as it is.
func (a Agent) Plan(ctx context.Context, cluster dynamic.Interface) (identitymap.Plan, error) {
	deployment, err := find(ctx, cluster)
	if err != nil {
		return identitymap.Plan{}, err
	}
	if deployment != nil && !identitymap.IsManaged(deployment) {
		why := "CAST AI's agent is installed already: nothing is changed"
		if manager := identitymap.ManagerOf(deployment); manager != "" {
			why += "; " + manager + " applies it"
		}
		return identitymap.PlanObjects(ctx, cluster, nil, nil, change.Change{Verb: change.Leave, Kind: "Deployment",
			Name: fullName(deployment), Why: why})
	}
	var rows []change.Change
	if a.Token == "" {
		rows = append(rows, change.Change{Verb: change.Keep, Kind: "Secret", Name: Namespace + "/" + name,
			Why: "it has an API token"})
	}
	return identitymap.PlanObjects(ctx, cluster, a.objects(), why, rows...)
}

// why says what an object is for.
func why(o object) string {
	switch o.GetKind() {
	case "Secret":
		return "the agent's API token"
	case "ClusterRole", "ClusterRoleBinding":
		return "the agent reads the cluster, without Secrets"
	case "Role", "RoleBinding":
		if o.GetNamespace() == Namespace {
			return "the agent writes only in its namespace"
		}
		return "the agent reads the ConfigMaps of kOps' addons"
	case "ResourceQuota":
		return "some clusters require it for critical pods; it limits nothing"
	case "Deployment":
		if o.GetName() != name {
			return "sets the agent's memory by the size of the cluster"
		}
		return "reads the cluster and reports to CAST AI"
	}
	return "of CAST AI's agent"
}

// PlanRemoval returns how to delete the agent's objects. The namespace stays if others have put anything into it.
func PlanRemoval(ctx context.Context, cluster dynamic.Interface, login *rest.Config) (identitymap.Plan, error) {
	objects := Agent{Token: "-"}.objects()
	others, err := foreign(ctx, cluster, login, objects)
	if err != nil || len(others) == 0 {
		return plan(ctx, cluster, objects, err)
	}
	objects = slices.DeleteFunc(objects, func(o object) bool { return o.GetKind() == "Namespace" })
	return plan(ctx, cluster, objects, nil, change.Change{Verb: change.Leave, Kind: "Namespace", Name: Namespace,
		Why: "others have put objects into it: " + strings.Join(others, ", ")})
}

func plan(ctx context.Context, cluster dynamic.Interface, objects []object, err error, rows ...change.Change,
) (identitymap.Plan, error) {
	if err != nil {
		return identitymap.Plan{}, err
	}
	return identitymap.PlanObjectsRemoval(ctx, cluster, objects, rows...)
}

// kinds returns the namespaced kinds of a cluster, each in the preferred version of its group if that has it.
func kinds(ctx context.Context, login *rest.Config) (lists []metav1.APIResourceList, err error) {
	client, err := rest.UnversionedRESTClientFor(dynamic.ConfigFor(login))
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", login.Host, err)
	}
	get := func(path string, into any) error {
		body, err := client.Get().AbsPath(path).Timeout(30 * time.Second).Do(ctx).Raw()
		if err == nil {
			err = json.Unmarshal(body, into)
		}
		if err != nil {
			return fmt.Errorf("listing the kinds of the cluster: %w: delete broken APIServices, or run this again",
				kube.Advise(err))
		}
		return nil
	}
	var groups metav1.APIGroupList
	if err := get("/apis", &groups); err != nil {
		return nil, err
	}
	versions := []string{"v1"}
	for _, g := range groups.Groups {
		if g.Name != "metrics.k8s.io" && g.Name != "events.k8s.io" { // these show the objects of others
			versions = append(versions, g.PreferredVersion.GroupVersion)
			for _, v := range g.Versions {
				versions = append(versions, v.GroupVersion)
			}
		}
	}
	seen := map[schema.GroupResource]bool{}
	lists = make([]metav1.APIResourceList, len(versions))
	for i, version := range versions {
		path := "/apis/" + version
		if version == "v1" {
			path = "/api/v1"
		}
		if err := get(path, &lists[i]); err != nil {
			return nil, err
		}
		group, _, _ := strings.Cut(version, "/")
		lists[i].APIResources = slices.DeleteFunc(lists[i].APIResources, func(r metav1.APIResource) bool {
			kind := schema.GroupResource{Group: group, Resource: r.Name}
			known := seen[kind]
			seen[kind] = true
			return known || !r.Namespaced || !slices.Contains(r.Verbs, "list")
		})
	}
	return lists, nil
}

// foreign returns the objects in the agent's namespace that neither we nor Kubernetes nor the agent have created.
func foreign(ctx context.Context, cluster dynamic.Interface, login *rest.Config, ours []object,
) (names []string, err error) {
	namespace, err := get(ctx, cluster, "", "namespaces", "", Namespace)
	if err != nil || namespace == nil {
		return nil, err
	}
	lists, err := kinds(ctx, login)
	if err != nil {
		return nil, err
	}
	// Kubernetes and the agent create these.
	automatic := []string{"ConfigMap kube-root-ca.crt", "ServiceAccount default", "ConfigMap castai-agent-metadata"}
	isOurs := func(o object) bool { // not only by name: somebody else may have replaced it
		return identitymap.IsManaged(o) && slices.ContainsFunc(ours, func(our object) bool {
			return our.GetKind() == o.GetKind() && our.GetName() == o.GetName()
		})
	}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, fmt.Errorf("listing the kinds of the cluster: %w", err)
		}
		for _, kind := range list.APIResources {
			if slices.Contains([]string{"events", "leases", "endpoints", "endpointslices"}, kind.Name) {
				continue
			}
			found, err := cluster.Resource(group.WithResource(kind.Name)).Namespace(Namespace).List(ctx, metav1.ListOptions{})
			switch {
			case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
				continue
			case err != nil:
				return nil, fmt.Errorf("listing %s in %s: %w", kind.Name, Namespace, kube.Advise(err))
			}
			for _, o := range found.Items {
				secretOf := o.GetAnnotations()["kubernetes.io/service-account.name"]
				if what := kind.Kind + " " + o.GetName(); len(o.GetOwnerReferences()) == 0 && secretOf != "default" &&
					secretOf != name && !slices.Contains(automatic, what) && !slices.Contains(names, what) && !isOurs(&o) {
					names = append(names, what)
				}
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// find returns the agent's Deployment, whoever has created it; nil if there is none.
func find(ctx context.Context, cluster dynamic.Interface) (object, error) {
	kind := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	all, err := cluster.Resource(kind).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing deployments: %w", kube.Advise(err))
	}
	for i, o := range all.Items {
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		for _, c := range containers {
			c, _ := c.(map[string]any)
			from, _ := c["image"].(string)
			if strings.Contains(from, image) || o.GetNamespace() == Namespace && o.GetName() == name {
				return &all.Items[i], nil
			}
		}
	}
	return nil, nil
}

func fullName(o object) string { return o.GetNamespace() + "/" + o.GetName() }

// get returns an object; nil if it does not exist.
func get(ctx context.Context, cluster dynamic.Interface, group, resource, namespace, name string) (object, error) {
	kind := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	o, err := cluster.Resource(kind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s %s: %w", resource, name, kube.Advise(err))
	}
	return o, nil
}
