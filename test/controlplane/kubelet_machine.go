package controlplane

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// machine is a node's kubelet from power-on to power-off. When ctx ends, it stops without a report or clean-up. A new
// machine continues with the node and its pods as they are.
type machine struct {
	*kubelet
	node     string
	ctx      context.Context
	cutPower context.CancelFunc

	down atomic.Bool // its operating system shuts down

	mu   sync.Mutex
	runs map[types.UID]*podRun // kept until the pod is gone, or it would be started again

	beating      sync.Mutex // one heartbeat at a time, so that an older one does not report the node Ready again
	reporting    sync.Mutex
	volumesInUse map[corev1.UniqueVolumeName]int // how many pods use it
}

func newMachine(ctx context.Context, k *kubelet, node string) *machine {
	m := &machine{
		kubelet:      k,
		node:         node,
		runs:         map[types.UID]*podRun{},
		volumesInUse: map[corev1.UniqueVolumeName]int{},
	}
	m.ctx, m.cutPower = context.WithCancel(ctx)
	return m
}

// boot reports the node Ready and takes over its pods. Volumes from before a power cut are no longer mounted.
func (m *machine) boot(node *corev1.Node) {
	if len(node.Status.VolumesInUse) > 0 {
		m.reportVolumes(nil, 0)
	}
	m.heartbeat()
	pods, err := m.pods.ByIndex(podsByNode, m.node)
	if err != nil {
		return // the index always exists
	}
	for _, pod := range pods {
		m.podSeen(pod.(*corev1.Pod))
	}
}

func (m *machine) podSeen(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	run := m.runs[pod.UID]
	if run == nil {
		run = &podRun{machine: m, first: pod, changed: make(chan struct{}, 1), ended: make(chan struct{})}
		m.runs[pod.UID] = run
		go run.run()
		return
	}
	run.nudge()
}

func (m *machine) podGone(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if run := m.runs[pod.UID]; run != nil {
		run.nudge()
		delete(m.runs, pod.UID)
	}
}

// heartbeat renews the node's lease and reports the node Ready, or NotReady while it shuts down, if the node does not
// say so.
func (m *machine) heartbeat() {
	m.beating.Lock()
	defer m.beating.Unlock()
	node, err := m.nodes.Get(m.node)
	if err != nil {
		return // the Node is gone: a kubelet registers only when it starts
	}
	if node.Annotations[protocol.HeartbeatAnnotation] != protocol.Off {
		m.renewLease(node)
	}
	now := metav1.Now()
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		Message: "fake kubelet", LastHeartbeatTime: now, LastTransitionTime: now}
	if m.down.Load() {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "node is shutting down"
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == ready.Status {
			return
		}
	}
	m.patchNode(map[string]any{"conditions": []corev1.NodeCondition{ready}})
}

func (m *machine) renewLease(node *corev1.Node) {
	seconds := int32(max(m.grace.Seconds(), 1))
	now := metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name:      m.node,
			Namespace: corev1.NamespaceNodeLease,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Node", Name: m.node, UID: node.UID,
			}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &m.node, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	patch, err := json.Marshal(map[string]any{"spec": lease.Spec})
	if err != nil {
		return // a Lease can always be marshalled
	}
	leases := m.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	err = m.call(m.ctx, "renew lease", func() error {
		_, err := leases.Patch(m.ctx, m.node, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		_ = m.call(m.ctx, "create lease", func() error {
			_, err := leases.Create(m.ctx, lease, metav1.CreateOptions{})
			return err
		})
	}
}

// patchNode merges the parts into the node's status. A missing node is ignored.
func (m *machine) patchNode(status map[string]any) {
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return // parts of a NodeStatus can always be marshalled
	}
	_ = m.call(m.ctx, "patch node status", func() error {
		_, err := m.client.CoreV1().Nodes().Patch(m.ctx, m.node, types.StrategicMergePatchType, patch,
			metav1.PatchOptions{}, "status")
		return err
	})
}

// reportVolumes adds one user (1) or removes one (-1) of each volume and reports the volumes in use. The attach-detach
// controller does not detach a volume in use. During a shutdown, only the next node status reports it.
func (m *machine) reportVolumes(volumes []corev1.UniqueVolumeName, change int) {
	m.reporting.Lock()
	defer m.reporting.Unlock()
	for _, v := range volumes {
		if m.volumesInUse[v] += change; m.volumesInUse[v] == 0 {
			delete(m.volumesInUse, v)
		}
	}
	if !m.down.Load() {
		m.patchVolumes()
	}
}

// patchVolumes reports the volumes in use. The caller holds m.reporting.
func (m *machine) patchVolumes() {
	inUse := slices.AppendSeq([]corev1.UniqueVolumeName{}, maps.Keys(m.volumesInUse))
	slices.Sort(inUse)
	m.patchNode(map[string]any{"volumesInUse": inUse})
}

// attached reports whether all volumes are attached to the node.
func (m *machine) attached(volumes []corev1.UniqueVolumeName) bool {
	node, err := m.nodes.Get(m.node)
	if err != nil {
		return false
	}
	for _, v := range volumes {
		if !slices.ContainsFunc(node.Status.VolumesAttached,
			func(a corev1.AttachedVolume) bool { return a.Name == v }) {
			return false
		}
	}
	return true
}

// claimed returns the CSI volumes of the pod's claims, or false if a claim is not bound.
func (m *machine) claimed(pod *corev1.Pod) (volumes []corev1.UniqueVolumeName, bound bool) {
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		claim, err := m.claims.PersistentVolumeClaims(pod.Namespace).Get(v.PersistentVolumeClaim.ClaimName)
		if err != nil || claim.Spec.VolumeName == "" {
			return nil, false
		}
		volume, err := m.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			return nil, false
		}
		if csi := volume.Spec.CSI; csi != nil {
			volumes = append(volumes, corev1.UniqueVolumeName("kubernetes.io/csi/"+csi.Driver+"^"+csi.VolumeHandle))
		}
	}
	return volumes, true
}

// waitingReason returns why the containers of new pods do not start; empty if they do.
func (m *machine) waitingReason() string {
	node, err := m.nodes.Get(m.node)
	if err != nil {
		return ""
	}
	return node.Annotations[protocol.WaitingAnnotation]
}

// sleep waits for d or for a change and reports whether the machine still has power.
func (m *machine) sleep(d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.ctx.Done():
		return false
	case <-timer.C:
	case <-changed:
	}
	return m.ctx.Err() == nil
}
