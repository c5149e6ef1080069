package spot_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// tries is how many made-up pods each property is held against.
const tries = 20_000

// madeUp is a random pod, plan, and moment before the plan's end. The same seed makes the same ones.
type madeUp struct{ *rand.Rand }

func random(seed uint64) madeUp { return madeUp{rand.New(rand.NewPCG(seed, seed))} }

func (r madeUp) flag(oneIn int) bool { return r.IntN(oneIn) == 0 }

func (r madeUp) pod() spot.Pod {
	kinds := []string{"", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"}
	owner := spot.Owner{Kind: kinds[r.IntN(len(kinds))]}
	if owner.Kind != "" {
		owner.Name, owner.UID = "owner", string(rune('a'+r.IntN(5)))
	}
	return spot.Pod{Namespace: "n", Name: string(rune('a' + r.IntN(26))), UID: string(rune('a' + r.IntN(26))),
		GracePeriod: time.Duration(r.IntN(700)) * time.Second, Terminating: r.flag(4), Finished: r.flag(6), Mirror: r.flag(8),
		Owner: owner, ToleratesCordon: r.flag(3), Volumes: r.flag(3), Critical: r.flag(5)}
}

func (r madeUp) plan() (spot.Plan, time.Time) {
	kinds := []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate}
	in := warning(kinds[r.IntN(len(kinds))])
	now := eventTime.Add(time.Duration(r.Int64N(int64(19 * time.Second))))
	limit := time.Time{}
	if r.flag(3) {
		limit = now.Add(time.Duration(1+r.IntN(200)) * time.Second)
	}
	plan := spot.DefaultPolicy(cluster).Plan(in, ours(), now, limit)
	return plan, now.Add(time.Duration(r.Int64N(int64(plan.Until.Sub(now)))))
}

func TestPropertyEndingPodsAreNeverAsked(t *testing.T) {
	r := random(1)
	for range tries {
		plan, now := r.plan()
		pod := r.pod()
		if fate := plan.ForPod(pod, now, r.flag(2)); fate.Action == spot.PodEvict && (pod.Terminating || pod.Finished || pod.Mirror || pod.Owner.Kind == "DaemonSet") {
			t.Fatalf("%+v: %+v", pod, fate)
		} else if fate.Reason == "" {
			t.Fatalf("no reason: %+v", pod)
		}
	}
}

// TestPropertyForcedInTime: a pod that is forced on time has its grace period, up to a minute, before the reserve; one
// that is forced late has what is left; none is forced before its time or without having been asked.
func TestPropertyForcedInTime(t *testing.T) {
	r := random(2)
	policy := spot.DefaultPolicy(cluster)
	for range tries {
		plan, now := r.plan()
		pod := r.pod()
		fate := plan.ForPod(pod, now, false)
		if fate.Action != spot.PodEvict {
			continue
		}
		due := max(min(pod.GracePeriod, policy.ForceGrace), time.Second)
		if !fate.ForceAt.IsZero() && fate.ForceAt.Add(due+policy.Reserve).After(plan.Deadline) {
			t.Fatalf("%s of grace, forced at %s: that is later than its grace period allows", pod.GracePeriod, fate.ForceAt.Sub(eventTime))
		}
		ask := plan.Request(pod, now, 1+r.IntN(9))
		switch {
		case ask.Delete && (fate.ForceAt.IsZero() || now.Before(fate.ForceAt)):
			t.Fatalf("forced at %s, before %s", now.Sub(eventTime), fate.ForceAt.Sub(eventTime))
		case ask.GracePeriod < time.Second, ask.GracePeriod > max(pod.GracePeriod, time.Second):
			t.Fatalf("%s of grace: asked with %s", pod.GracePeriod, ask.GracePeriod)
		case ask.Exact != (ask.GracePeriod < pod.GracePeriod):
			t.Fatalf("a request that cuts %s to %s is not bound to what was seen", pod.GracePeriod, ask.GracePeriod)
		case !fate.ForceAt.IsZero() && ask.GracePeriod > time.Second && now.Add(ask.GracePeriod).After(plan.Deadline):
			t.Fatalf("%s from %s on is past the end of the machine", ask.GracePeriod, now.Sub(eventTime))
		}
		if plan.Request(pod, now, 0).Delete {
			t.Fatal("deleted past its budget without having been asked")
		}
	}
}

func TestPropertyNothingIsAskedPastTheEnd(t *testing.T) {
	r := random(3)
	for range tries {
		plan, now := r.plan()
		pod := r.pod()
		asked := spot.EvictionRequest{Delete: r.IntN(2) == 0}
		next, ok := plan.NextAttempt(pod, asked, now, 1+r.IntN(70), time.Duration(r.IntN(90))*time.Second)
		if ok && (!next.Before(plan.Until) || next.Before(now) || asked.Delete && !next.After(now)) {
			t.Fatalf("asked at %s: again at %s; the end is at %s", now.Sub(eventTime), next.Sub(eventTime), plan.Until.Sub(eventTime))
		}
	}
}

func TestPropertyTheOrderOfPodsChangesNoFate(t *testing.T) {
	r := random(4)
	for range tries / 100 {
		plan, now := r.plan()
		pods := make([]spot.Pod, 40)
		for i := range pods {
			pods[i] = r.pod()
			pods[i].UID = string(rune('A'+i/26)) + string(rune('a'+i%26))
		}
		want := plan.Summary(warning(spot.SpotTerminate), true, pods, now)
		r.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		if got := plan.Summary(warning(spot.SpotTerminate), true, pods, now); !reflect.DeepEqual(got, want) {
			t.Fatal("the fates of shuffled pods differ")
		}
	}
}
