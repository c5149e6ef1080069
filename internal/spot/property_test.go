package spot_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// iterations is the number of random inputs per property.
const iterations = 20_000

// random generates inputs. The same seed generates the same inputs.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, seed))} }

func (r random) oneIn(n int) bool { return r.IntN(n) == 0 }

func (r random) pod() spot.Pod {
	kinds := []string{"", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"}
	owner := spot.Owner{Kind: kinds[r.IntN(len(kinds))]}
	if owner.Kind != "" {
		owner.Name, owner.UID = "owner", string(rune('a'+r.IntN(5)))
	}
	return spot.Pod{Namespace: "n", Name: string(rune('a' + r.IntN(26))), UID: string(rune('a' + r.IntN(26))),
		GracePeriod: time.Duration(r.IntN(700)) * time.Second, Terminating: r.oneIn(4), Finished: r.oneIn(6),
		Mirror: r.oneIn(8), Owner: owner, ToleratesCordon: r.oneIn(3), Volumes: r.oneIn(3), Critical: r.oneIn(5)}
}

// plan returns a plan and a time before its end.
func (r random) plan() (spot.Plan, time.Time) {
	kinds := []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate}
	in := warning(kinds[r.IntN(len(kinds))])
	now := eventTime.Add(time.Duration(r.Int64N(int64(19 * time.Second))))
	limit := time.Time{}
	if r.oneIn(3) {
		limit = now.Add(time.Duration(1+r.IntN(200)) * time.Second)
	}
	plan := spot.DefaultPolicy(cluster).Plan(in, newTarget(), now, limit)
	return plan, now.Add(time.Duration(r.Int64N(int64(plan.Until.Sub(now)))))
}

// node returns a node with some of what Cordon adds, unchanged or changed.
func (r random) node() spot.Node {
	n := spot.Node{Name: "n", Unschedulable: r.oneIn(3), Labels: map[string]string{}, Annotations: map[string]string{}}
	values := []string{"", "true", "spot-interruption", "x"}
	for _, key := range []string{drainingKey, excludeLBKey, "team"} {
		if r.oneIn(2) {
			n.Labels[key] = values[r.IntN(len(values))]
		}
	}
	for _, key := range []string{"kops-spot.cast.air", "cast.ai/deadline"} {
		if r.oneIn(2) {
			n.Annotations[key] = values[r.IntN(len(values))]
		}
	}
	for _, key := range []string{unschedulableKey, drainingKey, outOfServiceKey, "dedicated"} {
		for _, effect := range []string{"NoSchedule", "PreferNoSchedule", "NoExecute"} {
			if r.oneIn(5) {
				n.Taints = append(n.Taints, spot.Taint{Key: key, Value: values[r.IntN(len(values))], Effect: effect})
			}
		}
	}
	r.Shuffle(len(n.Taints), func(i, j int) { n.Taints[i], n.Taints[j] = n.Taints[j], n.Taints[i] })
	return n
}

func TestPropertyNeverEvicted(t *testing.T) {
	r := newRandom(1)
	for range iterations {
		plan, now := r.plan()
		pod := r.pod()
		got := plan.ForPod(pod, now)
		never := pod.Terminating || pod.Finished || pod.Mirror || pod.Owner.Kind == "DaemonSet"
		if got.Action == spot.PodEvict && never || got.Reason == "" {
			t.Fatalf("%+v: got %+v", pod, got)
		}
	}
}

// TestPropertyForceDeletion checks that a pod that is force-deleted on time gets its grace period, up to ForceGrace,
// before the reserve, that one force-deleted late gets the remaining time, and that none is force-deleted early or
// without a refusal.
func TestPropertyForceDeletion(t *testing.T) {
	r := newRandom(2)
	policy := spot.DefaultPolicy(cluster)
	for range iterations {
		plan, now := r.plan()
		pod := r.pod()
		podPlan := plan.ForPod(pod, now)
		if podPlan.Action != spot.PodEvict {
			continue
		}
		forceAt, forced := podPlan.ForceAt, !podPlan.ForceAt.IsZero()
		grace := max(min(pod.GracePeriod, policy.ForceGrace), time.Second)
		if forced && forceAt.Add(grace+policy.Reserve).After(plan.Deadline) {
			t.Fatalf("grace period %s: got force deletion after %s, too late", pod.GracePeriod, forceAt.Sub(eventTime))
		}
		got := plan.Request(pod, now, 1+r.IntN(9))
		switch {
		case got.Delete && (!forced || now.Before(forceAt)):
			t.Fatalf("got force deletion after %s, want after %s", now.Sub(eventTime), forceAt.Sub(eventTime))
		case got.GracePeriod < time.Second, got.GracePeriod > max(pod.GracePeriod, time.Second):
			t.Fatalf("grace period %s: got %s", pod.GracePeriod, got.GracePeriod)
		case got.Exact != (got.GracePeriod < pod.GracePeriod):
			t.Fatalf("grace period %s cut to %s: got exact %v", pod.GracePeriod, got.GracePeriod, got.Exact)
		case forced && got.GracePeriod > time.Second && now.Add(got.GracePeriod).After(plan.Deadline):
			t.Fatalf("got grace period %s after %s, past the deadline", got.GracePeriod, now.Sub(eventTime))
		}
		if plan.Request(pod, now, 0).Delete {
			t.Fatal("got a force deletion without a refusal")
		}
	}
}

func TestPropertyNextAttempt(t *testing.T) {
	r := newRandom(3)
	for range iterations {
		plan, now := r.plan()
		pod := r.pod()
		refused := spot.EvictionRequest{Delete: r.IntN(2) == 0}
		next, ok := plan.NextAttempt(pod, refused, now, 1+r.IntN(70), time.Duration(r.IntN(90))*time.Second)
		if ok && (!next.Before(plan.Until) || next.Before(now) || refused.Delete && !next.After(now)) {
			t.Fatalf("refused after %s: got next attempt after %s, want before %s",
				now.Sub(eventTime), next.Sub(eventTime), plan.Until.Sub(eventTime))
		}
	}
}

func TestPropertySummary(t *testing.T) {
	r := newRandom(4)
	for range iterations / 100 {
		plan, now := r.plan()
		pods := make([]spot.Pod, 40)
		for i := range pods {
			pods[i] = r.pod()
			pods[i].UID = string(rune('A'+i/26)) + string(rune('a'+i%26))
		}
		want := plan.Summary(warning(spot.SpotTerminate), true, pods, now)
		r.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		if got := plan.Summary(warning(spot.SpotTerminate), true, pods, now); !reflect.DeepEqual(got, want) {
			t.Fatalf("shuffled pods: got %+v, want %+v", got, want)
		}
	}
}

func TestPropertyRestore(t *testing.T) {
	r := newRandom(5)
	for range iterations {
		n := r.node()
		got := n
		for range 1 + r.IntN(3) { // as for several events
			got = spot.Cordon(got, warning(spot.SpotTerminate), spot.Plan{Deadline: eventTime, Drain: true})
		}
		if got = spot.Restore(got); !sameNode(got, n) {
			t.Fatalf("got %+v, want %+v", got, n)
		}
	}
}

// windows are the shutdown windows of the property tests.
var windows = []time.Duration{0, 20 * time.Second, 150 * time.Second}

// windowedPlan returns a plan with a shutdown window for an event that ends the instance, its policy, and a time before
// its end.
func (r random) windowedPlan(window time.Duration) (spot.Plan, time.Time) {
	kinds := []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.LifecycleTerminate}
	limit := time.Time{}
	if r.oneIn(3) {
		limit = after(float64(2 + r.IntN(200)))
	}
	plan := windowed(kinds[r.IntN(len(kinds))], window, limit)
	return plan, eventTime.Add(time.Duration(r.Int64N(int64(plan.Until.Sub(eventTime)))))
}

// TestPropertyShutdownWindow checks that a pod that the window covers is never force-deleted, that others are
// force-deleted later by the window, that no grace period is shorter than what the kubelet would give nor exceeds the
// window, and that no attempt is due after the end of work.
func TestPropertyShutdownWindow(t *testing.T) {
	r := newRandom(6)
	policy := spot.DefaultPolicy(cluster)
	for range iterations {
		window := windows[r.IntN(len(windows))]
		plan, now := r.windowedPlan(window)
		pod := r.pod()
		if pod.Critical {
			window = 0
		}
		podPlan := plan.ForPod(pod, now)
		if podPlan.Action != spot.PodEvict {
			continue
		}
		refusals := 1 + r.IntN(9)
		got, grace := plan.Request(pod, now, refusals), max(min(pod.GracePeriod, policy.ForceGrace), time.Second)
		last := spot.Earlier(plan.Deadline.Add(window-policy.Reserve-grace), plan.Until.Add(-time.Second))
		covered := window > 0 && grace <= window
		switch kubelet := min(pod.GracePeriod, window); {
		case covered && (got.Delete || !podPlan.ForceAt.IsZero()):
			t.Fatalf("window %s, grace period %s: got force deletion", window, pod.GracePeriod)
		case covered != (podPlan.KubeletGrace > 0), covered && podPlan.KubeletGrace != max(kubelet, time.Second):
			t.Fatalf("window %s, grace period %s: got %s from the kubelet", window, pod.GracePeriod, podPlan.KubeletGrace)
		case !covered && !podPlan.ForceAt.Equal(last):
			t.Fatalf("window %s, grace period %s: got force deletion after %s, want after %s", window, pod.GracePeriod,
				podPlan.ForceAt.Sub(eventTime), last.Sub(eventTime))
		case got.GracePeriod < kubelet:
			t.Fatalf("window %s, grace period %s: got %s, less than from the kubelet", window, pod.GracePeriod, got.GracePeriod)
		case got.GracePeriod > time.Second && now.Add(got.GracePeriod).After(plan.Deadline.Add(window)):
			t.Fatalf("window %s: got grace period %s after %s", window, got.GracePeriod, now.Sub(eventTime))
		}
		if next, ok := plan.NextAttempt(pod, got, now, refusals, time.Duration(r.IntN(90))*time.Second); ok && !next.Before(plan.Until) {
			t.Fatalf("window %s: got attempt after %s, past the end of work", window, next.Sub(eventTime))
		}
		for _, at := range []time.Time{podPlan.ForceAt, podPlan.LatestAt, plan.ForReturned(pod, now, r.IntN(6)).NotBefore} {
			if !at.IsZero() && !at.Before(plan.Until) {
				t.Fatalf("window %s: got request after %s, past the end of work", window, at.Sub(eventTime))
			}
		}
	}
}

// TestPropertyWithoutWindow checks that a window changes nothing for critical pods and for events after which nothing
// shuts the instance down, and that no window is as good as none.
func TestPropertyWithoutWindow(t *testing.T) {
	r := newRandom(7)
	kinds := []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.LifecycleTerminate, spot.SpotHibernate, spot.Rebalance,
		spot.ScheduledChange}
	policy := spot.DefaultPolicy(cluster)
	for range iterations {
		kind, pod, limit := kinds[r.IntN(len(kinds))], r.pod(), after(float64(2+r.IntN(200)))
		window := windows[r.IntN(len(windows))]
		shutdown := kind == spot.SpotTerminate || kind == spot.SpotStop || kind == spot.LifecycleTerminate
		pod.Critical = pod.Critical || shutdown && window > 0
		with, without := windowed(kind, window, limit), windowed(kind, 0, limit)
		now := eventTime.Add(time.Duration(r.Int64N(int64(without.Until.Sub(eventTime)))))
		got, refusals := without.Request(pod, now, 1), r.IntN(9)
		if with.ForPod(pod, now) != without.ForPod(pod, now) || with.LeftToKubelet(pod) ||
			with.ForReturned(pod, now, refusals) != without.ForReturned(pod, now, refusals) ||
			with.Request(pod, now, refusals) != without.Request(pod, now, refusals) {
			t.Fatalf("%s, window %s, %+v: got another plan than without", kind, window, pod)
		}
		if !shutdown {
			continue
		}
		// Without a window, these are the rules of the two minutes.
		grace := max(min(pod.GracePeriod, policy.ForceGrace), time.Second)
		last := spot.Earlier(without.Deadline.Add(-policy.Reserve-grace), limit.Add(-time.Second))
		want := max(min(pod.GracePeriod, (without.Deadline.Sub(now)-policy.Reserve).Truncate(time.Second)), time.Second)
		if force := !now.Before(last); got.Delete != force || !force && got.GracePeriod != want {
			t.Fatalf("%s after %s, %+v: got %+v, want grace period %s", kind, now.Sub(eventTime), pod, got, want)
		}
	}
}
