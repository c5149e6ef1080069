package spot_test

import (
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// planAt is the plan of a warning, as of so many seconds after it, and that moment.
func planAt(kind spot.Kind, after float64) (spot.Plan, time.Time) {
	now := eventTime.Add(time.Duration(after * float64(time.Second)))
	return spot.DefaultPolicy(cluster).Plan(warning(kind), ours(), now, time.Time{}), now
}

func TestFate(t *testing.T) {
	web := spot.Pod{Namespace: "default", Name: "web-1", GracePeriod: 30 * time.Second, Owner: spot.Owner{Kind: "ReplicaSet", Name: "web", UID: "u"}}
	with := func(change func(*spot.Pod)) spot.Pod { p := web; change(&p); return p }
	for _, c := range []struct {
		name     string
		pod      spot.Pod
		returned bool
		want     spot.PodAction
		reason   string
	}{
		{name: "an ordinary pod", pod: web, want: spot.PodEvict, reason: "ReplicaSet web"},
		{name: "a bare pod", pod: with(func(p *spot.Pod) { p.Owner = spot.Owner{} }), want: spot.PodEvict, reason: "no controller recreates it"},
		{name: "a finished pod", pod: with(func(p *spot.Pod) { p.Finished = true }), want: spot.PodSkip, reason: "finished"},
		{name: "a mirror pod", pod: with(func(p *spot.Pod) { p.Mirror = true }), want: spot.PodSkip, reason: "static"},
		{name: "a DaemonSet's pod", pod: with(func(p *spot.Pod) { p.Owner.Kind = "DaemonSet" }), want: spot.PodSkip, reason: "DaemonSet"},
		{name: "a pod that is ending", pod: with(func(p *spot.Pod) { p.Terminating = true }), want: spot.PodWait, reason: "already terminating"},
		{name: "a DaemonSet's pod that is ending", pod: with(func(p *spot.Pod) { p.Owner.Kind, p.Terminating = "DaemonSet", true }), want: spot.PodSkip},
		{name: "a pod that tolerates the cordon", pod: with(func(p *spot.Pod) { p.ToleratesCordon = true }), want: spot.PodEvict},
		{name: "one that came straight back", pod: with(func(p *spot.Pod) { p.ToleratesCordon = true }), returned: true, want: spot.PodSkip, reason: "recreated it here"},
		{name: "one that was bound before the cordon was seen", pod: web, returned: true, want: spot.PodEvict},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, now := planAt(spot.SpotTerminate, 0)
			got := plan.ForPod(c.pod, now, c.returned)
			if got.Action != c.want || got.Reason == "" || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
		})
	}
}

// TestAsk is the arithmetic of a pod's last two minutes.
func TestAsk(t *testing.T) {
	for _, c := range []struct {
		name     string
		kind     spot.Kind
		own      int     // the pod's grace period in seconds
		after    float64 // seconds from the event to the request
		refusals int
		want     int // the grace period asked for
		del      bool
		exact    bool
	}{
		{name: "its own grace period", own: 30, want: 30},
		{name: "cut to what is left before the reserve", own: 300, want: 115, exact: true},
		{name: "cut to whole seconds", own: 300, after: 10.2, want: 104, exact: true},
		{name: "the last moment for its own", own: 30, after: 85, want: 30},
		{name: "a moment later", own: 30, after: 85.001, want: 29, exact: true},
		{name: "never under a second", own: 30, after: 119.5, want: 1, exact: true},
		{name: "not even if it is the pod's own", own: 0, want: 1},

		{name: "refused: evicted again", own: 30, after: 84.9, refusals: 9, want: 30},
		{name: "refused: forced when its time has come", own: 30, after: 85, refusals: 9, want: 30, del: true},
		{name: "refused: a little late it has its time all the same", own: 30, after: 86, refusals: 9, want: 30, del: true},
		{name: "refused: too late for its whole time", own: 30, after: 91, refusals: 9, want: 24, del: true, exact: true},
		{name: "refused: a long grace period is cut to a minute", own: 300, after: 55, refusals: 9, want: 60, del: true, exact: true},
		{name: "refused: but not before", own: 300, after: 54.9, refusals: 9, want: 60, exact: true},
		{name: "late and not refused yet: asked politely", own: 30, after: 100, want: 15, exact: true},
		{name: "late and refused: forced at once", own: 30, after: 100.5, refusals: 1, want: 14, del: true, exact: true},

		{name: "stop forces too", kind: spot.SpotStop, own: 30, after: 85, refusals: 9, want: 30, del: true},
		{name: "hibernate gives the pod's own", kind: spot.SpotHibernate, own: 300, after: 1, want: 300},
		{name: "hibernate never forces", kind: spot.SpotHibernate, own: 30, after: 19, refusals: 9, want: 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = spot.SpotTerminate
			}
			plan, _ := planAt(c.kind, 0)
			pod := spot.Pod{GracePeriod: time.Duration(c.own) * time.Second}
			got := plan.Request(pod, eventTime.Add(time.Duration(c.after*float64(time.Second))), c.refusals)
			want := spot.EvictionRequest{Delete: c.del, GracePeriod: time.Duration(c.want) * time.Second, Exact: c.exact}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestAskBeforeTheInvocationEnds(t *testing.T) {
	limit := eventTime.Add(30 * time.Second)
	plan := spot.DefaultPolicy(cluster).Plan(warning(spot.SpotTerminate), ours(), eventTime, limit)
	pod := spot.Pod{GracePeriod: 30 * time.Second}
	if ask := plan.Request(pod, limit.Add(-time.Second), 1); !ask.Delete || ask.GracePeriod != 30*time.Second {
		t.Errorf("a second before the invocation ends: got %+v, want a delete with the pod's own grace period", ask)
	}
	if ask := plan.Request(pod, limit.Add(-2*time.Second), 1); ask.Delete {
		t.Error("forced earlier than it had to be")
	}
}

func TestAgain(t *testing.T) {
	at := func(s float64) time.Time { return eventTime.Add(time.Duration(s * float64(time.Second))) }
	for _, c := range []struct {
		name     string
		kind     spot.Kind
		own      int
		now      float64
		refusals int
		after    int // Retry-After, seconds
		want     float64
		deleted  bool // what was refused was the deletion past a budget
		never    bool
	}{
		{name: "soon at first", own: 30, now: 1, refusals: 1, want: 1.5},
		{name: "then slower", own: 30, now: 1, refusals: 2, want: 2},
		{name: "never slower than this", own: 30, now: 1, refusals: 50, want: 3},
		{name: "as the server asks", own: 30, now: 1, refusals: 1, after: 10, want: 11},
		{name: "but not past the forced delete", own: 30, now: 80, refusals: 1, after: 10, want: 85},
		{name: "after it, as usual", own: 30, now: 85, refusals: 9, deleted: true, want: 87},
		{name: "an eviction that is refused then is followed by it at once", own: 30, now: 85.01, refusals: 9, want: 85.01},
		{name: "whatever came with the refusal", own: 30, now: 85.01, refusals: 1, after: 10, want: 85.01},
		{name: "not past the end", own: 1, now: 119, refusals: 9, deleted: true, never: true},
		{name: "hibernate asks once", kind: spot.SpotHibernate, own: 30, now: 1, refusals: 1, never: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = spot.SpotTerminate
			}
			plan, _ := planAt(c.kind, 0)
			got, ok := plan.NextAttempt(spot.Pod{GracePeriod: time.Duration(c.own) * time.Second}, spot.EvictionRequest{Delete: c.deleted}, at(c.now), c.refusals, time.Duration(c.after)*time.Second)
			if ok == c.never || ok && !got.Equal(at(c.want)) {
				t.Errorf("got %v, %v; want %v, %v", got.Sub(eventTime), ok, c.want, !c.never)
			}
		})
	}
}

func TestFatesAreInTheOrderOfSubmission(t *testing.T) {
	plan, now := planAt(spot.SpotTerminate, 0)
	pods := []spot.Pod{{Name: "critical", Critical: true}, {Name: "b"}, {Name: "a"}, {Name: "volume", Volumes: true}, {Name: "critical-volume", Critical: true, Volumes: true}}
	var got []string
	for _, p := range plan.Summary(warning(spot.SpotTerminate), true, pods, now).Pods {
		got = append(got, p.Name)
	}
	if want := "volume a b critical critical-volume"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
