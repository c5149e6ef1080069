package testenv

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Annotations that the fake kubelet obeys. Those of pods hold durations as time.ParseDuration reads them.
const (
	ReadyAfterAnnotation = protocol.ReadyAfterAnnotation // pod: from start until Ready, default 200ms
	ExitAfterAnnotation  = protocol.ExitAfterAnnotation  // pod: from SIGTERM until exit, default 300ms
	PowerAnnotation      = protocol.PowerAnnotation      // node: "off" stops everything at once
	HeartbeatAnnotation  = protocol.HeartbeatAnnotation  // node: "off" is Ready once, then silent
)

// KubeletRecord is one thing the fake kubelet did to a pod's containers, or saw them do.
type KubeletRecord = protocol.KubeletRecord

// KubeletEvent is what a KubeletRecord tells.
type KubeletEvent = protocol.KubeletEvent

// The events there are.
const (
	PodStarted        = protocol.Started // its volumes are attached, its containers run
	PodReady          = protocol.BecameReady
	PodSigTerm        = protocol.SigTerm        // asked to end, Grace seconds given
	PodGraceShortened = protocol.GraceShortened // asked again, with fewer seconds
	PodExited         = protocol.Exited         // ended by itself within its grace period
	PodSigKill        = protocol.SigKill        // killed at its end, or deleted by force
	PodRemoved        = protocol.Removed        // deleted from the API server by the kubelet
)

// KubeletLog returns what the fake kubelet recorded so far, of all nodes. The records of one pod are in order.
func (cp *ControlPlane) KubeletLog() ([]KubeletRecord, error) {
	records, err := readLines[KubeletRecord](cp.dir, protocol.KubeletLogFile)
	if err != nil {
		return nil, fmt.Errorf("reading the kubelet's record: %w", err)
	}
	return records, nil
}

// PowerOff stops the node's kubelet and containers at once and without a word, as EC2 does to an instance whose two
// minutes are over. Its Node and pods stay in the API server as they were.
func (cp *ControlPlane) PowerOff(ctx context.Context, node string) error {
	off := protocol.Off
	return cp.annotateNode(ctx, node, PowerAnnotation, &off)
}

// PowerOn boots the node again: pods that are still bound to it start anew, those asked to end are gone.
func (cp *ControlPlane) PowerOn(ctx context.Context, node string) error {
	return cp.annotateNode(ctx, node, PowerAnnotation, nil)
}

// annotateNode sets the node's annotation; nil takes it away.
func (cp *ControlPlane) annotateNode(ctx context.Context, node, key string, value *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	if err != nil {
		return err
	}
	if _, err := cp.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("annotating node %s: %w", node, err)
	}
	return nil
}
