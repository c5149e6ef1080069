package e2e

import (
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubectl/pkg/drain"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// nthLabel is the value of the label that kOps' node termination handler sets to exclude a node from load balancers.
const nthLabel = "aws-node-termination-handler"

// kubectlDrain starts kubectl's drain library on a node, as an administrator or kOps' node termination handler would,
// and returns a function that waits for it. An error is only logged: kubectl waits for pods by name, and so also for the
// next pod of a StatefulSet.
func (r *fixture) kubectlDrain(node string) (wait func()) {
	r.Helper()
	h := &drain.Helper{Ctx: r.Context(), Client: r.client, Force: true, GracePeriodSeconds: -1,
		IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		Timeout: 12 * time.Second, EvictErrorRetryDelay: 5 * time.Second, Out: io.Discard, ErrOut: io.Discard}
	n := r.getNode(node)
	ended := make(chan error, 1)
	go func() {
		if err := drain.RunCordonOrUncordon(h, n, true); err != nil {
			ended <- err
			return
		}
		label := []byte(`{"metadata": {"labels": {"` + corev1.LabelNodeExcludeBalancers + `": "` + nthLabel + `"}}}`)
		if _, err := r.client.CoreV1().Nodes().Patch(h.Ctx, node, types.MergePatchType, label, metav1.PatchOptions{}); err != nil {
			ended <- err
			return
		}
		ended <- drain.RunNodeDrain(h, node)
	}()
	return func() {
		if err := <-ended; err != nil {
			r.Log("kubectl drain:", err)
		}
	}
}

// TestConcurrentKubectlDrain: an administrator, or kOps' node termination handler, drains the node at the same time.
// Neither drainer shortens the grace periods of the other's pods, or claims what the other has set on the node.
func TestConcurrentKubectlDrain(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]bool{"started a second earlier": true, "started a second later": false} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 2, exit: 5 * time.Second},
				app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 5 * time.Second},
				app{name: "guarded", replicas: 1, grace: 6 * time.Second, exit: 5 * time.Second},
				app{name: "slow", replicas: 1, grace: 5 * time.Minute, exit: 6 * time.Second})
			r.statefulSet(app{name: "db", replicas: 1, grace: 6 * time.Second, exit: 5 * time.Second})
			r.guard("guarded", 1)
			r.guard("slow", 1)
			r.guard("db", 1)
			long, guarded, slow, all := r.only("long"), r.only("guarded"), r.only("slow"), r.pods("")
			in := r.warning(spot.SpotTerminate, victim, 105*time.Second) // 15 s left; force-deleted in 4 s
			var other func()
			if ahead {
				other = r.kubectlDrain(victim)
				time.Sleep(time.Second)
			}
			ours := r.start(r.service(), in)
			if !ahead {
				time.Sleep(time.Second)
				other = r.kubectlDrain(victim)
			}
			out := r.outcome(<-ours, spot.Drained)
			other()

			n := r.getNode(victim)
			applied := strings.Contains(n.Annotations["kops-spot.cast.ai/applied"], "exclude-from-load-balancers")
			if n.Labels[corev1.LabelNodeExcludeBalancers] != nthLabel || applied == ahead {
				t.Errorf("it is not visible who has set what: labels %v, annotations %v", n.Labels, n.Annotations)
			}
			r.gracePeriodsKept()
			r.evictedOnce(victim)
			r.neverTwice()
			r.forceDeletedOnTime(in, guarded.Name, 6*time.Second)
			r.forceDeletedOnTime(in, "db-0", 6*time.Second)
			if ahead {
				if term := r.record(long.Name, testenv.PodSigTerm); term.Grace != 300 ||
					r.podResult(out, long).Status != spot.PodTerminated {
					t.Errorf("it had a grace period of 300 s and got %d: %+v", term.Grace, r.podResult(out, long))
				}
			} else {
				r.cappedAtDeadline(in, long.Name)
			}
			r.cappedAtDeadline(in, slow.Name)
			terms := map[string]int{}
			for _, rec := range r.kubelet(testenv.PodSigTerm) {
				terms[rec.UID]++
			}
			for _, p := range all {
				if n := terms[string(p.UID)]; n != 1 {
					t.Errorf("%s got SIGTERM %d times", p.Name, n)
				}
			}
		})
	}
}

// TestConcurrentAutoscalers: the function drains a node that an autoscaler is removing, but requests no replacement.
func TestConcurrentAutoscalers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		taint corev1.Taint
		whose string
	}{
		"cluster-autoscaler": {corev1.Taint{Key: "ToBeDeletedByClusterAutoscaler", Value: "1785000000",
			Effect: corev1.TaintEffectNoSchedule}, "cluster-autoscaler is removing the node"},
		"Karpenter": {corev1.Taint{Key: "karpenter.sh/disrupted", Effect: corev1.TaintEffectNoSchedule},
			"Karpenter is removing the node"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 2, exit: 2 * time.Second},
				app{name: "guarded", replicas: 1, grace: 2 * time.Second, exit: time.Second})
			r.guard("guarded", 1)
			guarded := r.only("guarded")
			n := r.getNode(victim)
			n.Spec.Taints = append(n.Spec.Taints, c.taint)
			if _, err := r.client.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			in := r.warning(spot.SpotTerminate, victim, 110*time.Second) // 10 s left; force-deleted in 3 s
			out := r.handle(in, spot.Drained)
			if out.Replacement.Action != spot.ReplaceNone || !strings.Contains(out.Replacement.Reason, c.whose) {
				t.Errorf("%+v", out.Replacement)
			}
			if calls := r.aws.Calls("DetachInstances"); len(calls) != 0 {
				t.Errorf("a replacement was requested: %v", calls)
			}
			taints := map[string]bool{}
			for _, taint := range r.getNode(victim).Spec.Taints {
				taints[taint.Key] = true
			}
			if !taints[c.taint.Key] || !taints["autoscaling.cast.ai/draining"] ||
				!taints[corev1.TaintNodeUnschedulable] {
				t.Errorf("the node's taints are %v", taints)
			}
			r.forceDeletedOnTime(in, guarded.Name, 2*time.Second)
			r.gracePeriodsKept()
		})
	}
}
