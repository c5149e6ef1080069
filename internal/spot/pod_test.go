package spot_test

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// newPlan returns the plan for a warning, made when the event was sent.
func newPlan(kind spot.Kind) spot.Plan {
	return spot.DefaultPolicy(cluster).Plan(warning(kind), newTarget(), eventTime, time.Time{})
}

func TestForPod(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*spot.Pod)
		want   spot.PodAction
		reason string
	}{
		{name: "ReplicaSet", want: spot.PodEvict, reason: "ReplicaSet web"},
		{name: "no controller", change: func(p *spot.Pod) { p.Owner = spot.Owner{} },
			want: spot.PodEvict, reason: "no controller recreates it"},
		{name: "finished", change: func(p *spot.Pod) { p.Finished = true }, want: spot.PodSkip, reason: "finished"},
		{name: "mirror pod", change: func(p *spot.Pod) { p.Mirror = true }, want: spot.PodSkip, reason: "static"},
		{name: "DaemonSet", change: func(p *spot.Pod) { p.Owner.Kind = "DaemonSet" },
			want: spot.PodSkip, reason: "DaemonSet"},
		{name: "terminating", change: func(p *spot.Pod) { p.Terminating = true },
			want: spot.PodWait, reason: "already terminating"},
		{name: "terminating, DaemonSet", change: func(p *spot.Pod) { p.Owner.Kind, p.Terminating = "DaemonSet", true },
			want: spot.PodSkip},
		{name: "tolerates the cordon", change: func(p *spot.Pod) { p.ToleratesCordon = true }, want: spot.PodEvict},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := spot.Pod{Namespace: "default", Name: "web-1", GracePeriod: 30 * time.Second,
				Owner: spot.Owner{Kind: "ReplicaSet", Name: "web", UID: "u"}}
			if c.change != nil {
				c.change(&pod)
			}
			got := newPlan(spot.SpotTerminate).ForPod(pod, eventTime)
			if got.Action != c.want || got.Reason == "" || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		name     string
		kind     spot.Kind // SpotTerminate if empty
		own      int       // the pod's grace period in seconds
		now      float64   // seconds after the event
		refusals int
		grace    int // seconds
		delete   bool
		exact    bool
	}{
		{name: "own grace period", own: 30, grace: 30},
		{name: "cut to the time before the reserve", own: 300, grace: 115, exact: true},
		{name: "cut to whole seconds", own: 300, now: 10.2, grace: 104, exact: true},
		{name: "last moment for the own grace period", own: 30, now: 85, grace: 30},
		{name: "just after the last moment", own: 30, now: 85.001, grace: 29, exact: true},
		{name: "at least one second", own: 30, now: 119.5, grace: 1, exact: true},
		{name: "at least one second, own is zero", own: 0, grace: 1},

		{name: "refused: evict again", own: 30, now: 84.9, refusals: 9, grace: 30},
		{name: "refused: force-delete on time", own: 30, now: 85, refusals: 9, grace: 30, delete: true},
		{name: "refused: slightly late", own: 30, now: 86, refusals: 9, grace: 30, delete: true},
		{name: "refused: late", own: 30, now: 91, refusals: 9, grace: 24, delete: true, exact: true},
		{name: "refused: cut to ForceGrace", own: 300, now: 55, refusals: 9, grace: 60, delete: true, exact: true},
		{name: "refused: before ForceGrace", own: 300, now: 54.9, refusals: 9, grace: 60, exact: true},
		{name: "first request late", own: 30, now: 100, grace: 15, exact: true},
		{name: "first refusal late", own: 30, now: 100.5, refusals: 1, grace: 14, delete: true, exact: true},

		{name: "stop: force-delete", kind: spot.SpotStop, own: 30, now: 85, refusals: 9, grace: 30, delete: true},
		{name: "hibernate: own grace period", kind: spot.SpotHibernate, own: 300, now: 1, grace: 300},
		{name: "hibernate: never force-delete", kind: spot.SpotHibernate, own: 30, now: 19, refusals: 9, grace: 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := spot.Pod{GracePeriod: time.Duration(c.own) * time.Second}
			got := newPlan(cmp.Or(c.kind, spot.SpotTerminate)).Request(pod, after(c.now), c.refusals)
			want := spot.EvictionRequest{Delete: c.delete, GracePeriod: time.Duration(c.grace) * time.Second, Exact: c.exact}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestRequestBeforeLimit(t *testing.T) {
	limit := eventTime.Add(30 * time.Second)
	plan := spot.DefaultPolicy(cluster).Plan(warning(spot.SpotTerminate), newTarget(), eventTime, limit)
	pod := spot.Pod{GracePeriod: 30 * time.Second}
	if got := plan.Request(pod, limit.Add(-time.Second), 1); !got.Delete || got.GracePeriod != 30*time.Second {
		t.Errorf("one second before the limit: got %+v, want a deletion with the pod's own grace period", got)
	}
	if got := plan.Request(pod, limit.Add(-2*time.Second), 1); got.Delete {
		t.Errorf("two seconds before the limit: got %+v, want an eviction", got)
	}
}

// TestForReturned: an owner that recreates its pods on the node loses them at growing intervals, and the last one at
// the force time.
func TestForReturned(t *testing.T) {
	pod := spot.Pod{Name: "agent", GracePeriod: 30 * time.Second, Owner: spot.Owner{Kind: "ReplicaSet", Name: "agent", UID: "u"}}
	for _, c := range []struct {
		kind    spot.Kind // SpotTerminate if empty
		now     float64   // seconds after the event
		evicted int
		want    float64 // seconds after the event; 0 to skip the pod
	}{
		{now: 3, evicted: 0, want: 5}, {now: 3, evicted: 1, want: 7}, {now: 3, evicted: 2, want: 11}, {now: 3, evicted: 3, want: 18},
		{now: 3, evicted: 4, want: 85}, {now: 80, evicted: 3, want: 85}, {now: 85, evicted: 0}, {now: 90, evicted: 9},
		{kind: spot.Rebalance, now: 3, evicted: 3, want: 18}, {kind: spot.Rebalance, now: 3, evicted: 4},
		{kind: spot.SpotHibernate, now: 3, evicted: 4},
	} {
		got := newPlan(cmp.Or(c.kind, spot.SpotTerminate)).ForReturned(pod, after(c.now), c.evicted)
		if want := after(c.want); c.want == 0 && got.Action != spot.PodSkip || c.want != 0 && !got.NotBefore.Equal(want) {
			t.Errorf("%+v: got %s, not before %s", c, got.Action, got.NotBefore.Sub(eventTime))
		}
	}
}

func TestNextAttempt(t *testing.T) {
	for _, c := range []struct {
		name       string
		kind       spot.Kind // SpotTerminate if empty
		own        int       // the pod's grace period in seconds
		now        float64   // seconds after the event
		refusals   int
		retryAfter int     // seconds
		deletion   bool    // a deletion was refused
		want       float64 // seconds after the event
		never      bool
	}{
		{name: "first", own: 30, now: 1, refusals: 1, want: 1.5},
		{name: "second", own: 30, now: 1, refusals: 2, want: 2},
		{name: "longest pause", own: 30, now: 1, refusals: 50, want: 3},
		{name: "Retry-After", own: 30, now: 1, refusals: 1, retryAfter: 10, want: 3},
		{name: "Retry-After up to the force deletion", own: 30, now: 84, refusals: 1, retryAfter: 10, want: 85},
		{name: "deletion refused", own: 30, now: 85, refusals: 9, deletion: true, want: 87},
		{name: "eviction refused after the force deletion is due", own: 30, now: 85.01, refusals: 9, want: 85.01},
		{name: "Retry-After after the force deletion is due", own: 30, now: 85.01, refusals: 1, retryAfter: 10,
			want: 85.01},
		{name: "past the deadline", own: 1, now: 119, refusals: 9, deletion: true, never: true},
		{name: "hibernate", kind: spot.SpotHibernate, own: 30, now: 1, refusals: 1, never: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := spot.Pod{GracePeriod: time.Duration(c.own) * time.Second}
			got, ok := newPlan(cmp.Or(c.kind, spot.SpotTerminate)).NextAttempt(pod,
				spot.EvictionRequest{Delete: c.deletion}, after(c.now), c.refusals, time.Duration(c.retryAfter)*time.Second)
			if ok == c.never || ok && !got.Equal(after(c.want)) {
				t.Errorf("got %v, %v; want %vs, %v", got.Sub(eventTime), ok, c.want, !c.never)
			}
		})
	}
}

func TestEvictionOrder(t *testing.T) {
	pods := []spot.Pod{{Name: "critical", Critical: true}, {Name: "b"}, {Name: "a"}, {Name: "volume", Volumes: true},
		{Name: "critical-volume", Critical: true, Volumes: true}}
	var got []string
	for _, p := range newPlan(spot.SpotTerminate).Summary(warning(spot.SpotTerminate), true, pods, eventTime).Pods {
		got = append(got, p.Name)
	}
	if want := "volume a b critical critical-volume"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
