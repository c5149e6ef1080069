package spot_test

import (
	"cmp"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// TestWhatEachKindOfEventMeans is the table of the events: until when, by force or not, with whose help.
func TestWhatEachKindOfEventMeans(t *testing.T) {
	const hook = "drain"
	limit := eventTime.Add(14 * time.Minute)
	policy := spot.DefaultPolicy(cluster)
	policy.Rebalance, policy.ScheduledChange, policy.Hooks, policy.HasAutoscaler = spot.RespondDrain, spot.RespondDrain, []string{hook}, true
	for _, c := range []struct {
		kind     spot.Kind
		hook     *spot.Hook
		deadline time.Duration
		cut      bool // a grace period of three hours is cut
		forced   bool // a pod whose budget refuses to the last is deleted past it
		again    bool // a refusal is argued with
		replace  spot.ReplaceAction
		told     string // what CAST AI's autoscaler is told of a node that it made
	}{
		{kind: spot.SpotTerminate, deadline: 120 * time.Second, cut: true, forced: true, again: true, replace: spot.ReplaceDetach, told: "interrupted"},
		{kind: spot.SpotStop, deadline: 120 * time.Second, cut: true, forced: true, again: true, replace: spot.ReplaceNone, told: "interrupted"},
		{kind: spot.SpotHibernate, deadline: 20 * time.Second, replace: spot.ReplaceNone, told: "interrupted"},
		{kind: spot.LifecycleTerminate, deadline: 120 * time.Second, cut: true, forced: true, again: true, replace: spot.ReplaceNone},
		{kind: spot.LifecycleTerminate, hook: &spot.Hook{Heartbeat: 5 * time.Minute, Global: 9 * time.Hour}, deadline: 5 * time.Minute, cut: true, forced: true, again: true, replace: spot.ReplaceNone},
		{kind: spot.LifecycleTerminate, hook: &spot.Hook{Heartbeat: 5 * time.Minute, Global: time.Minute}, deadline: time.Minute, cut: true, forced: true, again: true, replace: spot.ReplaceNone},
		{kind: spot.Rebalance, deadline: 14 * time.Minute, again: true, replace: spot.ReplaceNone, told: "rebalanceRecommendation"},
		{kind: spot.ScheduledChange, deadline: 2 * time.Hour, cut: true, again: true, replace: spot.ReplaceNone},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			in, target, now := warning(c.kind), ours(), eventTime.Add(time.Second)
			in.Action.Hook, in.Start, target.Hook = hook, eventTime.Add(2*time.Hour), c.hook
			plan := policy.Plan(in, target, now, limit)
			if plan.Result != "" || !plan.Drain {
				t.Fatalf("the verdict is %s (drain %v): %s", plan.Result, plan.Drain, plan.Reason)
			}
			if got := plan.Deadline.Sub(eventTime); got != c.deadline {
				t.Errorf("the deadline is %s after the event, want %s", got, c.deadline)
			}
			if plan.Until.After(limit) {
				t.Errorf("the work goes on until %s, after the invocation's end", plan.Until)
			}
			long := spot.Pod{Namespace: "default", Name: "long", GracePeriod: 3 * time.Hour}
			if cut := plan.ForPod(long, now, false).GracePeriod < long.GracePeriod; cut != c.cut {
				t.Errorf("a grace period of 3 h is cut: %v, want %v", cut, c.cut)
			}
			if ask := plan.Request(long, plan.Until.Add(-time.Second), 9); ask.Delete != c.forced {
				t.Errorf("deleted past its budget: %v, want %v", ask.Delete, c.forced)
			}
			if _, again := plan.NextAttempt(long, spot.EvictionRequest{}, now, 1, 0); again != c.again {
				t.Errorf("asked again: %v, want %v", again, c.again)
			}
			if plan.Replace.Action != c.replace {
				t.Errorf("replaced by %s (%s), want %s", plan.Replace.Action, plan.Replace.Reason, c.replace)
			}
			target.Node.Labels = map[string]string{"provisioner.cast.ai/node-id": "n1"}
			if told := policy.Plan(in, target, now, limit).Replace.AutoscalerEvent; told != c.told {
				t.Errorf("the autoscaler is told %q, want %q", told, c.told)
			}
			in.Rehearsal = true
			plan = policy.Plan(in, target, now, limit)
			if plan.Request(long, plan.Until.Add(-time.Second), 9).Delete || plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("a rehearsal forces or replaces: %+v", plan.Replace)
			}
		})
	}
}

// TestEventsThatThePolicyLeavesAlone: a recommendation and an announcement do nothing unless the operator says so.
func TestEventsThatThePolicyLeavesAlone(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    spot.Kind
		policy  func(*spot.Policy)
		want    spot.Result
		drain   bool
		because string
	}{
		{name: "a rebalance recommendation", kind: spot.Rebalance, want: spot.Skipped, because: "policy"},
		{name: "one that is to cordon", kind: spot.Rebalance, policy: func(p *spot.Policy) { p.Rebalance = spot.RespondCordon }},
		{name: "one that is to drain", kind: spot.Rebalance, policy: func(p *spot.Policy) { p.Rebalance = spot.RespondDrain }, drain: true},
		{name: "a scheduled change", kind: spot.ScheduledChange, want: spot.Skipped, because: "policy"},
		{name: "one that is to drain", kind: spot.ScheduledChange, policy: func(p *spot.Policy) { p.ScheduledChange = spot.RespondDrain }, drain: true},
		{name: "a hook that nobody named", kind: spot.LifecycleTerminate, want: spot.Skipped, drain: true, because: "lifecycle hook drain of group g is not configured"},
		{name: "a hook that is named", kind: spot.LifecycleTerminate, policy: func(p *spot.Policy) { p.Hooks = []string{"drain"} }, drain: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy := spot.DefaultPolicy(cluster)
			if c.policy != nil {
				c.policy(&policy)
			}
			in := warning(c.kind)
			in.Start, in.Action = eventTime.Add(time.Hour), spot.Action{Group: "g", Hook: "drain"}
			plan := policy.Plan(in, ours(), eventTime, time.Time{})
			if plan.Result != c.want || plan.Drain != c.drain || !strings.Contains(plan.Reason, c.because) {
				t.Errorf("got %s, drain %v, %q; want %s, %v, %q", plan.Result, plan.Drain, plan.Reason, c.want, c.drain, c.because)
			}
			if plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("replaced by %s", plan.Replace.Action)
			}
			in.Instance = "i-0eeeeeeeeeeeeeee1"
			target := spot.Target{Instance: &spot.Instance{ID: in.Instance}}
			if plan := policy.Plan(in, target, eventTime, time.Time{}); c.want == "" && plan.Result != spot.OtherCluster {
				t.Errorf("none of kOps' is %s", plan.Result)
			}
		})
	}
}

// TestWhoIsAskedForAReplacement: exactly one, by the node or by the policy.
func TestWhoIsAskedForAReplacement(t *testing.T) {
	castai := func(t *spot.Target) { t.Node.Labels = map[string]string{"provisioner.cast.ai/node-id": "n1"} }
	karpenter := func(t *spot.Target) {
		t.Node.Labels, t.Node.NodeClaim = map[string]string{"karpenter.sh/nodepool": "spot"}, "spot-x7"
		t.Membership, t.MembershipErr = nil, spot.ErrNotFound
	}
	for _, c := range []struct {
		name   string
		target func(*spot.Target)
		policy spot.Replacer // auto if empty
		key    bool          // of CAST AI's API
		want   spot.ReplaceAction
		reason string
	}{
		{name: "a group's node", key: true, want: spot.ReplaceDetach},
		{name: "CAST AI's node", target: castai, key: true, want: spot.ReplaceNotify},
		{name: "CAST AI's node, and no key", target: castai, want: spot.ReplaceNone, reason: "no API key"},
		{name: "Karpenter's node", target: karpenter, key: true, want: spot.ReplacePending},
		{name: "Karpenter, by its NodeClaim", target: karpenter, policy: spot.ReplacerKarpenter, want: spot.ReplaceClaim},
		{name: "Karpenter named, a group's node", policy: spot.ReplacerKarpenter, want: spot.ReplaceNone, reason: "no Karpenter NodeClaim"},
		{name: "nobody", policy: spot.ReplacerNone, want: spot.ReplaceNone, reason: "policy"},
		{name: "the group alone, though the node is CAST AI's", target: castai, key: true, policy: spot.ReplacerGroup, want: spot.ReplaceDetach},
		{name: "CAST AI alone, for a group's node", key: true, policy: spot.ReplacerAutoscaler, want: spot.ReplaceNotify},
		{name: "CAST AI, and the node is not known", key: true, policy: spot.ReplacerAutoscaler, target: func(t *spot.Target) { t.Node = nil },
			want: spot.ReplaceNone, reason: "a known node"},
		{name: "CAST AI's control plane", key: true, policy: spot.ReplacerAutoscaler, target: func(t *spot.Target) { t.Instance.Tags["k8s.io/role/master"] = "1" },
			want: spot.ReplaceNone, reason: "control-plane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy, target := spot.DefaultPolicy(cluster), ours()
			policy.Replace, policy.HasAutoscaler = cmp.Or(c.policy, spot.ReplacerAuto), c.key
			if c.target != nil {
				c.target(&target)
			}
			got := policy.Plan(warning(spot.SpotTerminate), target, eventTime, time.Time{}).Replace
			if got.Action != c.want || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("asked by %s (%s), want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
		})
	}
}

// TestAHeartbeatMovesTheSums: with another end of the machine, what is forced is forced later.
func TestAHeartbeatMovesTheSums(t *testing.T) {
	policy, in, target := spot.DefaultPolicy(cluster), warning(spot.LifecycleTerminate), ours()
	in.Action.Hook, policy.Hooks = "drain", []string{"drain"}
	target.Hook = &spot.Hook{Heartbeat: 5 * time.Minute, Global: time.Hour}
	limit := eventTime.Add(10 * time.Minute)
	plan := policy.Plan(in, target, eventTime, limit)
	pod := spot.Pod{Name: "web", GracePeriod: 30 * time.Second}
	if at := plan.ForPod(pod, eventTime, false).ForceAt.Sub(eventTime); at != 265*time.Second {
		t.Errorf("forced after %s, want 265 s", at)
	}
	plan = plan.WithDeadline(eventTime.Add(7 * time.Minute))
	if at := plan.ForPod(pod, eventTime, false).ForceAt.Sub(eventTime); at != 385*time.Second {
		t.Errorf("forced after %s, want 385 s", at)
	}
	long := spot.Pod{Name: "slow", GracePeriod: 12 * time.Minute}
	if grace := plan.ForPod(long, eventTime, false).GracePeriod; grace != 12*time.Minute {
		t.Errorf("a grace period that heartbeats can make room for is cut to %s", grace)
	}
	long.GracePeriod = time.Hour
	if grace := plan.ForPod(long, eventTime, false).GracePeriod; grace != 15*time.Minute-5*time.Second {
		t.Errorf("an hour is cut to %s, want all that the last heartbeat leaves", grace)
	}
	if plan = plan.WithDeadline(eventTime.Add(time.Hour)); !plan.Until.Equal(limit) {
		t.Errorf("the work goes on until %s, past the invocation's end", plan.Until)
	}
}
