package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/castai/kops-spot/test/testenv"
)

// scenario is a set of nodes with new Ready pods that all get a warning at once. The pods have no owner and are created
// with a node name, so that neither replacement pods nor the scheduler affect the results.
type scenario struct {
	nodes    []testenv.Node
	pods     int           // on each node
	stop     time.Duration // from a pod's SIGTERM to its exit
	grace    time.Duration // of each pod; 30 s if zero
	guarded  bool          // a PodDisruptionBudget never allows the eviction of each node's first pod
	timeLeft time.Duration // until the instances terminate; EC2's two minutes if zero
	latency  time.Duration // added to each round trip to the API server
}

// pod is a pod of a scenario.
type pod struct {
	uid, node string
}

// trial is one drainer's run of a scenario.
type trial struct {
	title    string // of the comparison
	drainer  string
	id       string // the user agent of all its requests
	scenario scenario
	pods     []pod
	start    time.Time     // when the drainer got the event
	end      time.Time     // of the instances; when their power was cut, if they were shut down
	returned time.Duration // from start until the drainer returned
	received int64         // bytes on the wire, encrypted and possibly compressed
	failed   []error       // one for each node that was not drained
	stats    stats
}

// try sets up the scenario and runs the drainer.
func (c *cluster) try(ctx context.Context, d drainer, sc scenario) (t trial, err error) {
	if d.nodes != nil {
		sc.nodes = d.nodes
	}
	c.trials++
	t = trial{drainer: d.name, id: fmt.Sprintf("bench/%d", c.trials), scenario: sc}
	if t.pods, err = c.setUp(ctx, sc, c.trials); err != nil {
		return t, err
	}
	// Each trial has its own proxy, which counts the bytes received and closes all connections at the end. An unused
	// client would otherwise keep them open and keep pinging the server.
	proxy, err := testenv.StartProxy(strings.TrimPrefix(c.cp.AdminConfig().Host, "https://"), sc.latency)
	if err != nil {
		return t, err
	}
	defer proxy.Close()
	timeLeft := cmp.Or(sc.timeLeft, notice)
	drain, err := d.prepare(ctx, target{nodes: sc.nodes, timeLeft: timeLeft, server: "https://" + proxy.Addr(),
		ca: c.cp.AdminConfig().CAData, token: c.token, userAgent: t.id})
	if err != nil {
		return t, fmt.Errorf("preparing %s: %w", d.name, err)
	}
	// Let the control plane finish the work that the setup caused.
	if err := sleep(ctx, 300*time.Millisecond); err != nil {
		return t, err
	}
	before := proxy.Answered()
	t.start = time.Now()
	t.end = t.start.Add(timeLeft)
	down := make(chan error, 1)
	cut := t.end
	if sc.guarded {
		go func() {
			var err error
			cut, err = c.shutDown(ctx, sc.nodes, t.end, d.window)
			down <- err
		}()
	} else {
		down <- nil
	}
	t.failed = drain(ctx, t.end.Add(-notice))
	t.returned = time.Since(t.start)
	t.received = proxy.Answered() - before
	if err := <-down; err != nil {
		return t, err
	}
	t.end = cut
	if err := c.boot(ctx, sc); err != nil {
		return t, err
	}
	return t, c.waitForPods(ctx, "terminated", sc.stop+time.Minute, func(now []corev1.Pod) bool {
		return !slices.ContainsFunc(now, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	})
}

// shutDown shuts the instances down at that time, and returns when their power was cut.
func (c *cluster) shutDown(ctx context.Context, nodes []testenv.Node, at time.Time, window bool) (time.Time, error) {
	if err := sleep(ctx, time.Until(at)); err != nil {
		return at, err
	}
	ordinary, critical := ordinaryWindow, criticalWindow
	if !window {
		ordinary, critical = 0, 0
	}
	for _, n := range nodes {
		if err := c.cp.ShutDown(ctx, n.Object().Name, ordinary, critical); err != nil {
			return at, err
		}
	}
	return time.Now(), nil
}

// boot boots the instances of a scenario that has shut them down.
func (c *cluster) boot(ctx context.Context, sc scenario) error {
	if !sc.guarded {
		return nil
	}
	for _, n := range sc.nodes {
		name := n.Object().Name
		if err := c.cp.PowerOn(ctx, name); err != nil {
			return err
		}
		err := wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true, func(ctx context.Context) (bool, error) {
			node, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			return err == nil && testenv.NodeReady(node), err
		})
		if err != nil {
			return fmt.Errorf("waiting for node %s to be Ready again: %w", name, err)
		}
	}
	return nil
}

// setUp restores the nodes, creates the pods and waits until they are Ready.
func (c *cluster) setUp(ctx context.Context, sc scenario, serial int) ([]pod, error) {
	if err := c.deletePods(ctx); err != nil {
		return nil, fmt.Errorf("deleting the pods of the previous trial: %w", err)
	}
	for _, n := range sc.nodes {
		if err := c.restore(ctx, n); err != nil {
			return nil, err
		}
	}
	pods, err := c.createPods(ctx, sc, serial)
	if err != nil {
		return nil, err
	}
	if sc.guarded {
		if err := c.guard(ctx, serial); err != nil {
			return nil, err
		}
	}
	if err := c.waitUntilReady(ctx, len(pods)); err != nil || !sc.guarded {
		return pods, err
	}
	return pods, wait.PollUntilContextTimeout(ctx, pollInterval, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			budget, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).Get(ctx, fmt.Sprintf("run%d", serial),
				metav1.GetOptions{})
			return err == nil && int(budget.Status.CurrentHealthy) == len(sc.nodes), err
		})
}

// createPods creates the pods of a scenario and does not wait until they are Ready.
func (c *cluster) createPods(ctx context.Context, sc scenario, serial int) ([]pod, error) {
	var group errgroup.Group
	group.SetLimit(32)
	pods := make([]pod, len(sc.nodes)*sc.pods)
	for i := range pods {
		group.Go(func() error {
			p, err := c.client.CoreV1().Pods(namespace).Create(ctx, sc.pod(serial, i/sc.pods, i%sc.pods),
				metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("creating the scenario's pods: %w", err)
			}
			pods[i] = pod{uid: string(p.UID), node: p.Spec.NodeName}
			return nil
		})
	}
	return pods, group.Wait()
}

// waitUntilReady waits until there are n pods and all are Ready.
func (c *cluster) waitUntilReady(ctx context.Context, n int) error {
	return c.waitForPods(ctx, "Ready", time.Minute, func(now []corev1.Pod) bool {
		return len(now) == n && !slices.ContainsFunc(now, func(p corev1.Pod) bool { return !ready(&p) })
	})
}

func (c *cluster) deletePods(ctx context.Context) error {
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}
	if err := c.client.PolicyV1().PodDisruptionBudgets(namespace).DeleteCollection(ctx, now,
		metav1.ListOptions{}); err != nil {
		return err
	}
	if err := c.client.CoreV1().Pods(namespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
		return err
	}
	return c.waitForPods(ctx, "gone", time.Minute, func(now []corev1.Pod) bool { return len(now) == 0 })
}

// restore removes what drainers have changed on a node.
func (c *cluster) restore(ctx context.Context, n testenv.Node) error {
	original := n.Object()
	for {
		node, err := c.client.CoreV1().Nodes().Get(ctx, original.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Labels, node.Annotations = original.Labels, original.Annotations
		node.Spec.Taints, node.Spec.Unschedulable = original.Spec.Taints, false
		if _, err = c.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

func (sc scenario) pod(serial, node, number int) *corev1.Pod {
	labels := map[string]string{}
	if sc.guarded && number == 0 {
		labels["guarded"] = fmt.Sprint(serial)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("run%d-node%d-pod%d", serial, node, number), Labels: labels,
			Annotations: map[string]string{testenv.ReadyAfterAnnotation: "1ms",
				testenv.ExitAfterAnnotation: sc.stop.String()}},
		Spec: corev1.PodSpec{NodeName: sc.nodes[node].Object().Name,
			TerminationGracePeriodSeconds: new(int64(cmp.Or(sc.grace, 30*time.Second) / time.Second)),
			Containers:                    []corev1.Container{{Name: "main", Image: "example/app"}}},
	}
}

func (c *cluster) guard(ctx context.Context, serial int) error {
	_, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("run%d", serial)},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1 << 20)), // more than there are
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"guarded": fmt.Sprint(serial)}}}},
		metav1.CreateOptions{})
	return err
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
