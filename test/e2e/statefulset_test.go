package e2e

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// statefulSet creates a StatefulSet that starts its pods side by side, and waits until all are Ready.
func (r *fixture) statefulSet(a app) {
	r.Helper()
	_, err := r.client.AppsV1().StatefulSets(r.namespace).Create(r.Context(), &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: a.name},
		Spec: appsv1.StatefulSetSpec{Replicas: &a.replicas, PodManagementPolicy: appsv1.ParallelPodManagement, ServiceName: a.name,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.name}}, Template: r.template(a)}}, metav1.CreateOptions{})
	if err != nil {
		r.Fatal(err)
	}
	r.waitReady(a.name, int(a.replicas))
}

// TestStatefulSetsPodsAreNeverStartedTwice: a pod of the same name starts elsewhere only when the containers of the one
// before have ended, even if that was deleted past its budget, and if another invocation comes late.
func TestStatefulSetsPodsAreNeverStartedTwice(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.statefulSet(app{name: "db", replicas: 2, grace: 6 * time.Second, exit: 3 * time.Second})
	r.statefulSet(app{name: "cache", replicas: 2, grace: 5 * time.Minute, exit: 7 * time.Second})
	r.guard("db", 2)
	before := r.pods("app in (db, cache)")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 105*time.Second) // 15 s are left; to be forced 4 s from now
	first := r.start(s, in)
	r.record("db-0", testenv.PodSigTerm)
	late := in
	late.Time = in.Time.Add(-5 * time.Second) // of its time less is left than any pod was given
	second := r.start(s, late)
	out := r.outcome(<-first, spot.Drained)
	r.outcome(<-second, spot.Drained)
	for _, p := range before {
		want := spot.PodEvicted
		if p.Labels["app"] == "db" {
			want = spot.PodForceDeleted
		}
		if told := r.told(out, p); told.Status != want {
			t.Errorf("%+v", told)
		}
	}
	r.forcedInTime(in, "db-0", 6*time.Second)
	r.forcedInTime(in, "db-1", 6*time.Second)
	r.waitReady("db", 2)
	r.waitReady("cache", 2)
	if n := r.neverTwice(); n != 4 {
		t.Errorf("%d pods were started in the place of others, want 4", n)
	}
	r.gracesStand()
	r.askedOnce(victim)
}
