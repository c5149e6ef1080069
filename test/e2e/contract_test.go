package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

// TestClusterContract runs the contract of the in-memory cluster against a real API server.
func TestClusterContract(t *testing.T) {
	spottest.ClusterContract(t, func(t *testing.T, check func(*testing.T, spottest.World)) {
		r := newFixture(t)
		c, err := kube.New(r.cp.TokenConfig(shared.token))
		must(t, err)
		check(t, &realWorld{fixture: r, cluster: c})
	})
}

// realWorld sets up the real cluster for the contract.
type realWorld struct {
	*fixture
	cluster *kube.Cluster
	made    int
}

func (w *realWorld) Cluster() spottest.ClusterUnderTest { return w.cluster }

func (w *realWorld) AddNode(t *testing.T) spot.Node {
	t.Helper()
	n, err := w.cluster.NodeNamed(t.Context(), w.node())
	must(t, err)
	return n
}

func (w *realWorld) AddPod(t *testing.T, p spottest.PodSpec) spot.Pod {
	t.Helper()
	w.made++
	name := fmt.Sprintf("pod-%d", w.made)
	spec := w.template(app{name: name, grace: p.Grace, exit: p.Exit})
	spec.Spec.NodeName, spec.Spec.NodeSelector = p.Node, nil
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name, "of": p.App},
		Annotations: spec.Annotations}, Spec: spec.Spec}
	for key, value := range p.Annotations {
		pod.Annotations[key] = value
	}
	if p.Finalizer != "" {
		pod.Finalizers = []string{p.Finalizer}
	}
	if p.EmptyDir {
		pod.Spec.Volumes = append(pod.Spec.Volumes,
			corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	if p.Volume {
		claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: w.disk(name)}
		pod.Spec.Volumes = append(pod.Spec.Volumes,
			corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}})
	}
	if _, err := w.client.CoreV1().Pods(w.namespace).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitReady(name, 1)
	// AddPod must return the current pod, not its state just before it became Ready.
	var found spot.Pod
	w.eventually(name+" to be listed in its current version", func() bool {
		now, err := w.client.CoreV1().Pods(w.namespace).Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		pods, err := spottest.PodsOn(t.Context(), w.cluster, p.Node)
		must(t, err)
		for _, pod := range pods {
			if pod.Name == name && pod.Version == now.ResourceVersion {
				found = pod
				return true
			}
		}
		return false
	})
	return found
}

func (w *realWorld) AddBudget(t *testing.T, app string, minAvailable int) (lift func()) {
	t.Helper()
	w.made++
	return w.guardPods(fmt.Sprintf("budget-%d", w.made), map[string]string{"of": app}, minAvailable)
}

func (w *realWorld) Cordon(t *testing.T, node, manager string) {
	t.Helper()
	_, err := w.client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType,
		[]byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{FieldManager: manager})
	must(t, err)
}

func (w *realWorld) PowerOff(t *testing.T, node string) {
	t.Helper()
	must(t, w.cp.PowerOff(t.Context(), node))
	time.Sleep(time.Second) // the kubelet must notice
}

func (w *realWorld) Release(t *testing.T, p spot.Pod) {
	t.Helper()
	_, err := w.client.CoreV1().Pods(p.Namespace).Patch(context.WithoutCancel(t.Context()), p.Name,
		types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	must(t, err)
}

func (w *realWorld) SIGTERM(p spot.Pod) (spottest.SIGTERM, bool) {
	for _, rec := range w.kubelet(testenv.PodSigTerm) {
		if strings.EqualFold(rec.UID, p.UID) {
			return spottest.SIGTERM{At: rec.Time, Grace: time.Duration(rec.Grace) * time.Second}, true
		}
	}
	return spottest.SIGTERM{}, false
}
