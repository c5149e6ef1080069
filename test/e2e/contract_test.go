package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/deploy"
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

// nodeClaims is a minimal CRD of Karpenter's NodeClaim.
const nodeClaims = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: nodeclaims.karpenter.sh
spec:
  group: karpenter.sh
  scope: Cluster
  names: {kind: NodeClaim, plural: nodeclaims, singular: nodeclaim}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

const nodeClaim = `
apiVersion: karpenter.sh/v1
kind: NodeClaim
metadata:
  name: %s
`

// karpenter installs the CRD and the optional RBAC once for all tests.
var karpenter sync.Once

func (w *realWorld) AddClaim(t *testing.T, node string) string {
	t.Helper()
	karpenter.Do(func() {
		for _, manifest := range [][]byte{[]byte(nodeClaims), deploy.KarpenterRBAC} {
			if err := w.cp.Apply(t.Context(), manifest); err != nil {
				t.Error(err)
			}
		}
	})
	w.made++
	name := fmt.Sprintf("%s-claim-%d", w.namespace, w.made)
	w.eventually("the API server to accept a NodeClaim",
		func() bool { return w.cp.Apply(t.Context(), fmt.Appendf(nil, nodeClaim, name)) == nil })
	if node == "" {
		return name
	}
	uid := w.claimUID(t, name)
	if uid == "" {
		t.Fatalf("the NodeClaim %s does not exist", name)
	}
	owner := metav1.OwnerReference{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: name, UID: uid}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": []metav1.OwnerReference{owner}}})
	must(t, err)
	if _, err := w.client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch,
		metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	return name
}

func (w *realWorld) HasClaim(t *testing.T, name string) bool {
	t.Helper()
	return w.claimUID(t, name) != ""
}

// claimUID returns the UID of a NodeClaim, or "" if it does not exist.
func (w *realWorld) claimUID(t *testing.T, name string) types.UID {
	t.Helper()
	body, err := w.client.CoreV1().RESTClient().Get().AbsPath("/apis/karpenter.sh/v1/nodeclaims",
		name).DoRaw(t.Context())
	if apierrors.IsNotFound(err) {
		return ""
	}
	must(t, err)
	var claim metav1.PartialObjectMetadata
	must(t, json.Unmarshal(body, &claim))
	return claim.UID
}

// disk creates a volume as the EBS CSI driver does, with a bound claim of that name in the test's namespace.
func (w *realWorld) disk(claim string) string {
	w.Helper()
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	name := w.namespace + "-" + claim
	_, err := w.client.CoreV1().PersistentVolumes().Create(w.Context(),
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes,
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: "vol-" + name}}}}, metav1.CreateOptions{})
	must(w, err)
	none := ""
	_, err = w.client.CoreV1().PersistentVolumeClaims(w.namespace).Create(w.Context(),
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: claim},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: name, StorageClassName: &none,
				Resources: corev1.VolumeResourceRequirements{Requests: size}}}, metav1.CreateOptions{})
	must(w, err)
	return claim
}
