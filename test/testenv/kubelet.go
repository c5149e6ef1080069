package testenv

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Annotations that the fake kubelet obeys. Those of pods are durations as in time.ParseDuration.
const (
	ReadyAfterAnnotation = protocol.ReadyAfterAnnotation // pod: from start until Ready, default 200ms
	ExitAfterAnnotation  = protocol.ExitAfterAnnotation  // pod: from SIGTERM until exit, default 300ms
	PowerAnnotation      = protocol.PowerAnnotation      // node: "off" stops everything at once
	HeartbeatAnnotation  = protocol.HeartbeatAnnotation  // node: "off" is Ready once, then silent
)

// KubeletRecord is an event of a pod's containers.
type KubeletRecord = protocol.KubeletRecord

// KubeletEvent is the kind of a KubeletRecord.
type KubeletEvent = protocol.KubeletEvent

// The events.
const (
	PodStarted        = protocol.Started // volumes attached, containers running
	PodReady          = protocol.BecameReady
	PodSigTerm        = protocol.SigTerm        // deleted with Grace seconds
	PodGraceShortened = protocol.GraceShortened // deleted again with fewer seconds
	PodExited         = protocol.Exited         // exited within its grace period
	PodSigKill        = protocol.SigKill        // killed after its grace period, or force-deleted
	PodRemoved        = protocol.Removed        // deleted from the API server by the kubelet
)

// KubeletLog returns the fake kubelet's records so far for all nodes. The records of one pod are in order.
func (cp *ControlPlane) KubeletLog() ([]KubeletRecord, error) {
	records, err := readLines[KubeletRecord](cp.dir, protocol.KubeletLogFile)
	if err != nil {
		return nil, fmt.Errorf("reading the kubelet's record: %w", err)
	}
	return records, nil
}

// PowerOff stops the node's kubelet and containers at once, as EC2 does with an instance after the two minutes. Its
// Node and pods stay in the API server.
func (cp *ControlPlane) PowerOff(ctx context.Context, node string) error {
	off := protocol.Off
	return cp.annotateNode(ctx, node, PowerAnnotation, &off)
}

// PowerOn boots the node again: its pods start again, except that terminating pods are removed.
func (cp *ControlPlane) PowerOn(ctx context.Context, node string) error {
	return cp.annotateNode(ctx, node, PowerAnnotation, nil)
}

// annotateNode sets the node's annotation, or removes it for nil.
func (cp *ControlPlane) annotateNode(ctx context.Context, node, key string, value *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	if err != nil {
		return err
	}
	if _, err := cp.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch,
		metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotating node %s: %w", node, err)
	}
	return nil
}
