package spot_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	cluster  = "prod.example.com"
	instance = "i-0123456789abcdef0"
	group    = "nodes-us-east-1a." + cluster
)

var eventTime = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// after returns the time so many seconds after the event.
func after(seconds float64) time.Time {
	return eventTime.Add(time.Duration(seconds * float64(time.Second)))
}

func warning(kind spot.Kind) spot.Interruption {
	in := spot.Interruption{EventID: "e1", Kind: kind, Instance: instance, Region: "us-east-1", Time: eventTime}
	if kind == spot.LifecycleTerminate {
		in.Action.Group = "nodes." + cluster
	}
	return in
}

func newNode() spot.Node {
	return spot.Node{Name: instance, ProviderID: "aws:///us-east-1a/" + instance}
}

// newTarget returns an instance of the cluster in its group, and its node.
func newTarget() spot.Target {
	node, tags := newNode(), map[string]string{spot.TagCluster: cluster}
	return spot.Target{
		Node:       &node,
		Instance:   &spot.Instance{ID: instance, State: "running", Spot: true, Tags: tags},
		Membership: &spot.Membership{Group: group, LifecycleState: "InService", GroupTags: tags},
	}
}

// labeled returns a change that replaces the labels of the node.
func labeled(key, value string) func(*spot.Target) {
	return func(t *spot.Target) { t.Node.Labels = map[string]string{key: value} }
}

func TestPlanResult(t *testing.T) {
	other := &spot.Instance{ID: instance, State: "running", Tags: map[string]string{spot.TagCluster: "other.example.com"}}
	for _, c := range []struct {
		name   string
		event  func(*spot.Interruption)
		target func(*spot.Target)
		now    float64 // seconds after the event
		want   spot.Result
		reason string
	}{
		{name: "in time"},
		{name: "event from the future", now: -60},
		{name: "replay", event: func(in *spot.Interruption) { in.Replayed = true }, want: spot.Expired, reason: "replay"},
		{name: "at the deadline", now: 120, want: spot.Missed, reason: "passed 0s ago; the instance is running"},
		{name: "one second before the deadline", now: 119},
		{name: "after the deadline, instance unknown", now: 3600, target: func(t *spot.Target) { t.Instance = nil },
			want: spot.Missed, reason: "unknown"},
		{name: "after the deadline, spared", now: 181, want: spot.Expired},
		{name: "after the deadline, terminated", now: 181, target: func(t *spot.Target) { t.Instance.State = "terminated" },
			want: spot.Missed},
		{name: "after the deadline, tagged", now: 130, want: spot.Expired, target: func(t *spot.Target) {
			t.Instance.Tags = map[string]string{spot.TagCluster: cluster, spot.TagInterruptedAt: eventTime.Format(time.RFC3339)}
		}},
		{name: "after the deadline, tagged for an earlier event", now: 130, want: spot.Missed, target: func(t *spot.Target) {
			t.Instance.Tags = map[string]string{spot.TagCluster: cluster,
				spot.TagInterruptedAt: eventTime.Add(-time.Minute).Format(time.RFC3339)}
		}},
		{name: "after the deadline, cordoned", now: 130, want: spot.Expired, target: func(t *spot.Target) {
			n := spot.Cordon(*t.Node, warning(spot.SpotTerminate), spot.Plan{Deadline: after(120)})
			t.Node = &n
		}},
		{name: "after the deadline, not found", now: 130, want: spot.Expired, target: func(t *spot.Target) {
			t.Instance, t.InstanceErr = nil, spot.ErrNotFound
		}},
		{name: "after the deadline of a recommendation", now: 130, want: spot.Skipped,
			event: func(in *spot.Interruption) { in.Kind = spot.Rebalance }},
		{name: "after the deadline of a hibernation", event: func(in *spot.Interruption) { in.Kind = spot.SpotHibernate },
			now: 20, want: spot.Missed},
		{name: "other cluster", target: func(t *spot.Target) { t.Node, t.Instance = nil, other },
			want: spot.OtherCluster, reason: "other.example.com"},
		{name: "not created by kOps", target: func(t *spot.Target) { t.Node, t.Instance = nil, &spot.Instance{ID: instance} },
			want: spot.OtherCluster, reason: "no tag KubernetesCluster"},
		{name: "bastion", target: func(t *spot.Target) { t.Node, t.Instance.Tags["k8s.io/role/bastion"] = nil, "1" },
			want: spot.OtherCluster, reason: "bastion"},
		{name: "not found", target: func(t *spot.Target) {
			*t = spot.Target{InstanceErr: fmt.Errorf("x: %w", spot.ErrNotFound)}
		}, want: spot.OtherCluster},
		{name: "node, instance unknown", target: func(t *spot.Target) { t.Instance = nil }},
		{name: "node, tag of another cluster", target: func(t *spot.Target) { t.Instance = other }},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, target := warning(spot.SpotTerminate), newTarget()
			if c.event != nil {
				c.event(&in)
			}
			if c.target != nil {
				c.target(&target)
			}
			plan := spot.DefaultPolicy(cluster).Plan(in, target, after(c.now), time.Time{})
			if plan.Result != c.want || !strings.Contains(plan.Reason, c.reason) {
				t.Errorf("got %q, %q; want %q, %q", plan.Result, plan.Reason, c.want, c.reason)
			}
			if plan.Result != "" && plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("got replacement %s, want none", plan.Replace.Action)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	cordoned := func(event string, deadline time.Time) *spot.Node {
		n := spot.Cordon(spot.Node{Name: instance}, spot.Interruption{EventID: event}, spot.Plan{Deadline: deadline})
		return &n
	}
	for _, c := range []struct {
		name            string
		kind            spot.Kind
		node            *spot.Node
		now, limit      time.Time
		deadline, until time.Time
	}{
		{"terminate", spot.SpotTerminate, nil, after(1), time.Time{}, after(120), after(120)},
		{"stop", spot.SpotStop, nil, after(1), time.Time{}, after(120), after(120)},
		{"hibernate", spot.SpotHibernate, nil, after(1), time.Time{}, after(20), after(20)},
		{"event from the future", spot.SpotTerminate, nil, after(-30), time.Time{}, after(90), after(90)},
		{"short invocation", spot.SpotTerminate, nil, after(1), after(55), after(120), after(55)},
		{"long invocation", spot.SpotTerminate, nil, after(1), after(900), after(120), after(120)},
		{"cordoned for the same event", spot.SpotTerminate, cordoned("e1", after(100)), after(1), time.Time{},
			after(100), after(100)},
		{"cordoned for another event", spot.SpotTerminate, cordoned("e0", after(100)), after(1), time.Time{},
			after(120), after(120)},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := newTarget()
			if c.node != nil {
				target.Node = c.node
			}
			plan := spot.DefaultPolicy(cluster).Plan(warning(c.kind), target, c.now, c.limit)
			if !plan.Deadline.Equal(c.deadline) || !plan.Until.Equal(c.until) {
				t.Errorf("got deadline %v, until %v; want %v, %v", plan.Deadline, plan.Until, c.deadline, c.until)
			}
		})
	}
}

func TestWithDeadline(t *testing.T) {
	policy, in, target := spot.DefaultPolicy(cluster), warning(spot.LifecycleTerminate), newTarget()
	in.Action.Hook, policy.Hooks = "drain", []string{"drain"}
	target.Hook = &spot.Hook{Heartbeat: 5 * time.Minute, Global: time.Hour}
	limit := eventTime.Add(10 * time.Minute)
	plan := policy.Plan(in, target, eventTime, limit)
	forPod := func(grace time.Duration) spot.PodPlan {
		return plan.ForPod(spot.Pod{Name: "web", GracePeriod: grace}, eventTime)
	}
	if at := forPod(30 * time.Second).ForceAt; !at.Equal(after(599)) { // heartbeats reach beyond the limit
		t.Errorf("got force deletion after %s, want 599s", at.Sub(eventTime))
	}
	stopped := plan.WithDeadline(eventTime.Add(7*time.Minute), true)
	pod := spot.Pod{Name: "web", GracePeriod: 30 * time.Second}
	if at := stopped.ForPod(pod, eventTime).ForceAt; !at.Equal(after(385)) {
		t.Errorf("after the last heartbeat: got force deletion after %s, want 385s", at.Sub(eventTime))
	}
	plan = plan.WithDeadline(eventTime.Add(7*time.Minute), false)
	// The last heartbeat, at the limit, moves the deadline to 15 minutes after the event.
	for own, want := range map[time.Duration]time.Duration{
		12 * time.Minute: 12 * time.Minute,
		time.Hour:        15*time.Minute - 5*time.Second,
	} {
		if got := forPod(own).GracePeriod; got != want {
			t.Errorf("got grace period %s for %s, want %s", got, own, want)
		}
	}
	if plan = plan.WithDeadline(eventTime.Add(time.Hour), false); !plan.Until.Equal(limit) {
		t.Errorf("got until %s, want %s", plan.Until, limit)
	}
}

func TestIsInstance(t *testing.T) {
	for providerID, want := range map[string]bool{
		"aws:///us-east-1a/" + instance:             true,
		"aws:///us-east-1a/" + instance + "1":       false,
		"aws:///us-east-1a/x" + instance:            false,
		"aws:///" + instance + "/i-0bbbbbbbbbbbbb0": false,
		"": false,
	} {
		if got := (spot.Node{ProviderID: providerID}).IsInstance(instance); got != want {
			t.Errorf("%q: got %v, want %v", providerID, got, want)
		}
	}
}

func TestNodeNames(t *testing.T) {
	for _, c := range []struct{ dns, ip, region, want string }{
		{"ip-10-0-1-2.ec2.internal", "10.0.1.2", "us-east-1", "[i-1 ip-10-0-1-2.ec2.internal]"},
		{"ip-10-0-1-2.eu-west-1.compute.internal", "10.0.1.2", "eu-west-1",
			"[i-1 ip-10-0-1-2.eu-west-1.compute.internal]"},
		{"i-1.eu-west-1.compute.internal", "10.0.1.2", "eu-west-1",
			"[i-1 i-1.eu-west-1.compute.internal ip-10-0-1-2.eu-west-1.compute.internal]"},
		{"", "", "eu-west-1", "[i-1]"},
	} {
		got := spot.Instance{ID: "i-1", PrivateDNSName: c.dns, PrivateIP: c.ip}.NodeNames(c.region)
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s, %s: got %v, want %s", c.dns, c.ip, got, c.want)
		}
	}
}
