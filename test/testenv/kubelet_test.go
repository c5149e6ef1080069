package testenv_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/castai/kops-spot/test/testenv"
)

// world is what one part of TestControlPlane works in: a namespace of its own on the shared control plane.
type world struct {
	*testing.T
	cp        *testenv.ControlPlane
	client    kubernetes.Interface
	namespace string
}

func testGrace(t *testing.T, w *world) {
	// One that exits in time, one that has to be killed, and one that is asked twice.
	w.runPod("polite", map[string]string{testenv.ExitAfterAnnotation: "500ms"})
	w.runPod("deaf", map[string]string{testenv.ExitAfterAnnotation: "1h"})
	w.runPod("hurried", map[string]string{testenv.ExitAfterAnnotation: "1h"})
	w.deletePod("polite", 30)
	w.deletePod("deaf", 3)
	w.deletePod("hurried", 60)
	w.eventually("SIGTERM is recorded", func() bool { return len(w.records("hurried", testenv.PodSigTerm)) == 1 })
	w.deletePod("hurried", 2)
	w.eventually("all three pods are gone", func() bool {
		list, err := w.client.CoreV1().Pods(w.namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 0
	})
	for name, want := range map[string]string{
		"polite":  "started 0, ready 0, sigterm 30, exited 30, removed 30",
		"deaf":    "started 0, ready 0, sigterm 3, sigkill 3, removed 3",
		"hurried": "started 0, ready 0, sigterm 60, grace-shortened 2, sigkill 2, removed 2",
	} {
		w.eventually(name+" is recorded as removed", func() bool { return len(w.records(name, testenv.PodRemoved)) == 1 })
		var got []string
		for _, r := range w.records(name) {
			got = append(got, fmt.Sprintf("%s %d", r.Event, r.Grace))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: %s; want %s", name, s, want)
		}
	}
	lived := w.records("deaf", testenv.PodSigKill)[0].Time.Sub(w.records("deaf", testenv.PodSigTerm)[0].Time)
	if lived < 3*time.Second || lived > 4*time.Second {
		t.Errorf("killed %v after SIGTERM; want its 3 s of grace", lived)
	}
}

// testVolume follows a volume to a node and off it again.
func testVolume(t *testing.T, w *world) {
	const driver, handle = "ebs.csi.aws.com", "vol-0123456789abcdef0"
	quantity := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	create(w, w.client.CoreV1().PersistentVolumes(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: quantity, AccessModes: modes, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}},
		},
	})
	create(w, w.client.CoreV1().PersistentVolumeClaims(w.namespace), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, VolumeName: "data", StorageClassName: new(""),
			Resources: corev1.VolumeResourceRequirements{Requests: quantity},
		},
	})
	db := pod("db", nil)
	db.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}
	node := w.run("db", db)
	inUse := corev1.UniqueVolumeName("kubernetes.io/csi/" + driver + "^" + handle)
	if status := w.node(node).Status; !slices.Contains(status.VolumesInUse, inUse) || len(status.VolumesAttached) != 1 {
		t.Errorf("volumes in use %v, attached %v; want %s in both", status.VolumesInUse, status.VolumesAttached, inUse)
	}
	w.deletePod("db", 30)
	detached := func() bool {
		list, err := w.client.StorageV1().VolumeAttachments().List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 0 && len(w.node(node).Status.VolumesInUse) == 0
	}
	w.eventually("the volume is detached", detached)

	// A node without power does not let go of it, even when its pod is gone; one that boots has nothing mounted.
	node = w.run("lost", db)
	if err := w.cp.PowerOff(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.deletePod("lost", 0)
	for begin := time.Now(); time.Since(begin) < 2*time.Second; time.Sleep(100 * time.Millisecond) {
		if detached() {
			t.Fatalf("detached from a node without power after %v", time.Since(begin))
		}
	}
	if err := w.cp.PowerOn(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.eventually("the volume is detached from the node that booted", detached)
}

// testPower cuts a node's power while a pod is ending, deletes its Node, and brings it back.
func testPower(t *testing.T, w *world) {
	node := w.runPod("lost", map[string]string{testenv.ExitAfterAnnotation: "1s"})
	w.deletePod("lost", 30)
	w.eventually("SIGTERM is recorded", func() bool { return len(w.records("lost", testenv.PodSigTerm)) == 1 })
	if err := w.cp.PowerOff(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.eventually("the node is NotReady", func() bool { return !testenv.NodeReady(w.node(node)) })
	if got := w.records("lost", testenv.PodExited, testenv.PodSigKill, testenv.PodRemoved); len(got) > 0 {
		t.Errorf("a node without power recorded %v", got)
	}
	if list := w.pods(""); len(list) != 1 {
		t.Errorf("%d pods; want the one that never ended", len(list))
	}
	if err := w.cp.PowerOn(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.eventually("the node is Ready and the pod gone", func() bool {
		return testenv.NodeReady(w.node(node)) && len(w.pods("")) == 0
	})

	node = w.runPod("orphan", nil)
	if err := w.cp.PowerOff(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("podgc has deleted the pod of the node that is gone", func() bool { return len(w.pods("")) == 0 })
}

// eventually waits up to 20 seconds until it is so.
func (w *world) eventually(what string, so func() bool) {
	w.Helper()
	begin := time.Now()
	for !so() {
		if time.Since(begin) > 20*time.Second {
			w.Fatalf("waited 20 s until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.Logf("%s: after %v", what, time.Since(begin).Round(time.Millisecond))
}

// runPod creates a pod, waits until it is Ready and returns its node.
func (w *world) runPod(name string, annotations map[string]string) (node string) {
	w.Helper()
	return w.run(name, pod(name, annotations))
}

func (w *world) run(name string, template corev1.PodTemplateSpec) (node string) {
	w.Helper()
	template.ObjectMeta.Name = name
	create(w, w.client.CoreV1().Pods(w.namespace), &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})
	w.eventually(name+" is Ready", func() bool { return len(w.records(name, testenv.PodReady)) == 1 })
	return w.records(name, testenv.PodReady)[0].Node
}

func (w *world) deletePod(name string, grace int64) {
	w.Helper()
	if err := w.client.CoreV1().Pods(w.namespace).Delete(w.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) evict(name string) error {
	return w.client.PolicyV1().Evictions(w.namespace).Evict(w.Context(), &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace},
	})
}

// pods returns the namespace's pods of the app, or all of them.
func (w *world) pods(app string) []corev1.Pod {
	w.Helper()
	var options metav1.ListOptions
	if app != "" {
		options.LabelSelector = "app=" + app
	}
	list, err := w.client.CoreV1().Pods(w.namespace).List(w.Context(), options)
	if err != nil {
		w.Fatal(err)
	}
	return list.Items
}

func (w *world) node(name string) *corev1.Node {
	w.Helper()
	node, err := w.client.CoreV1().Nodes().Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return node
}

// records returns what the kubelet recorded of the namespace's pod: those events only, or all if none are named.
func (w *world) records(pod string, events ...testenv.KubeletEvent) []testenv.KubeletRecord {
	w.Helper()
	all, err := w.cp.KubeletLog()
	if err != nil {
		w.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r testenv.KubeletRecord) bool {
		return r.Namespace != w.namespace || r.Pod != pod || len(events) > 0 && !slices.Contains(events, r.Event)
	})
}

// requests returns the user's requests.
func (w *world) requests(user string) []testenv.AuditRecord {
	w.Helper()
	all, err := w.cp.AuditLog()
	if err != nil {
		w.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r testenv.AuditRecord) bool { return r.User != user })
}

// create creates the object with a typed client's interface for its kind.
func create[T any](w *world, in interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
}, object T) {
	w.Helper()
	if _, err := in.Create(w.Context(), object, metav1.CreateOptions{}); err != nil {
		w.Fatal(err)
	}
}

// rss returns the line of /proc that tells how much memory the process has resident.
func rss(pid int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "memory unknown"
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS:") {
			return strings.TrimSpace(line)
		}
	}
	return "memory unknown"
}
