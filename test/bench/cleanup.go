package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
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
	fakeaws "github.com/castai/kops-spot/test/fakes/aws"
	"github.com/castai/kops-spot/test/testenv"
)

// lostNodeSizes are the sizes of the case cleanup.
type lostNodeSizes struct {
	unmount time.Duration // until the attach-detach controller force-detaches a volume; Kubernetes' default is 6 min
	rounds  int           // of kops-spot beside the cloud controller
	others  bool          // also measure without kops-spot where that takes minutes
}

const (
	// eventDelay is the time from EC2's change of the state until the function handles the event: EventBridge and
	// Lambda. Assumed.
	eventDelay = time.Second

	// checkPeriod is the time between two checks of the cloud controller.
	checkPeriod = 5 * time.Second
)

// cleanupMethod is one way to clean up after a terminated instance. The cloud controller always runs.
type cleanupMethod struct {
	name        string
	window      bool // the kubelet delays the shutdown of the instance, and the node is NotReady before it terminates
	terminating bool // the pod has a deletion timestamp when the instance terminates
	rounds      int
	do          func(n *lostNode, ctx context.Context) (first bool, err error) // nil: only the cloud controller
}

// cleanup measures how long it takes until a StatefulSet's pod with a volume is Ready again after its instance
// terminates. It uses its own control plane, whose node lifecycle controller watches heartbeats.
func (b *bench) cleanup(ctx context.Context) (_ []table, err error) {
	cp, err := testenv.StartControlPlane(ctx, testenv.Options{Log: b.log, MaxWaitForUnmount: b.lost.unmount})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cp.Stop()) }()
	if err := cp.Apply(ctx, deploy.RBAC); err != nil {
		return nil, err
	}
	account := spottest.NewAWS(region)
	account.Delay(spottest.AnyOperation, awsCall)
	server, err := fakeaws.Start(account, 0)
	if err != nil {
		return nil, err
	}
	defer server.Close()
	few := min(b.lost.rounds, 5)
	methods := []cleanupMethod{
		{name: "kops-spot, window of 30 s", window: true, rounds: b.lost.rounds, do: (*lostNode).handleEvent},
		{name: "without kops-spot, window of 30 s", window: true, rounds: few},
		{name: "kops-spot, no window", rounds: few, do: (*lostNode).handleEvent},
		{name: "the same, with a pod that was already terminating", terminating: true, rounds: few,
			do: (*lostNode).handleEvent},
	}
	if b.lost.others {
		methods = append(methods,
			cleanupMethod{name: "without kops-spot, no window", rounds: few},
			cleanupMethod{name: "the same, pod force-deleted as with kubectl delete --force", rounds: few,
				do: (*lostNode).deletePod})
	}
	t := table{title: fmt.Sprintf("a StatefulSet's pod with a volume, on a terminated instance; "+
		"volumes are force-detached after %s (default: 6 min)", b.lost.unmount),
		columns: []column{{name: "next pod Ready after", unit: seconds}, {name: "shortest", unit: seconds, plain: true},
			{name: "longest", unit: seconds, plain: true}, {name: "trials", plain: true},
			{name: "kops-spot came first", plain: true}, {name: "the cloud controller came first", plain: true}}}
	number := 0
	for _, m := range methods {
		times, first := make([]float64, m.rounds), make([]bool, m.rounds)
		var group errgroup.Group
		group.SetLimit(5)
		for i := range m.rounds {
			n := &lostNode{cp: cp, account: account, ec2: server.URL(), name: fmt.Sprintf("lost-%d", number), number: number}
			number++
			group.Go(func() error {
				took, ours, err := n.try(ctx, m)
				if err != nil {
					return fmt.Errorf("%s: %w", m.name, err)
				}
				b.logf("cleanup, %s: %.2f s, kops-spot first: %v", m.name, took.Seconds(), ours)
				times[i], first[i] = took.Seconds(), ours
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		ours := 0
		for _, f := range first {
			if f {
				ours++
			}
		}
		t.rows = append(t.rows, row{m.name, []float64{median(times), slices.Min(times), slices.Max(times),
			float64(m.rounds), float64(ours), float64(m.rounds - ours)}})
	}
	return []table{t}, nil
}

// lostNode is one trial, with its own namespace and nodes.
type lostNode struct {
	cp      *testenv.ControlPlane
	account *spottest.AWS
	ec2     string // URL of the account's endpoint
	name    string
	number  int
	node    testenv.Node
}

// try ends the instance and measures the time from EC2's report that it is terminated until the next pod is Ready. ours
// reports whether kops-spot came before the cloud controller.
func (n *lostNode) try(ctx context.Context, m cleanupMethod) (_ time.Duration, ours bool, err error) {
	stop := time.Second
	if m.terminating {
		stop = 10 * time.Minute
	}
	uid, err := n.setUp(ctx, stop)
	if err != nil {
		return 0, false, err
	}
	name := n.node.Object().Name
	// Cordon, as after a warning: without a window, the node stays Ready for most of a minute and could get the next pod.
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := n.cp.Client().CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, cordon,
		metav1.PatchOptions{}); err != nil {
		return 0, false, err
	}
	if m.terminating {
		options := metav1.DeleteOptions{GracePeriodSeconds: new(int64(600))}
		if err := n.cp.Client().CoreV1().Pods(n.name).Delete(ctx, "db-0", options); err != nil {
			return 0, false, err
		}
	}
	n.account.SetState(n.node.InstanceID, "shutting-down")
	ordinary, critical := ordinaryWindow, criticalWindow
	if !m.window {
		ordinary, critical = 0, 0
	}
	if err := n.cp.ShutDown(ctx, name, ordinary, critical); err != nil {
		return 0, false, err
	}
	// EC2 does not wait for the cloud controller: the instance terminates at any moment between two checks.
	if err := sleep(ctx, time.Second+rand.N(checkPeriod)); err != nil {
		return 0, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	n.account.SetState(n.node.InstanceID, "terminated")
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		err := sleep(ctx, eventDelay)
		if err == nil && m.do != nil {
			ours, err = m.do(n, ctx)
		}
		done <- err
	}()
	if _, err := n.waitForPod(ctx, uid); err != nil {
		return 0, false, err
	}
	took := time.Since(began)
	err = <-done
	return took, ours, err
}

// setUp creates a node with the pod and its volume, then a node for the next pod. It returns the pod's UID. The pod
// stops that long after SIGTERM.
func (n *lostNode) setUp(ctx context.Context, stop time.Duration) (uid string, err error) {
	client := n.cp.Client()
	if err := n.cp.CreateNamespace(ctx, n.name); err != nil {
		return "", err
	}
	node := func(i int) testenv.Node {
		node := testenv.Node{InstanceID: fmt.Sprintf("i-%017x", 0xdead000+i), PrivateIP: fmt.Sprintf("10.9.0.%d", i),
			EC2: n.ec2, Labels: map[string]string{"lost": n.name}}
		n.account.AddInstance(spottest.Instance{ID: node.InstanceID, Spot: true, Zone: region + "a",
			Tags: map[string]string{spot.TagCluster: clusterName}})
		return node
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
				Annotations: map[string]string{testenv.ExitAfterAnnotation: stop.String()}}, Spec: corev1.PodSpec{
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

func (n *lostNode) deletePod(ctx context.Context) (bool, error) {
	return false, n.cp.Client().CoreV1().Pods(n.name).Delete(ctx, "db-0",
		metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

// handleEvent runs the handler with the event that the instance is terminated, and reports whether it found the node.
func (n *lostNode) handleEvent(ctx context.Context) (first bool, err error) {
	token, err := n.cp.ServiceAccountToken(ctx, "kube-system", "kops-spot", time.Hour)
	if err != nil {
		return false, err
	}
	c, err := kube.New(n.cp.TokenConfig(token))
	if err != nil {
		return false, err
	}
	h := &handler.Handler{Cluster: c, Cloud: n.account.Cloud(), Policy: spot.DefaultPolicy(clusterName)}
	out, err := h.Handle(ctx, spot.Interruption{EventID: n.name, Kind: spot.StateChange, State: "terminated",
		Instance: n.node.InstanceID, Region: region, Time: time.Now()})
	if err != nil || out.Cleanup == nil {
		return false, cmp.Or(err, fmt.Errorf("result of %s: %s: %s", n.name, out.Result, out.Reason))
	}
	return out.Cleanup.Tainted != nil, nil
}
