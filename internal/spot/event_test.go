package spot_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func TestWarningKinds(t *testing.T) {
	got := spot.WarningKinds()
	if !slices.Contains(got, spot.SpotTerminate) || !slices.Contains(got, spot.ScheduledChange) ||
		slices.Contains(got, spot.StateChange) || slices.Contains(got, spot.LaunchFailed) || !slices.IsSorted(got) {
		t.Errorf("got %v, want all kinds except %s and %s, sorted", got, spot.StateChange, spot.LaunchFailed)
	}
}

func TestExampleEvent(t *testing.T) {
	notices := map[spot.Kind]time.Duration{spot.SpotHibernate: 20 * time.Second, spot.Rebalance: 15 * time.Minute,
		spot.ScheduledChange: 7 * 24 * time.Hour}
	policy := spot.DefaultPolicy(cluster)
	policy.Rebalance, policy.ScheduledChange, policy.Hooks = spot.RespondDrain, spot.RespondDrain, []string{"drain"}
	plan := func(k spot.Kind) spot.Plan {
		in := policy.ExampleEvent(k, instance, "us-east-1", eventTime)
		if in.Instance != instance {
			t.Errorf("%s: got instance %s, want %s", k, in.Instance, instance)
		}
		return policy.Plan(in, newTarget(), eventTime, time.Time{})
	}
	for _, k := range spot.WarningKinds() {
		want, ok := notices[k]
		if !ok {
			want = 120 * time.Second
		}
		if p := plan(k); p.Result != "" || p.Deadline.Sub(eventTime) != want {
			t.Errorf("%s: got %q, %q, notice %s; want notice %s",
				k, p.Result, p.Reason, p.Deadline.Sub(eventTime), want)
		}
	}
	policy.Hooks = nil
	if p := plan(spot.LifecycleTerminate); p.Result != spot.Skipped {
		t.Errorf("hook that is not configured: got %q, want %s", p.Result, spot.Skipped)
	}
}

func TestEventRules(t *testing.T) {
	const hook = "drain"
	limit := eventTime.Add(14 * time.Minute)
	policy := spot.DefaultPolicy(cluster)
	policy.Rebalance, policy.ScheduledChange = spot.RespondDrain, spot.RespondDrain
	policy.Hooks, policy.HasAutoscaler = []string{hook}, true
	for _, c := range []struct {
		kind     spot.Kind
		hook     *spot.Hook
		deadline time.Duration
		cut      bool // a grace period of 3 h is cut
		force    bool // a refused pod is force-deleted
		retry    bool // a refused eviction is retried
		replace  spot.ReplaceAction
		notify   string // the event for a node of CAST AI's autoscaler
	}{
		{kind: spot.SpotTerminate, deadline: 120 * time.Second, cut: true, force: true, retry: true,
			replace: spot.ReplaceDetach, notify: "interrupted"},
		{kind: spot.SpotStop, deadline: 120 * time.Second, cut: true, force: true, retry: true,
			replace: spot.ReplaceNone, notify: "interrupted"},
		{kind: spot.SpotHibernate, deadline: 20 * time.Second, replace: spot.ReplaceNone, notify: "interrupted"},
		{kind: spot.LifecycleTerminate, deadline: 120 * time.Second, cut: true, force: true, retry: true,
			replace: spot.ReplaceNone},
		{kind: spot.LifecycleTerminate, hook: &spot.Hook{Heartbeat: 5 * time.Minute, Global: 9 * time.Hour},
			deadline: 5 * time.Minute, cut: true, force: true, retry: true, replace: spot.ReplaceNone},
		{kind: spot.LifecycleTerminate, hook: &spot.Hook{Heartbeat: 5 * time.Minute, Global: time.Minute},
			deadline: time.Minute, cut: true, force: true, retry: true, replace: spot.ReplaceNone},
		{kind: spot.Rebalance, deadline: 14 * time.Minute, retry: true, replace: spot.ReplaceNone,
			notify: "rebalanceRecommendation"},
		{kind: spot.ScheduledChange, deadline: 2 * time.Hour, cut: true, retry: true, replace: spot.ReplaceNone},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			in, target, now := warning(c.kind), newTarget(), after(1)
			in.Action.Hook, in.Start, target.Hook = hook, eventTime.Add(2*time.Hour), c.hook
			plan := policy.Plan(in, target, now, limit)
			if plan.Result != "" || !plan.Drain {
				t.Fatalf("got %q, %q, drain %v; want to drain", plan.Result, plan.Reason, plan.Drain)
			}
			if got := plan.Deadline.Sub(eventTime); got != c.deadline {
				t.Errorf("deadline: got %s after the event, want %s", got, c.deadline)
			}
			if plan.Until.After(limit) {
				t.Errorf("until: got %s, want at most %s", plan.Until, limit)
			}
			pod := spot.Pod{Namespace: "default", Name: "long", GracePeriod: 3 * time.Hour}
			if got := plan.ForPod(pod, now).GracePeriod; got < pod.GracePeriod != c.cut {
				t.Errorf("grace period: got %s, want cut %v", got, c.cut)
			}
			last := plan.Until
			if c.hook != nil {
				last = limit // heartbeats reach it
			}
			if got := plan.Request(pod, last.Add(-time.Second), 9).Delete; got != c.force {
				t.Errorf("force deletion: got %v, want %v", got, c.force)
			}
			if _, got := plan.NextAttempt(pod, spot.EvictionRequest{}, now, 1, 0); got != c.retry {
				t.Errorf("retry: got %v, want %v", got, c.retry)
			}
			if got := plan.Replace; got.Action != c.replace {
				t.Errorf("replacement: got %s, %q; want %s", got.Action, got.Reason, c.replace)
			}
			labeled("provisioner.cast.ai/node-id", "n1")(&target)
			if got := policy.Plan(in, target, now, limit).Replace.AutoscalerEvent; got != c.notify {
				t.Errorf("autoscaler event: got %q, want %q", got, c.notify)
			}
			in.Rehearsal = true
			plan = policy.Plan(in, target, now, limit)
			if plan.Request(pod, plan.Until.Add(-time.Second), 9).Delete || plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("rehearsal: got a force deletion or replacement %+v, want none", plan.Replace)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   spot.Kind
		policy func(*spot.Policy)
		want   spot.Result
		drain  bool
		reason string
	}{
		{name: "rebalance by default", kind: spot.Rebalance, want: spot.Skipped, reason: "policy"},
		{name: "rebalance: cordon", kind: spot.Rebalance,
			policy: func(p *spot.Policy) { p.Rebalance = spot.RespondCordon }},
		{name: "rebalance: drain", kind: spot.Rebalance,
			policy: func(p *spot.Policy) { p.Rebalance = spot.RespondDrain }, drain: true},
		{name: "scheduled change by default", kind: spot.ScheduledChange, want: spot.Skipped, reason: "policy"},
		{name: "scheduled change: drain", kind: spot.ScheduledChange,
			policy: func(p *spot.Policy) { p.ScheduledChange = spot.RespondDrain }, drain: true},
		{name: "hook that is not configured", kind: spot.LifecycleTerminate, want: spot.Skipped, drain: true,
			reason: "lifecycle hook drain of group nodes.prod.example.com is not in KOPS_SPOT_HOOKS: it is left to whoever handles it"},
		{name: "configured hook", kind: spot.LifecycleTerminate,
			policy: func(p *spot.Policy) { p.Hooks = []string{"drain"} }, drain: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy := spot.DefaultPolicy(cluster)
			if c.policy != nil {
				c.policy(&policy)
			}
			in := warning(c.kind)
			in.Start, in.Action.Hook = eventTime.Add(time.Hour), "drain"
			plan := policy.Plan(in, newTarget(), eventTime, time.Time{})
			if plan.Result != c.want || plan.Drain != c.drain || !strings.Contains(plan.Reason, c.reason) {
				t.Errorf("got %q, drain %v, %q; want %q, %v, %q",
					plan.Result, plan.Drain, plan.Reason, c.want, c.drain, c.reason)
			}
			if plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("got replacement %s, want none", plan.Replace.Action)
			}
			in.Instance = "i-0eeeeeeeeeeeeeee1"
			target := spot.Target{Instance: &spot.Instance{ID: in.Instance}}
			if got := policy.Plan(in, target, eventTime, time.Time{}).Result; c.want == "" && got != spot.OtherCluster {
				t.Errorf("instance not created by kOps: got %q, want %s", got, spot.OtherCluster)
			}
		})
	}
}

// TestLimitsAreDocumented compares the table of time limits in the documentation with the rules.
func TestLimitsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/how-it-works.md")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for event, kind := range map[string]spot.Kind{"Spot warning, `terminate` or `stop`": spot.SpotTerminate,
		"Spot warning, `hibernate`": spot.SpotHibernate, "instance state change": spot.StateChange, "Auto Scaling failed launch": spot.LaunchFailed} {
		in := spot.Interruption{Kind: kind, Time: now}
		limit := spot.DefaultPolicy("c").Plan(in, spot.Target{}, now, time.Time{}).Until.Sub(now)
		if l := kind.Limit(); l > 0 {
			limit = l
		}
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| %s \| (after )?%d s\b`, regexp.QuoteMeta(event), int(limit.Seconds())))
		if !row.Match(doc) {
			t.Errorf("no row %q with %s", event, limit)
		}
	}
}
