package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// TestGuardedPodsHaveTheirTime: whatever its budgets say, a pod gets SIGTERM, and after it as much of its grace period as a
// pod can have that is forced, before the machine ends.
func TestGuardedPodsHaveTheirTime(t *testing.T) {
	t.Parallel()
	t.Run("all of 30 s", func(t *testing.T) {
		r := newRig(t)
		victim := r.node()
		r.deploy(app{name: "guarded", replicas: 1, exit: 20 * time.Second}, app{name: "twice", replicas: 1},
			app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 3 * time.Second})
		r.guard("guarded", 1)
		r.guard("twice", 1)
		r.guardPods("twice-again", map[string]string{"app": "twice"}, 1)
		guarded, twice, long := r.only("guarded"), r.only("twice"), r.only("long")
		in := r.warning(spot.SpotTerminate, victim, 80*time.Second) // 40 s are left; to be forced 5 s from now
		out := r.handle(in, spot.Drained)
		for _, c := range []struct {
			pod     corev1.Pod
			refusal []string
		}{
			{guarded, []string{"429", "The disruption budget guarded needs 1 healthy"}},
			{twice, []string{"500", "more than one PodDisruptionBudget"}},
		} {
			r.forcedInTime(in, c.pod.Name, 30*time.Second)
			told := r.told(out, c.pod)
			if told.Status != spot.PodForceDeleted || told.Refusals == 0 {
				t.Errorf("%+v", told)
			}
			for _, want := range c.refusal {
				if !strings.Contains(told.LastRefusal, want) {
					t.Errorf("%q is not in the refusal of %s: %s", want, told.Name, told.LastRefusal)
				}
			}
		}
		if ran := r.record(guarded.Name, testenv.PodExited).Time.Sub(r.record(guarded.Name, testenv.PodSigTerm).Time); ran < 19*time.Second {
			t.Errorf("it needed 20 s, and was left %s", ran)
		}
		r.cutToTheEnd(in, long.Name)
		if told := r.told(out, long); told.Status != spot.PodEvicted {
			t.Errorf("%+v", told)
		}
		r.gracesStand()
		r.askedOnce(victim)
	})
	t.Run("60 s of 300 s", func(t *testing.T) {
		r := newRig(t)
		victim := r.node()
		r.deploy(app{name: "guarded", replicas: 1, grace: 5 * time.Minute, exit: 2 * time.Second})
		r.guard("guarded", 1)
		guarded := r.only("guarded")
		in := r.warning(spot.SpotTerminate, victim, 50*time.Second) // 70 s are left; to be forced 5 s from now
		out := r.handle(in, spot.Drained)
		r.forcedInTime(in, guarded.Name, time.Minute)
		if told := r.told(out, guarded); told.Status != spot.PodForceDeleted || told.GracePeriod != 60 {
			t.Errorf("%+v", told)
		}
		r.gracesStand()
		r.askedOnce(victim)
	})
}

// TestFinalizer: a pod whose object stays when its containers have ended is told of, and not waited for.
func TestFinalizer(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.deploy(app{name: "kept", replicas: 1, exit: time.Second}, app{name: "web", replicas: 1, exit: 2 * time.Second})
	kept := r.only("kept")
	finalizer := []byte(`{"metadata":{"finalizers":["example.com/audit"]}}`)
	if _, err := r.client.CoreV1().Pods(r.namespace).Patch(t.Context(), kept.Name, types.MergePatchType, finalizer, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	out := r.handle(r.warning(spot.SpotTerminate, victim, time.Minute), spot.Drained)
	if told := r.told(out, kept); told.Status != spot.PodStuck || told.TerminatedAt != nil || !slices.Equal(told.Finalizers, []string{"example.com/audit"}) {
		t.Errorf("%+v", told)
	}
	if r.record(kept.Name, testenv.PodSigTerm).Grace != 30 || r.record(kept.Name, testenv.PodExited).Grace != 30 {
		t.Error("it did not have its time to end")
	}
	now, err := r.client.CoreV1().Pods(r.namespace).Get(t.Context(), kept.Name, metav1.GetOptions{})
	if err != nil || now.DeletionTimestamp == nil || now.Status.Phase != corev1.PodSucceeded || !slices.Equal(now.Finalizers, []string{"example.com/audit"}) {
		t.Errorf("the object is not as its finalizer keeps it: %v, %v", now, err)
	}
	if *out.Timings.Finished > 90 {
		t.Errorf("the drain waited for the object: it ended %v s after the event", *out.Timings.Finished)
	}
}
