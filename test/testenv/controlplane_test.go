package testenv_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/test/testenv"
)

// TestControlPlane proves what every other test on the control plane takes for granted. Its parts share one.
func TestControlPlane(t *testing.T) {
	ctx := t.Context()
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{
		Dir:               t.TempDir(),
		Log:               t.Output(),
		NodeGrace:         4 * time.Second,
		PodGCPeriod:       time.Second,
		PodGCQuarantine:   2 * time.Second,
		MaxWaitForUnmount: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("ready after %v, %s", cp.ReadyAfter(), rss(cp.PID()))
	if err := cp.CreateNodes(ctx, testenv.SpotNodes(3)...); err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *world)
	}{
		{"Version", testVersion},
		{"Budget", testBudget},
		{"Workloads", testWorkloads},
		{"Grace", testGrace},
		{"Volume", testVolume},
		{"ServiceAccount", testServiceAccount},
		{"Power", testPower},
		{"Namespace", testNamespace},
		{"Stop", testStop},
	} {
		t.Run(part.name, func(t *testing.T) {
			namespace := strings.ToLower(part.name)
			if err := cp.CreateNamespace(t.Context(), namespace); err != nil {
				t.Fatal(err)
			}
			part.test(t, &world{T: t, cp: cp, client: cp.Client(), namespace: namespace})
		})
	}
}

func testVersion(t *testing.T, w *world) {
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	required := regexp.MustCompile(`k8s\.io/kubernetes (v\S+)`).FindSubmatch(mod)
	version, err := w.client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if got := version.GitVersion; got != testenv.KubernetesVersion || got != string(required[1]) {
		t.Errorf("the server calls itself %s; go.mod requires %s", got, required[1])
	}
}

func testBudget(t *testing.T, w *world) {
	// The replacement must not be Ready before the second eviction is tried.
	web := pod("web", map[string]string{testenv.ReadyAfterAnnotation: "1s"})
	create(w, w.client.AppsV1().Deployments(w.namespace), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: new(int32(3)), Selector: selector("web"), Template: web},
	})
	atLeastTwo := intstr.FromInt32(2)
	create(w, w.client.PolicyV1().PodDisruptionBudgets(w.namespace), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &atLeastTwo, Selector: selector("web")},
	})
	one := func() bool {
		budget, err := w.client.PolicyV1().PodDisruptionBudgets(w.namespace).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && budget.Status.DisruptionsAllowed == 1
	}
	w.eventually("the budget allows one disruption", one)

	pods := w.pods("web")
	cordoned := pods[0].Spec.NodeName
	w.patchNode(cordoned, `{"spec":{"unschedulable":true}}`)
	defer w.patchNode(cordoned, `{"spec":{"unschedulable":false}}`)
	if err := w.evict(pods[0].Name); err != nil {
		t.Fatalf("first eviction: %v", err)
	}
	err := w.evict(pods[1].Name)
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "disruption budget") {
		t.Fatalf("second eviction: %v; want 429 with the budget's message", err)
	}
	w.eventually("the evicted pod is replaced", func() bool {
		_, err := w.client.CoreV1().Pods(w.namespace).Get(t.Context(), pods[0].Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err) && one()
	})
	for _, pod := range w.pods("web") {
		if pod.Spec.NodeName == cordoned {
			t.Errorf("pod %s is on the cordoned node", pod.Name)
		}
	}
	codes := func() []int {
		var codes []int
		for _, r := range w.requests(testenv.AdminUser) {
			if r.Subresource == "eviction" {
				codes = append(codes, r.Code)
			}
		}
		return codes
	}
	w.eventually("the audit log has both evictions", func() bool { return slices.Equal(codes(), []int{201, 429}) })
}

func testWorkloads(t *testing.T, w *world) {
	create(w, w.client.AppsV1().StatefulSets(w.namespace), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(2)), Selector: selector("db"), Template: pod("db", nil)},
	})
	create(w, w.client.AppsV1().DaemonSets(w.namespace), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       appsv1.DaemonSetSpec{Selector: selector("agent"), Template: pod("agent", nil)},
	})
	w.eventually("the StatefulSet and the DaemonSet are Ready", func() bool {
		set, err := w.client.AppsV1().StatefulSets(w.namespace).Get(t.Context(), "db", metav1.GetOptions{})
		if err != nil || set.Status.ReadyReplicas != 2 {
			return false
		}
		daemons, err := w.client.AppsV1().DaemonSets(w.namespace).Get(t.Context(), "agent", metav1.GetOptions{})
		return err == nil && daemons.Status.NumberReady == 3
	})
	if err := w.client.CoreV1().Namespaces().Delete(t.Context(), w.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testNamespace waits for the end of the namespace that testWorkloads deleted: with pods in it that takes ten seconds.
func testNamespace(t *testing.T, w *world) {
	w.eventually("the namespace is gone", func() bool {
		_, err := w.client.CoreV1().Namespaces().Get(t.Context(), "workloads", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func testServiceAccount(t *testing.T, w *world) {
	const name = "drainer"
	create(w, w.client.CoreV1().ServiceAccounts(w.namespace), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}})
	create(w, w.client.RbacV1().RoleBindings(w.namespace), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: name}},
	})
	token, err := w.cp.ServiceAccountToken(t.Context(), w.namespace, name, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(w.cp.TokenConfig(token))
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the account may list pods", func() bool {
		_, err := client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	if _, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing nodes: %v; want it forbidden", err)
	}
	user := "system:serviceaccount:" + w.namespace + ":" + name
	w.eventually("the audit log has the account's requests", func() bool {
		var granted, refused bool
		for _, r := range w.requests(user) {
			granted = granted || r.Resource == "pods" && r.Verb == "list" && r.Namespace == w.namespace && r.Code == 200
			refused = refused || r.Resource == "nodes" && r.Code == 403 && r.Forbidden
		}
		return granted && refused
	})
	for _, r := range w.requests("system:apiserver") {
		t.Errorf("the audit log has the control plane's own %s %s", r.Verb, r.URI)
	}
}

func testStop(t *testing.T, w *world) {
	// Somebody still watches: a server that waited for them would take a minute.
	watch, err := w.client.CoreV1().Pods("").Watch(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	begin := time.Now()
	if err := w.cp.Stop(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	t.Logf("stopped after %v", took)
	if took > 8*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := syscall.Kill(-w.cp.PID(), 0); err != syscall.ESRCH {
		t.Errorf("its process group is still there: %v", err)
	}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func pod(app string, annotations map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/" + app}}},
	}
}

// patchNode merges the patch into the node.
func (w *world) patchNode(name, patch string) {
	w.Helper()
	if _, err := w.client.CoreV1().Nodes().Patch(w.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		w.Fatal(err)
	}
}
