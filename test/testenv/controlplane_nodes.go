package testenv

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// Node is a worker node on a Spot instance as kOps creates it. Only InstanceID is required.
type Node struct {
	Name          string // empty is the instance ID, as kOps names nodes since 1.29
	InstanceID    string
	Zone          string // empty is us-east-1a; the region is the zone without its last letter
	InstanceGroup string // empty is nodes-<zone>
	InstanceType  string // empty is m5.xlarge
	PrivateIP     string // empty is none
	CPU           int64  // allocatable cores with 4 GiB of memory each; 0 is 4
	Silent        bool   // always Ready, without heartbeats: for Options.ManyNodes
	EC2           string // URL of the EC2 endpoint that the cloud controller asks about it; empty: it leaves the node alone
	Labels        map[string]string
	Annotations   map[string]string
	Taints        []corev1.Taint
}

// Object returns the node as its kubelet registers it. Its own labels and annotations override the default ones.
func (n Node) Object() *corev1.Node {
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	name := or(n.Name, n.InstanceID)
	zone := or(n.Zone, "us-east-1a")
	cpu := n.CPU
	if cpu == 0 {
		cpu = 4
	}
	labels := map[string]string{
		corev1.LabelHostname:                  name,
		corev1.LabelOSStable:                  "linux",
		corev1.LabelArchStable:                "amd64",
		corev1.LabelTopologyZone:              zone,
		corev1.LabelTopologyRegion:            zone[:len(zone)-1],
		corev1.LabelInstanceTypeStable:        or(n.InstanceType, "m5.xlarge"),
		"kops.k8s.io/instancegroup":           or(n.InstanceGroup, "nodes-"+zone),
		"node-role.kubernetes.io/node":        "",
		"node-role.kubernetes.io/spot-worker": "true",
	}
	maps.Copy(labels, n.Labels)
	// Without it, the attach-detach controller silently leaves the node's volumes to the kubelet.
	annotations := map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
	if n.Silent {
		annotations[HeartbeatAnnotation] = protocol.Off
	}
	if n.EC2 != "" {
		annotations[protocol.CloudAnnotation] = n.EC2
	}
	maps.Copy(annotations, n.Annotations)
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(cpu, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(cpu<<32, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(110, resource.DecimalSI),
	}
	addresses := []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}
	if n.PrivateIP != "" {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: n.PrivateIP})
	}
	status := corev1.NodeStatus{Capacity: capacity, Allocatable: capacity, Addresses: addresses}
	if annotations[HeartbeatAnnotation] == protocol.Off {
		// A Ready node needs no requests of the kubelet.
		now := metav1.Now()
		status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}}
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations},
		Spec:       corev1.NodeSpec{ProviderID: "aws:///" + zone + "/" + n.InstanceID, Taints: slices.Clone(n.Taints)},
		Status:     status,
	}
}

// SpotNodes returns n different nodes in these zones in turn, by default us-east-1a, b and c.
func SpotNodes(n int, zones ...string) []Node {
	if len(zones) == 0 {
		zones = []string{"us-east-1a", "us-east-1b", "us-east-1c"}
	}
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = Node{
			InstanceID: fmt.Sprintf("i-%017x", 0xabc0000000000+i),
			Zone:       zones[i%len(zones)],
			PrivateIP:  fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
		}
	}
	return nodes
}

// CreateNodes creates the nodes and waits until pods can be scheduled on all that have no taints of their own.
func (cp *ControlPlane) CreateNodes(ctx context.Context, nodes ...Node) error {
	var group errgroup.Group
	group.SetLimit(32)
	pending := map[string]bool{}
	for _, node := range nodes {
		object := node.Object()
		pending[object.Name] = true
		group.Go(func() error {
			_, err := cp.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("creating nodes: %w", err)
	}
	// Listing thousands of nodes takes a while: poll less often for more nodes.
	interval := 50*time.Millisecond + time.Duration(len(nodes))*time.Millisecond/4
	err := wait.PollUntilContextTimeout(ctx, interval, 2*time.Minute, false, func(ctx context.Context) (bool, error) {
		list, err := cp.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return false, err
		}
		for _, node := range list.Items {
			if NodeReady(&node) && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool {
				return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
			}) {
				delete(pending, node.Name)
			}
		}
		return len(pending) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for nodes %s: %w", strings.Join(slices.Sorted(maps.Keys(pending)), ", "), err)
	}
	return nil
}

// NodeReady reports whether the node's Ready condition is true.
func NodeReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// Annotations that the fake kubelet obeys. Those of pods are durations as in time.ParseDuration.
const (
	ReadyAfterAnnotation = protocol.ReadyAfterAnnotation // pod: from start until Ready, default 200ms
	ExitAfterAnnotation  = protocol.ExitAfterAnnotation  // pod: from SIGTERM until exit, default 300ms
	PowerAnnotation      = protocol.PowerAnnotation      // node: "off" stops everything at once; see ShutDown
	HeartbeatAnnotation  = protocol.HeartbeatAnnotation  // node: "off" is Ready once, then silent
	WaitingAnnotation    = protocol.WaitingAnnotation    // node: the reason for which containers of new pods wait
)

// KubeletRecord is an event of a pod's containers, or of a node.
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
	PowerCut          = protocol.PowerCut       // of a node, without a pod
)

// KubeletLog returns the fake kubelet's records so far for all nodes. The records of one pod are in order.
func (cp *ControlPlane) KubeletLog() ([]KubeletRecord, error) {
	records, err := readLines[KubeletRecord](cp.dir, protocol.KubeletLogFile)
	if err != nil {
		return nil, fmt.Errorf("reading the kubelet's record: %w", err)
	}
	return records, nil
}

// PowerOff stops the node's kubelet and containers at once, like an instance whose kubelet does not delay the shutdown
// of the operating system. Its Node and pods stay in the API server.
func (cp *ControlPlane) PowerOff(ctx context.Context, node string) error {
	off := protocol.Off
	return cp.annotateNode(ctx, node, PowerAnnotation, &off)
}

// ShutDown shuts the node's operating system down, as EC2 does when it ends an instance, and returns when power is off.
// Until then, the kubelet delays the shutdown: the node is NotReady, ordinary pods get SIGTERM with at most the first
// window, and then critical pods with at most the second. kOps' defaults are 20 s and 10 s; with amazonvpc both are 0,
// which is PowerOff. The Node and its pods, now Failed, stay in the API server.
func (cp *ControlPlane) ShutDown(ctx context.Context, node string, ordinary, critical time.Duration) error {
	if ordinary+critical == 0 {
		return cp.PowerOff(ctx, node)
	}
	began, value := time.Now(), protocol.Shutdown(ordinary, critical)
	if err := cp.annotateNode(ctx, node, PowerAnnotation, &value); err != nil {
		return err
	}
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, ordinary+critical+10*time.Second, false,
		func(context.Context) (bool, error) {
			records, err := cp.KubeletLog()
			return slices.ContainsFunc(records, func(r KubeletRecord) bool {
				return r.Node == node && r.Event == PowerCut && r.Time.After(began)
			}), err
		})
	if err != nil {
		return fmt.Errorf("waiting for node %s to shut down: %w", node, err)
	}
	return nil
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
