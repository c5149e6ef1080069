package e2e

import (
	"net/url"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/castai/kops-spot/test/testenv"
)

// app is a workload in a test's namespace. Its pods run only on the test's nodes.
type app struct {
	name     string
	replicas int32
	grace    time.Duration // 30 s if zero
	exit     time.Duration // from SIGTERM to its exit
	ready    time.Duration // from the start until Ready
	tolerate bool          // every taint
}

func (r *fixture) template(a app) corev1.PodTemplateSpec {
	grace := int64(30)
	if a.grace > 0 {
		grace = int64(a.grace / time.Second)
	}
	t := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": a.name}, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, NodeSelector: map[string]string{"e2e": r.namespace},
			Containers: []corev1.Container{{Name: "main", Image: "example/" + a.name}}},
	}
	if a.exit > 0 {
		t.Annotations[testenv.ExitAfterAnnotation] = a.exit.String()
	}
	if a.ready > 0 {
		t.Annotations[testenv.ReadyAfterAnnotation] = a.ready.String()
	}
	if a.tolerate {
		t.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	return t
}

// deploy creates Deployments and waits until all pods are Ready.
func (r *fixture) deploy(apps ...app) {
	r.Helper()
	for _, a := range apps {
		_, err := r.client.AppsV1().Deployments(r.namespace).Create(r.Context(),
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: a.name},
				Spec: appsv1.DeploymentSpec{Replicas: &a.replicas,
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}},
					Template: r.template(a)}}, metav1.CreateOptions{})
		must(r, err)
	}
	for _, a := range apps {
		r.waitReady(a.name, int(a.replicas))
	}
}

// daemon creates a DaemonSet and waits until its pod on the only node is Ready.
func (r *fixture) daemon(name string) {
	r.Helper()
	_, err := r.client.AppsV1().DaemonSets(r.namespace).Create(r.Context(),
		&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
				Template: r.template(app{name: name})}}, metav1.CreateOptions{})
	must(r, err)
	r.waitReady(name, 1)
}

// mirror creates the mirror pod of a static pod.
func (r *fixture) mirror(name, node string) {
	r.Helper()
	t := r.template(app{name: name})
	t.Annotations[corev1.MirrorPodAnnotationKey] = "x"
	t.Spec.NodeName = node
	r.createPod(name+"-"+node, t)
	r.waitReady(name, 1)
}

// createPod creates a pod without an owner.
func (r *fixture) createPod(name string, t corev1.PodTemplateSpec) corev1.Pod {
	r.Helper()
	t.Name = name
	pod, err := r.client.CoreV1().Pods(r.namespace).Create(r.Context(),
		&corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}, metav1.CreateOptions{})
	must(r, err)
	return *pod
}

func (r *fixture) guard(app string, available int) (lift func()) {
	r.Helper()
	return r.guardPods(app, map[string]string{"app": app}, available)
}

// guardPods creates a budget and waits until the disruption controller has observed it and all pods.
func (r *fixture) guardPods(name string, labels map[string]string, available int) (lift func()) {
	r.Helper()
	min := intstr.FromInt(available)
	budgets := r.client.PolicyV1().PodDisruptionBudgets(r.namespace)
	_, err := budgets.Create(r.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &min,
			Selector: &metav1.LabelSelector{MatchLabels: labels}}}, metav1.CreateOptions{})
	must(r, err)
	r.eventually("the budget of "+name+" to be observed", func() bool {
		b, err := budgets.Get(r.Context(), name, metav1.GetOptions{})
		return err == nil && b.Status.ObservedGeneration == b.Generation && b.Status.CurrentHealthy >= int32(available)
	})
	return func() {
		if err := budgets.Delete(r.Context(), name, metav1.DeleteOptions{}); err != nil {
			r.Error(err)
		}
	}
}

func (r *fixture) pods(selector string) []corev1.Pod {
	r.Helper()
	l, err := r.client.CoreV1().Pods(r.namespace).List(r.Context(), metav1.ListOptions{LabelSelector: selector})
	must(r, err)
	return l.Items
}

func (r *fixture) podsOn(node string) (names []string) {
	r.Helper()
	for _, p := range r.pods("") {
		if p.Spec.NodeName == node {
			names = append(names, p.Name)
		}
	}
	return names
}

func (r *fixture) waitReady(app string, n int) {
	r.Helper()
	r.eventually(app+" to be Ready", func() bool {
		ready := 0
		for _, p := range r.pods("app=" + app) {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
					ready++
				}
			}
		}
		return ready >= n
	})
}

func (r *fixture) getNode(name string) *corev1.Node {
	r.Helper()
	n, err := r.client.CoreV1().Nodes().Get(r.Context(), name, metav1.GetOptions{})
	must(r, err)
	return n
}

func (r *fixture) eventually(what string, is func() bool) {
	r.Helper()
	for end := time.Now().Add(45 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			r.Fatalf("timed out waiting for %s", what)
		}
	}
}

// record waits for the kubelet's record of an event of a pod.
func (r *fixture) record(pod string, event testenv.KubeletEvent) testenv.KubeletRecord {
	r.Helper()
	var found testenv.KubeletRecord
	r.eventually("the kubelet to record "+string(event)+" of "+pod, func() bool {
		for _, rec := range r.kubelet(event) {
			if rec.Pod == pod {
				found = rec
				return true
			}
		}
		return false
	})
	return found
}

// kubelet returns the kubelets' records of this test's pods.
func (r *fixture) kubelet(event testenv.KubeletEvent) (recs []testenv.KubeletRecord) {
	r.Helper()
	all, err := r.cp.KubeletLog()
	must(r, err)
	for _, rec := range all {
		if rec.Namespace == r.namespace && rec.Event == event {
			recs = append(recs, rec)
		}
	}
	return recs
}

// requests returns the handler's requests to the API server about a node or this test's pods.
func (r *fixture) requests(node string) (reqs []testenv.AuditRecord) {
	r.Helper()
	all, err := r.cp.AuditLog()
	must(r, err)
	for _, a := range all {
		ours := a.Namespace == r.namespace || a.Name == node || a.Resource == "pods" && selects(a.URI, node)
		if a.User == handlerUser && ours {
			reqs = append(reqs, a)
		}
	}
	return reqs
}

func selects(uri, node string) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Query().Get("fieldSelector") == "spec.nodeName="+node
}

func (r *fixture) delete(pod string) {
	r.Helper()
	must(r, r.client.CoreV1().Pods(r.namespace).Delete(r.Context(), pod, metav1.DeleteOptions{}))
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
