package onboarding

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/kubeadmin"
	"github.com/castai/kops-spot/internal/onboard"
	"github.com/castai/kops-spot/test/sts"
)

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

// logIn logs in as an identity of AWS, as the function does.
func logIn(id sts.Identity) onboard.LogIn {
	return func() (*rest.Config, error) {
		admin := shared.cp.AdminConfig()
		ca := string(admin.CAData)
		return kube.WithIAM(kube.Endpoint{Server: admin.Host, CA: func(context.Context) (string, error) { return ca, nil }},
			kube.IAM{ClusterID: cluster, Region: region, Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, id.SessionToken),
				WhoAmI: func(context.Context) (string, error) { return id.ARN, nil }}, "kops-spot/test"), nil
	}
}

// client is a client of a log-in.
func client(t *testing.T, login onboard.LogIn) kubernetes.Interface {
	t.Helper()
	cfg, err := login()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// becomes waits until an identity is somebody in the cluster; nobody if the name is empty. Each try has a token of its own.
func becomes(t *testing.T, login onboard.LogIn, username string, groups ...string) {
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
			return fmt.Errorf("it is %s in %q", is.Username, is.Groups)
		}
		return nil
	})
}

// setUp makes a ConfigMap, or sees to it that there is none.
func setUp(t *testing.T, name string, data map[string]string) {
	t.Helper()
	client := shared.cp.Client().CoreV1().ConfigMaps(kubeSystem)
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
	_, err := client.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func plan(t *testing.T, m onboard.Mapping, remove bool) onboard.MappingPlan {
	t.Helper()
	state, err := m.Inspect(t.Context(), shared.admin)
	if err != nil {
		t.Fatal(err)
	}
	decide := m.Plan
	if remove {
		decide = m.PlanRemoval
	}
	p, err := decide(state)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, p onboard.MappingPlan) *onboard.ServiceAccountToken {
	t.Helper()
	token, err := p.Apply(t.Context(), shared.admin)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// versions are the resourceVersions of all that a mapping may change.
func versions(t *testing.T) string {
	t.Helper()
	var all []string
	for _, ref := range []kubeadmin.Ref{
		{APIVersion: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: kubeSystem},
		{APIVersion: "v1", Kind: "Secret", Resource: "secrets", Namespace: kubeSystem},
		{APIVersion: "v1", Kind: "ServiceAccount", Resource: "serviceaccounts", Namespace: kubeSystem},
		{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Resource: "clusterroles"},
		{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRoleBinding", Resource: "clusterrolebindings"},
		{APIVersion: "iamauthenticator.k8s.aws/v1alpha1", Kind: "IAMIdentityMapping", Resource: "iamidentitymappings"},
		{APIVersion: "apps/v1", Kind: "DaemonSet", Resource: "daemonsets", Namespace: kubeSystem},
	} {
		objects, err := shared.admin.List(t.Context(), ref)
		if err != nil && !errors.Is(err, kubeadmin.ErrNotFound) { // a kind that the cluster does not know
			t.Fatal(err)
		}
		for _, o := range objects {
			// Of what controllers note in an object, generation says nothing; of what has none, all counts.
			version := o.Text("metadata", "resourceVersion")
			if generation := o.Number("metadata", "generation"); generation > 0 {
				version = fmt.Sprint("generation ", generation)
			}
			all = append(all, fmt.Sprint(ref.Kind, " ", o.Text("metadata", "name"), " ", version))
		}
	}
	return strings.Join(all, "\n")
}

// said is what texts say, without those that say nothing.
func said(t *testing.T, texts map[string]string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for key, text := range texts {
		var v any
		if err := utilyaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if list, is := v.([]any); v != nil && (!is || len(list) > 0) {
			all[key] = v
		}
	}
	return all
}

func sameTexts(t *testing.T, a, b map[string]string) bool {
	t.Helper()
	return reflect.DeepEqual(said(t, a), said(t, b))
}

// data are the texts of a ConfigMap; nil if it is not there.
func data(t *testing.T, name string) map[string]string {
	t.Helper()
	cm, err := shared.cp.Client().CoreV1().ConfigMaps(kubeSystem).Get(t.Context(), name, metav1.GetOptions{})
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(cm.Annotations) > 0 && !strings.Contains(fmt.Sprint(cm.Data), "cast-kops") {
		t.Errorf("ConfigMap %s has the annotations %v", name, cm.Annotations)
	}
	return cm.Data
}
