package operator

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/aws/aws-sdk-go-v2/credentials"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/kube"
	fakests "github.com/castai/kops-spot/test/fakes/sts"
)

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// loginFunc returns a client configuration for the cluster, each time with a new token.
type loginFunc func() (*rest.Config, error)

// logIn authenticates as an AWS identity, as the function does.
func logIn(id fakests.Identity) loginFunc {
	return func() (*rest.Config, error) {
		admin := cp().AdminConfig()
		ca := string(admin.CAData)
		return kube.WithIAM(kube.Endpoint{Server: admin.Host, CA: func(context.Context) (string, error) { return ca, nil }},
			kube.IAM{ClusterID: cluster, Region: region, Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, id.SessionToken),
				WhoAmI: func(context.Context) (string, error) { return id.ARN, nil }}, "kops-spot/test"), nil
	}
}

// client returns a client for a login.
func client(t *testing.T, login loginFunc) kubernetes.Interface {
	t.Helper()
	return must(kubernetes.NewForConfig(must(login())))
}

// becomes waits until the cluster maps an identity to a username, or rejects it if the name is empty.
func becomes(t *testing.T, login loginFunc, username string, groups ...string) {
	t.Helper()
	eventually(t, "it becomes "+username, func() error {
		review, err := client(t, login).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			if username == "" && strings.Contains(err.Error(), "401") {
				return nil
			}
			return err
		}
		is := review.Status.UserInfo
		if is.Username != username || !slices.Equal(is.Groups, append(slices.Clone(groups), "system:authenticated")) {
			return fmt.Errorf("mapped to %s in %q", is.Username, is.Groups)
		}
		return nil
	})
}

// setUp creates a ConfigMap, or deletes it if data is nil.
func setUp(t *testing.T, name string, data map[string]string) {
	t.Helper()
	client := cp().Client().CoreV1().ConfigMaps(kubeSystem)
	remove := func(ctx context.Context) {
		if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !isNotFound(err) {
			t.Error(err)
		}
	}
	remove(t.Context())
	t.Cleanup(func() { remove(context.WithoutCancel(t.Context())) })
	if data == nil {
		return
	}
	must(client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{}))
}

func plan(t *testing.T, m identitymap.Mapping, remove bool) identitymap.Plan {
	t.Helper()
	decide := m.Plan
	if remove {
		decide = m.PlanRemoval
	}
	p := must(decide(t.Context(), cp().admin))
	return p
}

func apply(t *testing.T, p identitymap.Plan) {
	t.Helper()
	try(applyAs(t.Context(), cp().admin, p))
}

// applyAs applies a plan with a client.
func applyAs(ctx context.Context, admin dynamic.Interface, p identitymap.Plan) error {
	return change.Apply(ctx, admin, identitymap.Steps(p, func(c dynamic.Interface) dynamic.Interface { return c }))
}

// rows returns the rows of a plan that change something.
func rows(p identitymap.Plan) (all []string) {
	for _, c := range p.Changes {
		if c.Changes() {
			all = append(all, c.Row())
		}
	}
	return all
}

// in returns the client of a resource, in kube-system if it is namespaced.
func in(group, version, resource string) dynamic.ResourceInterface {
	all := cp().admin.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: resource})
	if group == "" || group == "apps" {
		return all.Namespace(kubeSystem)
	}
	return all
}

// versions returns the resourceVersions of all objects that a mapping may change.
func versions(t *testing.T) string {
	t.Helper()
	var all []string
	for _, kind := range [][3]string{{"", "v1", "configmaps"}, {"", "v1", "secrets"}, {"", "v1", "serviceaccounts"},
		{"rbac.authorization.k8s.io", "v1", "clusterroles"}, {"rbac.authorization.k8s.io", "v1", "clusterrolebindings"},
		{"iamauthenticator.k8s.aws", "v1alpha1", "iamidentitymappings"}, {"apps", "v1", "daemonsets"}} {
		objects, err := in(kind[0], kind[1], kind[2]).List(t.Context(), metav1.ListOptions{})
		if isNotFound(err) { // a kind that the cluster does not know
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects.Items {
			// Controllers change an object's status without changing its generation. Objects without generation compare
			// by version.
			version := o.GetResourceVersion()
			if generation := o.GetGeneration(); generation > 0 {
				version = fmt.Sprint("generation ", generation)
			}
			all = append(all, fmt.Sprint(kind[2], " ", o.GetName(), " ", version))
		}
	}
	return strings.Join(all, "\n")
}

// parsed returns the parsed YAML texts, without the empty ones.
func parsed(t *testing.T, texts map[string]string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for key, text := range texts {
		var v any
		try(utilyaml.Unmarshal([]byte(text), &v))
		if list, is := v.([]any); v != nil && (!is || len(list) > 0) {
			all[key] = v
		}
	}
	return all
}

func sameTexts(t *testing.T, a, b map[string]string) bool {
	t.Helper()
	return reflect.DeepEqual(parsed(t, a), parsed(t, b))
}

// data returns the data of a ConfigMap; nil if it does not exist.
func data(t *testing.T, name string) map[string]string {
	t.Helper()
	cm, err := cp().Client().CoreV1().ConfigMaps(kubeSystem).Get(t.Context(), name, metav1.GetOptions{})
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(cm.Annotations) > 0 && !strings.Contains(fmt.Sprint(cm.Data), "cast-kops") {
		t.Errorf("ConfigMap %s: annotations %v", name, cm.Annotations)
	}
	return cm.Data
}
