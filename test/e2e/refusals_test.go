package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// TestGuardedPodsGetTheirGracePeriod: whatever its budgets allow, a pod gets SIGTERM and, before the deadline, as much
// of its grace period as a force-deleted pod can have.
func TestGuardedPodsGetTheirGracePeriod(t *testing.T) {
	t.Parallel()
	t.Run("all of 30 s", func(t *testing.T) {
		r := newFixture(t)
		victim := r.node()
		r.deploy(app{name: "guarded", replicas: 1, exit: 20 * time.Second}, app{name: "twice", replicas: 1},
			app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 3 * time.Second})
		r.guard("guarded", 1)
		r.guard("twice", 1)
		r.guardPods("twice-again", map[string]string{"app": "twice"}, 1)
		guarded, twice, long := r.only("guarded"), r.only("twice"), r.only("long")
		in := r.warning(spot.SpotTerminate, victim, 80*time.Second) // 40 s left; force-deleted in 5 s
		out := r.handle(in, spot.Drained)
		for _, c := range []struct {
			pod     corev1.Pod
			refusal []string
		}{
			{guarded, []string{"429", "The disruption budget guarded needs 1 healthy"}},
			{twice, []string{"500", "more than one PodDisruptionBudget"}},
		} {
			r.forceDeletedOnTime(in, c.pod.Name, 30*time.Second)
			got := r.podResult(out, c.pod)
			if got.Status != spot.PodForceDeleted || got.Refusals == 0 {
				t.Errorf("%+v", got)
			}
			for _, want := range c.refusal {
				if !strings.Contains(got.LastRefusal, want) {
					t.Errorf("%q is not in the refusal of %s: %s", want, got.Name, got.LastRefusal)
				}
			}
		}
		if ran := r.record(guarded.Name,
			testenv.PodExited).Time.Sub(r.record(guarded.Name, testenv.PodSigTerm).Time); ran < 19*time.Second {
			t.Errorf("it needed 20 s and got %s", ran)
		}
		r.cappedAtDeadline(in, long.Name)
		if got := r.podResult(out, long); got.Status != spot.PodEvicted {
			t.Errorf("%+v", got)
		}
		r.gracePeriodsKept()
		r.evictedOnce(victim)
	})
	t.Run("60 s of 300 s", func(t *testing.T) {
		r := newFixture(t)
		victim := r.node()
		r.deploy(app{name: "guarded", replicas: 1, grace: 5 * time.Minute, exit: 2 * time.Second})
		r.guard("guarded", 1)
		guarded := r.only("guarded")
		in := r.warning(spot.SpotTerminate, victim, 50*time.Second) // 70 s left; force-deleted in 5 s
		out := r.handle(in, spot.Drained)
		r.forceDeletedOnTime(in, guarded.Name, time.Minute)
		if got := r.podResult(out, guarded); got.Status != spot.PodForceDeleted || got.GracePeriod != 60 {
			t.Errorf("%+v", got)
		}
		r.gracePeriodsKept()
		r.evictedOnce(victim)
	})
}

// TestShutdownWindow: with a window of 20 s, a pod with that grace period serves until its budget allows its eviction, or
// until the deadline: then its kubelet gives it SIGTERM and 20 s. Critical pods are force-deleted all the same.
func TestShutdownWindow(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	const window = 20 * time.Second
	r.env["KOPS_SPOT_SHUTDOWN_GRACE"] = window.String()
	r.deploy(app{name: "allowed", replicas: 1, grace: window, exit: 2 * time.Second},
		app{name: "guarded", replicas: 1, grace: window, exit: 3 * time.Second},
		app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 35 * time.Second})
	vital := r.template(app{name: "vital", grace: window, exit: time.Second})
	vital.Spec.PriorityClassName = "system-cluster-critical"
	r.createPod("vital", vital)
	r.waitReady("vital", 1)
	lift := r.guard("allowed", 1)
	r.guard("guarded", 1)
	r.guard("vital", 1)
	allowed, guarded, long := r.only("allowed"), r.only("guarded"), r.only("long")
	in := r.warning(spot.SpotTerminate, victim, 90*time.Second) // 30 s left; without the window, force-deleted in 5 s
	lifted := in.Time.Add(notice - 11*time.Second)
	lifting := time.AfterFunc(time.Until(lifted), lift)
	defer lifting.Stop()
	out := r.handle(in, spot.Drained)
	must(t, r.cp.ShutDown(t.Context(), victim, window, window/2))

	if got := r.podResult(out, allowed); got.Status != spot.PodEvicted || got.Refusals == 0 {
		t.Errorf("%+v", got)
	}
	if term, ok := r.sigterm(allowed.Name); ok && (term.Time.Before(lifted) || term.Grace != 20) {
		t.Errorf("%+v, want SIGTERM with 20 s after the budget was lifted", term)
	}
	deadline := in.Time.Add(notice)
	if got := r.podResult(out, guarded); got.Status != spot.PodLeftToKubelet || got.RequestedAt != nil {
		t.Errorf("%+v", got)
	}
	if term, ok := r.sigterm(guarded.Name); ok && (term.Time.Before(deadline) || term.Grace != 20) {
		t.Errorf("%+v, want SIGTERM with 20 s after the deadline", term)
	}
	if got := r.podResult(out, long); got.Status != spot.PodLeftToKubelet || got.GracePeriod < 35 {
		t.Errorf("%+v", got)
	}
	r.forceDeletedOnTime(in, "vital", window)
	for _, pod := range []string{allowed.Name, guarded.Name, long.Name, "vital"} {
		r.record(pod, testenv.PodExited)
	}
	if want := "2 pods left to the kubelet's shutdown window"; out.Reason != want {
		t.Errorf("the reason is %q, want %q", out.Reason, want)
	}
	for _, q := range r.requests(victim) {
		if q.Resource == "pods" && q.Verb != "get" && q.Verb != "list" && q.Verb != "watch" && q.Received.After(deadline) {
			t.Errorf("%s %s %s after the deadline", q.Received.Sub(deadline), q.Verb, q.URI)
		}
	}
	r.evictedOnce(victim)
}

// TestFinalizer: the function reports a pod whose object stays after its containers have exited, and does not wait for
// it.
func TestFinalizer(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "kept", replicas: 1, exit: time.Second}, app{name: "web", replicas: 1, exit: 2 * time.Second})
	kept := r.only("kept")
	finalizer := []byte(`{"metadata":{"finalizers":["example.com/audit"]}}`)
	if _, err := r.client.CoreV1().Pods(r.namespace).Patch(t.Context(), kept.Name, types.MergePatchType, finalizer,
		metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	out := r.handle(r.warning(spot.SpotTerminate, victim, time.Minute), spot.Drained)
	if got := r.podResult(out, kept); got.Status != spot.PodStuck || got.TerminatedAt != nil ||
		!slices.Equal(got.Finalizers, []string{"example.com/audit"}) {
		t.Errorf("%+v", got)
	}
	if r.record(kept.Name, testenv.PodSigTerm).Grace != 30 || r.record(kept.Name, testenv.PodExited).Grace != 30 {
		t.Error("it did not get its grace period")
	}
	now, err := r.client.CoreV1().Pods(r.namespace).Get(t.Context(), kept.Name, metav1.GetOptions{})
	if err != nil || now.DeletionTimestamp == nil || now.Status.Phase != corev1.PodSucceeded ||
		!slices.Equal(now.Finalizers, []string{"example.com/audit"}) {
		t.Errorf("the finalizer did not keep the object: %v, %v", now, err)
	}
	if *out.Timings.Finished > 90 {
		t.Errorf("the drain waited for the object: it ended %v s after the event", *out.Timings.Finished)
	}
}

// statefulSet creates a StatefulSet with parallel pod management and waits until all pods are Ready.
func (r *fixture) statefulSet(a app) {
	r.Helper()
	_, err := r.client.AppsV1().StatefulSets(r.namespace).Create(r.Context(),
		&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: a.name},
			Spec: appsv1.StatefulSetSpec{Replicas: &a.replicas, PodManagementPolicy: appsv1.ParallelPodManagement,
				ServiceName: a.name,
				Selector:    &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}},
				Template:    r.template(a)}},
		metav1.CreateOptions{})
	must(r, err)
	r.waitReady(a.name, int(a.replicas))
}

// TestStatefulSetPodsNeverRunTwice: a pod starts elsewhere only after the containers of its predecessor have exited,
// even if that was force-deleted or another invocation follows.
func TestStatefulSetPodsNeverRunTwice(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.statefulSet(app{name: "db", replicas: 2, grace: 6 * time.Second, exit: 3 * time.Second})
	r.statefulSet(app{name: "cache", replicas: 2, grace: 5 * time.Minute, exit: 7 * time.Second})
	r.guard("db", 2)
	before := r.pods("app in (db, cache)")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 105*time.Second) // 15 s left; force-deleted in 4 s
	first := r.start(s, in)
	r.record("db-0", testenv.PodSigTerm)
	late := in
	late.Time = in.Time.Add(-5 * time.Second) // leaves less time than any pod got
	second := r.start(s, late)
	out := r.outcome(<-first, spot.Drained)
	r.outcome(<-second, spot.Drained)
	for _, p := range before {
		want := spot.PodEvicted
		if p.Labels["app"] == "db" {
			want = spot.PodForceDeleted
		}
		if got := r.podResult(out, p); got.Status != want {
			t.Errorf("%+v", got)
		}
	}
	r.forceDeletedOnTime(in, "db-0", 6*time.Second)
	r.forceDeletedOnTime(in, "db-1", 6*time.Second)
	r.waitReady("db", 2)
	r.waitReady("cache", 2)
	if n := r.neverTwice(); n != 4 {
		t.Errorf("%d pods were replaced, want 4", n)
	}
	r.gracePeriodsKept()
	r.evictedOnce(victim)
}
