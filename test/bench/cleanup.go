package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/deploy"
	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	"github.com/castai/kops-spot/test/testenv"
)

// lostNodeSizes are the sizes of the case cleanup.
type lostNodeSizes struct {
	unmount time.Duration // until the attach-detach controller force-detaches a volume; Kubernetes' default is 6 min
	rounds  int           // of kops-spot
	others  bool          // also measure the other methods, once each: they take minutes
}

// cleanupMethod is one way to clean up after a terminated instance.
type cleanupMethod struct {
	name        string
	terminating bool // the pod has a deletion timestamp when the instance terminates
	rounds      int
	do          func(n *lostNode, ctx context.Context) error
}

// cleanup measures how long it takes until a StatefulSet's pod with a volume is Ready again after its instance
// terminates without notice. It uses its own control plane, whose node lifecycle controller watches heartbeats.
func (b *bench) cleanup(ctx context.Context) (_ []table, err error) {
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{Log: b.log, MaxWaitForUnmount: b.lost.unmount})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	if err := cp.Apply(ctx, deploy.RBAC); err != nil {
		return nil, err
	}
	methods := []cleanupMethod{
		{name: "kops-spot, on the event that the instance is terminated", rounds: b.lost.rounds,
			do: (*lostNode).handleEvent},
		{name: "the same, with a pod that was already terminating", terminating: true, rounds: b.lost.rounds,
			do: (*lostNode).handleEvent},
	}
	if b.lost.others {
		const nodeDeletion = 10 * time.Second // as the cloud controller would
		methods = append(methods,
			cleanupMethod{name: "pod force-deleted, as with kubectl delete --force", rounds: 1,
				do: (*lostNode).deletePod},
			cleanupMethod{name: fmt.Sprintf("Node deleted after %s", nodeDeletion), rounds: 1,
				do: func(n *lostNode, ctx context.Context) error {
					if err := sleep(ctx, nodeDeletion); err != nil {
						return err
					}
					return n.deleteNode(ctx)
				}},
			cleanupMethod{name: "Node deleted at once", rounds: 1, do: (*lostNode).deleteNode})
	}
	t := table{title: fmt.Sprintf("a StatefulSet's pod with a volume, on a terminated instance; volumes are force-detached after %s "+
		"(default: 6 min)", b.lost.unmount),
		columns: []column{{name: "replacement pod Ready after", unit: seconds}}}
	number := 0
	for _, m := range methods {
		var times []float64
		for range m.rounds {
			n := &lostNode{cp: cp, name: fmt.Sprintf("lost-%d", number), number: number}
			number++
			took, err := n.try(ctx, m)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			b.logf("cleanup, %s: %.2f s", m.name, took.Seconds())
			times = append(times, took.Seconds())
		}
		t.rows = append(t.rows, row{m.name, []float64{median(times)}})
	}
	return []table{t}, nil
}

// lostNode is one trial, with its own namespace and nodes.
type lostNode struct {
	cp     *testenv.ControlPlane
	name   string
	number int
	node   testenv.Node
}

// try powers off the instance and measures the time until the replacement pod is Ready.
func (n *lostNode) try(ctx context.Context, m cleanupMethod) (time.Duration, error) {
	uid, err := n.setUp(ctx)
	if err != nil {
		return 0, err
	}
	name := n.node.Object().Name
	// Cordon, as after a warning: the node stays Ready for most of a minute and could get the replacement pod.
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := n.cp.Client().CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, cordon,
		metav1.PatchOptions{}); err != nil {
		return 0, err
	}
	if m.terminating {
		options := metav1.DeleteOptions{GracePeriodSeconds: new(int64(600))}
		if err := n.cp.Client().CoreV1().Pods(n.name).Delete(ctx, "db-0", options); err != nil {
			return 0, err
		}
	}
	if err := n.cp.PowerOff(ctx, name); err != nil {
		return 0, err
	}
	if err := sleep(ctx, time.Second); err != nil { // until the kubelet has stopped
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- m.do(n, ctx) }()
	if _, err := n.waitForPod(ctx, uid); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, <-done
}

// setUp creates a node with the pod and its volume, then a node for the replacement. It returns the pod's UID.
func (n *lostNode) setUp(ctx context.Context) (uid string, err error) {
	client := n.cp.Client()
	if err := n.cp.CreateNamespace(ctx, n.name); err != nil {
		return "", err
	}
	node := func(i int) testenv.Node {
		return testenv.Node{InstanceID: fmt.Sprintf("i-%017x", 0xdead000+i), PrivateIP: fmt.Sprintf("10.9.0.%d", i),
			Labels: map[string]string{"lost": n.name}}
	}
	n.node = node(2*n.number + 1)
	if err := n.cp.CreateNodes(ctx, n.node); err != nil {
		return "", err
	}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err = client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: n.name},
		Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: "vol-" + n.name}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	_, err = client.CoreV1().PersistentVolumeClaims(n.name).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: n.name, StorageClassName: new(""),
			Resources: corev1.VolumeResourceRequirements{Requests: size}},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	labels := map[string]string{"app": "db"}
	_, err = client.AppsV1().StatefulSets(n.name).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(1)), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels,
				Annotations: map[string]string{testenv.ExitAfterAnnotation: "10m"}}, Spec: corev1.PodSpec{
				NodeSelector: map[string]string{"lost": n.name},
				Containers:   []corev1.Container{{Name: "main", Image: "example/db"}},
				Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}}}},
		metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	if uid, err = n.waitForPod(ctx, ""); err != nil {
		return "", err
	}
	return uid, n.cp.CreateNodes(ctx, node(2*n.number+2))
}

// waitForPod waits until a pod other than the old one is Ready, and returns its UID.
func (n *lostNode) waitForPod(ctx context.Context, old string) (uid string, err error) {
	err = wait.PollUntilContextTimeout(ctx, pollInterval, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		p, err := n.cp.Client().CoreV1().Pods(n.name).Get(ctx, "db-0", metav1.GetOptions{})
		if err != nil || string(p.UID) == old || p.DeletionTimestamp != nil || !ready(p) {
			return false, nil
		}
		uid = string(p.UID)
		return true, nil
	})
	return uid, err
}

func (n *lostNode) deletePod(ctx context.Context) error {
	return n.cp.Client().CoreV1().Pods(n.name).Delete(ctx, "db-0",
		metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

func (n *lostNode) deleteNode(ctx context.Context) error {
	return n.cp.Client().CoreV1().Nodes().Delete(ctx, n.node.Object().Name, metav1.DeleteOptions{})
}

// handleEvent runs the handler with the event that the instance is terminated.
func (n *lostNode) handleEvent(ctx context.Context) error {
	token, err := n.cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", time.Hour)
	if err != nil {
		return err
	}
	c, err := kube.New(n.cp.TokenConfig(token))
	if err != nil {
		return err
	}
	account := spottest.NewAWS(region)
	account.AddInstance(spottest.Instance{ID: n.node.InstanceID, Spot: true, Zone: region + "a",
		Tags: map[string]string{spot.TagCluster: clusterName}})
	account.SetState(n.node.InstanceID, "terminated")
	account.Delay(spottest.AnyOperation, awsCall)
	h := &handler.Handler{Cluster: c, Cloud: account.Cloud(), Policy: spot.DefaultPolicy(clusterName)}
	return handle(ctx, h, spot.CleanedUp,
		spot.Interruption{EventID: n.name, Kind: spot.StateChange, State: "terminated",
			Instance: n.node.InstanceID, Region: region, Time: time.Now()})
}
