package stage

import (
	"cmp"
	"context"
	"fmt"
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

// Scene is what a contender finds: nodes that are all warned at once, with fresh pods that are Ready. The pods have no
// owner and are bound from the start, so that no successors and no scheduler take part in what is measured.
type Scene struct {
	Nodes   []testenv.Node
	Pods    int           // on each node
	Stop    time.Duration // from a pod's SIGTERM to its exit
	Grace   time.Duration // of each pod; 30 s if zero
	Guarded bool          // the first pod of each node is guarded by a budget that never lets it go
	Left    time.Duration // until the machines end; EC2's two minutes if zero
	Away    time.Duration // the round trip to the API server, on top of that on this machine
}

func (sc Scene) left() time.Duration { return cmp.Or(sc.Left, 2*time.Minute) }

// Pod is a pod of a scene.
type Pod struct {
	UID, Node string
}

// writers is how many requests set a scene at once.
const writers = 32

// set makes the scene as if nothing had been played before.
func (s *Stage) set(ctx context.Context, sc Scene, serial int) ([]Pod, error) {
	if err := s.clear(ctx); err != nil {
		return nil, fmt.Errorf("clearing the stage: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(writers)
	pods := make([]Pod, len(sc.Nodes)*sc.Pods)
	for i, n := range sc.Nodes {
		group.Go(func() error { return s.restore(ctx, n) })
		for j := range sc.Pods {
			at := i*sc.Pods + j
			group.Go(func() error {
				pod, err := s.client.CoreV1().Pods(namespace).Create(ctx, sc.pod(serial, i, j), metav1.CreateOptions{})
				if err != nil {
					return err
				}
				pods[at] = Pod{UID: string(pod.UID), Node: pod.Spec.NodeName}
				return nil
			})
		}
	}
	if sc.Guarded {
		group.Go(func() error { return s.guard(ctx, serial) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("setting the scene: %w", err)
	}
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, false, func(ctx context.Context) (bool, error) {
		return s.isSet(ctx, sc)
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for the scene's pods to be Ready: %w", err)
	}
	return pods, nil
}

func (s *Stage) clear(ctx context.Context) error {
	now := int64(0)
	all := metav1.DeleteOptions{GracePeriodSeconds: &now}
	if err := s.client.PolicyV1().PodDisruptionBudgets(namespace).DeleteCollection(ctx, all, metav1.ListOptions{}); err != nil {
		return err
	}
	if err := s.client.CoreV1().Pods(namespace).DeleteCollection(ctx, all, metav1.ListOptions{}); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		left, err := s.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(left.Items) == 0, err
	})
}

// restore takes from a node whatever contenders left on it.
func (s *Stage) restore(ctx context.Context, n testenv.Node) error {
	fresh := n.Object()
	for {
		node, err := s.client.CoreV1().Nodes().Get(ctx, fresh.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Labels, node.Annotations = fresh.Labels, fresh.Annotations
		node.Spec.Taints, node.Spec.Unschedulable = fresh.Spec.Taints, false
		if _, err = s.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}

func (sc Scene) pod(serial, node, number int) *corev1.Pod {
	grace := int64(cmp.Or(sc.Grace, 30*time.Second) / time.Second)
	labels := map[string]string{}
	if sc.Guarded && number == 0 {
		labels["guarded"] = fmt.Sprint(serial)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("run%d-node%d-pod%d", serial, node, number), Labels: labels,
			Annotations: map[string]string{testenv.ReadyAfterAnnotation: "1ms", testenv.ExitAfterAnnotation: sc.Stop.String()}},
		Spec: corev1.PodSpec{NodeName: sc.Nodes[node].Object().Name, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "example/app"}}},
	}
}

func (s *Stage) guard(ctx context.Context, serial int) error {
	all := intstr.FromInt32(1 << 20) // more than there are
	_, err := s.client.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("run%d", serial)},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &all,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"guarded": fmt.Sprint(serial)}}}}, metav1.CreateOptions{})
	return err
}

// isSet says whether every pod is Ready and every budget has seen its pods.
func (s *Stage) isSet(ctx context.Context, sc Scene) (bool, error) {
	pods, err := s.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	ready := 0
	for _, p := range pods.Items {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready < len(sc.Nodes)*sc.Pods || !sc.Guarded {
		return ready == len(sc.Nodes)*sc.Pods, nil
	}
	budgets, err := s.client.PolicyV1().PodDisruptionBudgets(namespace).List(ctx, metav1.ListOptions{})
	return err == nil && len(budgets.Items) == 1 && int(budgets.Items[0].Status.CurrentHealthy) == len(sc.Nodes), err
}
