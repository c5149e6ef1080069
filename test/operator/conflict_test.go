package operator

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/castai/kops-spot/internal/identitymap"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/test/testenv"
)

// meddler changes an object just before our first write to it.
type meddler struct {
	next   http.RoundTripper
	path   string
	meddle func()
	writes atomic.Int32
}

func (m *meddler) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && strings.HasPrefix(r.URL.Path, m.path) && m.writes.Add(1) == 1 {
		m.meddle()
	}
	return m.next.RoundTrip(r)
}

// conflict: a change by somebody else between our read and our write is kept, and ours is added.
func conflict(t *testing.T) {
	for name, before := range map[string]map[string]string{"changed": {"mapUsers": theirUsers}, "created": nil, "deleted": {}} {
		t.Run(name, func(t *testing.T) {
			setUp(t, "aws-auth", before)
			createDaemonSet(t, testenv.EKSConfigMap)
			maps := cp().Client().CoreV1().ConfigMaps(kubeSystem)
			theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "aws-auth"}, Data: map[string]string{"mapUsers": theirUsers, "mapAccounts": "[]"}}
			m := &meddler{path: "/api/v1/namespaces/kube-system/configmaps", meddle: func() {
				var err error
				switch name {
				case "changed":
					_, err = maps.Update(t.Context(), theirs, metav1.UpdateOptions{})
				case "created":
					_, err = maps.Create(t.Context(), theirs, metav1.CreateOptions{})
				case "deleted":
					err = maps.Delete(t.Context(), "aws-auth", metav1.DeleteOptions{})
				}
				if err != nil {
					t.Error(err)
				}
			}}
			cfg := cp().AdminConfig()
			cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
				m.next = next
				return m
			})
			admin := must(identitymap.NewClient(cfg))
			try(applyAs(t.Context(), admin, plan(t, mapping, false)))
			is := data(t, "aws-auth")
			if n := m.writes.Load(); n != 2 {
				t.Errorf("%d writes", n)
			}
			if !strings.Contains(is["mapRoles"], "role/CastLambdaRoleForSpot") || !strings.Contains(is["mapUsers"], user.ARN) {
				t.Errorf("our entry is missing in\n%s\n%s", is["mapRoles"], is["mapUsers"])
			}
			users, _ := parsed(t, is)["mapUsers"].([]any)
			alice := parsed(t, theirs.Data)["mapUsers"].([]any)[0]
			if name != "deleted" && (len(users) != 2 || !reflect.DeepEqual(users[0], alice) || !strings.Contains(is["mapUsers"], "# the admin") ||
				is["mapAccounts"] != "[]") {
				t.Errorf("their entry is missing in\n%s", is["mapUsers"])
			}
			apply(t, plan(t, mapping, true))
			if is := data(t, "aws-auth"); name != "deleted" && (!sameTexts(t, is, theirs.Data) || len(is) != 2) || name == "deleted" && is != nil {
				t.Errorf("remaining: %q", is)
			}
			checkGone(t)
		})
	}
}

// otherRoleBinding: a binding to another role is recreated, because a roleRef is immutable, and rules added to our role
// are removed.
func otherRoleBinding(t *testing.T) {
	rbac := cp().Client().RbacV1()
	theirs := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "kops-spot"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}}
	must(rbac.ClusterRoleBindings().Create(t.Context(), theirs, metav1.CreateOptions{}))
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "kops-spot", Labels: map[string]string{"team": "a"}},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}}}
	must(rbac.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}))
	m := identitymap.Mapping{Cluster: cluster, Karpenter: true}
	p := plan(t, m, false)
	want := []string{"create ServiceAccount kube-system/kops-spot", "change ClusterRole kops-spot", "create ClusterRole kops-spot-karpenter",
		"delete ClusterRoleBinding kops-spot", "create ClusterRoleBinding kops-spot", "create ClusterRoleBinding kops-spot-karpenter"}
	if is := rows(p); !slices.Equal(is, want) {
		t.Errorf("plan:\n%q\nwant\n%q", is, want)
	}
	if diff := strings.Join(p.Changes[1].Diff, "\n"); !strings.Contains(diff, "\n-     - secrets") || !strings.Contains(diff, "\n+     - pods/eviction") || strings.Contains(diff, "team") {
		t.Errorf("diff of the role:\n%s", diff)
	}
	apply(t, p)
	binding, err := rbac.ClusterRoleBindings().Get(t.Context(), "kops-spot", metav1.GetOptions{})
	if err != nil || binding.RoleRef.Name != "kops-spot" || len(binding.Subjects) != 2 {
		t.Errorf("%v: bound %v to %v", err, binding.Subjects, binding.RoleRef)
	}
	role, err = rbac.ClusterRoles().Get(t.Context(), "kops-spot", metav1.GetOptions{})
	if err != nil || role.Labels["team"] != "a" || slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "secrets") }) {
		t.Errorf("%v: role %v %v", err, role.Labels, role.Rules)
	}
	if _, err := rbac.ClusterRoles().Get(t.Context(), "kops-spot-karpenter", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if p := plan(t, m, false); !p.Changes.Empty() {
		t.Errorf("the second run changes %v", p.Changes)
	}
	apply(t, plan(t, m, true))
	checkGone(t)
}
