package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// wrote returns a managed field entry of the API server.
func wrote(manager string, minute int64, fields string) metav1.ManagedFieldsEntry {
	at := metav1.NewTime(time.Unix(60*minute, 0))
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
		Time:       &at,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
}

// TestCordonedBy: who cordoned a node is read from its managed fields.
func TestCordonedBy(t *testing.T) {
	const (
		cordon = `{"f:spec":{"f:taints":{},"f:unschedulable":{}}}`
		taint  = `{"f:metadata":{"f:labels":{".":{},"f:unschedulable":{}}},"f:spec":{"f:taints":{}}}`
	)
	open := func(entries ...metav1.ManagedFieldsEntry) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{ManagedFields: entries}}
	}
	cordoned := func(entries ...metav1.ManagedFieldsEntry) *corev1.Node {
		n := open(entries...)
		n.Spec.Unschedulable = true
		return n
	}
	bare := metav1.ManagedFieldsEntry{Manager: "bare"}
	undated := wrote("undated", 0, cordon)
	undated.Time = nil
	for _, c := range []struct {
		name string
		node *corev1.Node
		want string
	}{
		{"one of several writers", cordoned(wrote("kubelet", 9, taint), wrote("kubectl-cordon", 1, cordon),
			wrote("other", 9, taint)), "kubectl-cordon"},
		{"the last of two", cordoned(wrote("early", 1, cordon), wrote("late", 3, cordon), wrote("middle", 2, cordon)),
			"late"},
		{"a writer without a time", cordoned(undated), "undated"},
		{"a writer without a time beside one with", cordoned(wrote("dated", 1, cordon), undated), "dated"},
		{"no managed fields", cordoned(), ""},
		{"no fields noted", cordoned(bare), ""},
		{"fields in an unknown form", cordoned(wrote("strange", 1, `[1]`), wrote("broken", 1, `{"f:spec":{"f:unsch`),
			wrote("other", 2, `{"f:spec":"x"}`)), ""},
		{"a node that is open", open(wrote("kubectl-uncordon", 1, cordon)), ""},
	} {
		if got := nodeOf(c.node).CordonedBy; got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestNodeDetails: the NodeClaim that owns the node, and the attached volumes.
func TestNodeDetails(t *testing.T) {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "NodeClaim", Name: "core"},
			{APIVersion: "karpenter.sh/v1", Kind: "NodePool", Name: "pool"},
			{APIVersion: "karpenter.sh.example.com/v1", Kind: "NodeClaim", Name: "other"},
			{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: "general-x7k2p"},
		}},
		Status: corev1.NodeStatus{VolumesAttached: []corev1.AttachedVolume{{Name: "kubernetes.io/csi/ebs.csi.aws.com^vol-1"}, {Name: "kubernetes.io/csi/ebs.csi.aws.com^vol-2"}}},
	}
	got := nodeOf(n)
	if got.NodeClaim != "general-x7k2p" {
		t.Errorf("the claim is %q", got.NodeClaim)
	}
	if len(got.AttachedVolumes) != 2 || got.AttachedVolumes[0] != "kubernetes.io/csi/ebs.csi.aws.com^vol-1" ||
		got.AttachedVolumes[1] != "kubernetes.io/csi/ebs.csi.aws.com^vol-2" {
		t.Errorf("the attached volumes are %q", got.AttachedVolumes)
	}
	if got := nodeOf(&corev1.Node{}); got.NodeClaim != "" || got.AttachedVolumes != nil {
		t.Errorf("an empty node has %+v", got)
	}
}
