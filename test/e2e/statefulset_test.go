package e2e

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

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
