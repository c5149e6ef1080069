package spot_test

import (
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const hook = "drain"

// windowed returns the plan for an event with a shutdown window, made when the event was sent.
func windowed(kind spot.Kind, window time.Duration, limit time.Time) spot.Plan {
	policy, in, target := spot.DefaultPolicy(cluster), warning(kind), newTarget()
	policy.ShutdownGrace, policy.Hooks = window, []string{hook}
	policy.Rebalance, policy.ScheduledChange = spot.RespondDrain, spot.RespondDrain
	in.Start = after(120)
	if kind == spot.LifecycleTerminate {
		in.Action.Hook = hook
		target.Hook = &spot.Hook{Heartbeat: 2 * time.Minute, Global: 2 * time.Minute}
	}
	return policy.Plan(in, target, eventTime, limit)
}

// TestShutdownWindow covers the first eviction, the force deletion and what the kubelet gives instead.
func TestShutdownWindow(t *testing.T) {
	const never = 0
	for _, c := range []struct {
		window, own int
		critical    bool
		limit       float64 // seconds after the event; 0 for none
		grace       int     // of an eviction at the event
		late        int     // of an eviction 3 s before the deadline
		force       float64 // seconds after the event
		kubelet     int     // the grace period that the kubelet gives; 0 if the pod is not covered
	}{
		{window: 0, own: 0, grace: 1, late: 1, force: 114},
		{window: 0, own: 20, grace: 20, late: 1, force: 95},
		{window: 0, own: 300, grace: 115, late: 1, force: 55},
		{window: 20, own: 0, grace: 1, late: 1, force: never, kubelet: 1},
		{window: 20, own: 10, grace: 10, late: 10, force: never, kubelet: 10},
		{window: 20, own: 20, grace: 20, late: 20, force: never, kubelet: 20},
		{window: 20, own: 21, grace: 21, late: 20, force: 114},
		{window: 20, own: 60, grace: 60, late: 20, force: 75},
		{window: 20, own: 300, grace: 135, late: 20, force: 75},
		{window: 20, own: 20, critical: true, grace: 20, late: 1, force: 95},
		{window: 20, own: 20, limit: 30, grace: 20, late: 20, force: never, kubelet: 20},
		{window: 20, own: 21, limit: 30, grace: 21, late: 20, force: 29},
		{window: 150, own: 60, grace: 60, late: 60, force: never, kubelet: 60},
		{window: 150, own: 140, grace: 140, late: 140, force: never, kubelet: 140},
		{window: 150, own: 150, grace: 150, late: 150, force: never, kubelet: 150},
		{window: 150, own: 600, grace: 265, late: 150, force: never, kubelet: 150},
		{window: 150, own: 600, critical: true, grace: 115, late: 1, force: 55},
	} {
		limit := time.Time{}
		if c.limit > 0 {
			limit = after(c.limit)
		}
		for _, kind := range []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.LifecycleTerminate} {
			if kind == spot.LifecycleTerminate && c.limit > 0 {
				continue
			}
			plan := windowed(kind, time.Duration(c.window)*time.Second, limit)
			pod := spot.Pod{Name: "web", GracePeriod: time.Duration(c.own) * time.Second, Critical: c.critical}
			got := plan.ForPod(pod, eventTime)
			late := plan.Request(pod, after(117), 0)
			force := c.force > never
			if got.GracePeriod != time.Duration(c.grace)*time.Second || late.GracePeriod != time.Duration(c.late)*time.Second {
				t.Errorf("%s, %+v: got grace periods %s and %s", kind, c, got.GracePeriod, late.GracePeriod)
			}
			if got.ForceAt.IsZero() == force || force && !got.ForceAt.Equal(after(c.force)) {
				t.Errorf("%s, %+v: got force deletion after %s", kind, c, got.ForceAt.Sub(eventTime))
			}
			if covered := c.kubelet > 0; got.KubeletGrace != time.Duration(c.kubelet)*time.Second ||
				covered != got.KubeletAt.Equal(after(120)) {
				t.Errorf("%s, %+v: got %s from the kubelet after %s", kind, c, got.KubeletGrace, got.KubeletAt.Sub(eventTime))
			}
		}
	}
}

// TestLeftToKubelet: a pod is left to its kubelet only if that gives it what a force deletion would, or the rest of its
// grace period.
func TestLeftToKubelet(t *testing.T) {
	for _, c := range []struct {
		window, own int
		end         float64 // of the grace period of a terminating pod, in seconds after the event; 0 if it is not
		critical    bool
		want        bool
	}{
		{window: 0, own: 1}, {window: 0, own: 30, end: 121},
		{window: 20, own: 20, want: true}, {window: 20, own: 21}, {window: 20, own: 20, critical: true},
		{window: 150, own: 600, want: true}, // ForceGrace is 60 s
		// Terminating: in time for the reserve means late, past the window means cut.
		{window: 20, own: 30, end: 115}, {window: 20, own: 30, end: 116, want: true}, {window: 20, own: 30, end: 140, want: true},
		{window: 20, own: 30, end: 141}, {window: 20, own: 20, end: 100}, {window: 20, own: 30, end: 130, critical: true},
		{window: 150, own: 600, end: 600, want: true}, // the kubelet gives it 150 s more
	} {
		pod := spot.Pod{GracePeriod: time.Duration(c.own) * time.Second, Critical: c.critical}
		if c.end > 0 {
			pod.Terminating, pod.DeletionTimestamp = true, after(c.end)
		}
		plan := windowed(spot.SpotTerminate, time.Duration(c.window)*time.Second, time.Time{})
		if got := plan.LeftToKubelet(pod); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// TestLastMomentWithWindow: a covered pod that goes last, or that its owner recreates here, is evicted a second before
// the end of work, and refused evictions are repeated until then.
func TestLastMomentWithWindow(t *testing.T) {
	pod := spot.Pod{Name: "agent", GracePeriod: 10 * time.Second, Owner: spot.Owner{Kind: "ReplicaSet", Name: "agent", UID: "u"},
		Annotations: map[string]string{spot.AnnotationDrain: "last"}}
	for limit, want := range map[float64]float64{120: 119, 60: 59} {
		plan := windowed(spot.SpotTerminate, 20*time.Second, after(limit))
		if got := plan.ForPod(pod, eventTime).LatestAt; !got.Equal(after(want)) {
			t.Errorf("limit %v: got eviction after %s, want %vs", limit, got.Sub(eventTime), want)
		}
		if got := plan.ForReturned(pod, after(3), 4).NotBefore; !got.Equal(after(want)) {
			t.Errorf("limit %v, recreated: got eviction after %s, want %vs", limit, got.Sub(eventTime), want)
		}
		for now, again := range map[float64]bool{limit - 3: true, limit - 2: false, limit - 1.5: false} {
			at, ok := plan.NextAttempt(pod, spot.EvictionRequest{}, after(now), 9, 0)
			if ok != again || ok && !at.Equal(after(now+2)) {
				t.Errorf("limit %v: refused after %vs: got next attempt after %s, %v", limit, now, at.Sub(eventTime), ok)
			}
		}
	}
}
