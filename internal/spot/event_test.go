package spot_test

import (
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func TestWarnings(t *testing.T) {
	all := spot.WarningKinds()
	if !slices.Contains(all, spot.SpotTerminate) || !slices.Contains(all, spot.ScheduledChange) || slices.Contains(all, spot.StateChange) || !slices.IsSorted(all) {
		t.Errorf("%v", all)
	}
}

// TestImaginedWarningsAreActedOn, each with the whole time that a real one leaves, if the policy is to act on its kind.
func TestImaginedWarningsAreActedOn(t *testing.T) {
	leads := map[spot.Kind]time.Duration{spot.SpotHibernate: 20 * time.Second, spot.Rebalance: 15 * time.Minute, spot.ScheduledChange: 7 * 24 * time.Hour}
	policy := spot.DefaultPolicy(cluster)
	policy.Rebalance, policy.ScheduledChange, policy.Hooks = spot.RespondDrain, spot.RespondDrain, []string{"drain"}
	for _, k := range spot.WarningKinds() {
		in := policy.ExampleEvent(k, instance, "us-east-1", eventTime)
		plan := policy.Plan(in, ours(), eventTime, time.Time{})
		want := 120 * time.Second
		if lead, ok := leads[k]; ok {
			want = lead
		}
		if plan.Result != "" || plan.Deadline.Sub(eventTime) != want || in.Instance != instance {
			t.Errorf("%s: %s, %s; until %s after it, want %s", k, plan.Result, plan.Reason, plan.Deadline.Sub(eventTime), want)
		}
	}
	policy.Hooks = nil
	if plan := policy.Plan(policy.ExampleEvent(spot.LifecycleTerminate, instance, "us-east-1", eventTime), ours(), eventTime, time.Time{}); plan.Result != spot.Skipped {
		t.Errorf("a hook that nobody handles: %s", plan.Result)
	}
}
