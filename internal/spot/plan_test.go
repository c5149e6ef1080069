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

func warning(kind spot.Kind) spot.Interruption {
	return spot.Interruption{EventID: "e1", Kind: kind, Instance: instance, Region: "us-east-1", Time: eventTime}
}

// ours is an instance of the cluster in its group, and its node: everything as usual.
func ours() spot.Target {
	tags := map[string]string{spot.TagCluster: cluster}
	return spot.Target{
		Node:       &spot.Node{Name: instance, ProviderID: "aws:///us-east-1a/" + instance},
		Instance:   &spot.Instance{ID: instance, State: "running", Spot: true, Tags: tags},
		Membership: &spot.Membership{Group: group, LifecycleState: "InService", GroupTags: tags},
	}
}

func TestPlanVerdict(t *testing.T) {
	foreign := &spot.Instance{ID: instance, State: "running", Tags: map[string]string{spot.TagCluster: "other.example.com"}}
	for _, c := range []struct {
		name   string
		in     func(*spot.Interruption)
		target func(*spot.Target)
		after  time.Duration // from the event to now
		want   spot.Result
		reason string
	}{
		{name: "ours"},
		{name: "a future event counts as now", after: -time.Minute},
		{name: "a replay", in: func(in *spot.Interruption) { in.Replayed = true }, want: spot.Expired, reason: "replay"},
		{name: "the deadline is now", after: 2 * time.Minute, want: spot.Expired, reason: "passed 0s ago; the instance is running"},
		{name: "a second before the deadline", after: 119 * time.Second},
		{name: "past, and EC2 cannot be asked", after: time.Hour, target: func(t *spot.Target) { t.Instance = nil }, want: spot.Expired, reason: "unknown"},
		{name: "hibernation begins at once", in: func(in *spot.Interruption) { in.Kind = spot.SpotHibernate }, after: 20 * time.Second, want: spot.Expired},
		{name: "another cluster's", target: func(t *spot.Target) { t.Node, t.Instance = nil, foreign }, want: spot.OtherCluster, reason: "other.example.com"},
		{name: "none of kOps'", target: func(t *spot.Target) { t.Node, t.Instance = nil, &spot.Instance{ID: instance} }, want: spot.OtherCluster, reason: "no tag KubernetesCluster"},
		{name: "a bastion", target: func(t *spot.Target) { t.Node, t.Instance.Tags["k8s.io/role/bastion"] = nil, "1" }, want: spot.OtherCluster, reason: "bastion"},
		{name: "unknown to EC2", target: func(t *spot.Target) { *t = spot.Target{InstanceErr: fmt.Errorf("x: %w", spot.ErrNotFound)} }, want: spot.OtherCluster},
		{name: "our node proves itself without EC2", target: func(t *spot.Target) { t.Instance = nil }},
		{name: "our node proves itself against the tag", target: func(t *spot.Target) { t.Instance = foreign }},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, target := warning(spot.SpotTerminate), ours()
			if c.in != nil {
				c.in(&in)
			}
			if c.target != nil {
				c.target(&target)
			}
			plan := spot.DefaultPolicy(cluster).Plan(in, target, eventTime.Add(c.after), time.Time{})
			if plan.Result != c.want || !strings.Contains(plan.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", plan.Result, plan.Reason, c.want, c.reason)
			}
			if plan.Result != "" && plan.Replace.Action != spot.ReplaceNone {
				t.Errorf("the plan is not acted on, but replaces by %s", plan.Replace.Action)
			}
		})
	}
}

func TestPlanReplace(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   spot.Kind
		target func(*spot.Target)
		want   spot.ReplaceAction
		reason string
	}{
		{name: "terminate", want: spot.ReplaceDetach},
		{name: "stop", kind: spot.SpotStop, want: spot.ReplaceNone, reason: "may start it again"},
		{name: "hibernate", kind: spot.SpotHibernate, want: spot.ReplaceNone, reason: "may resume it"},
		{name: "standby", target: func(t *spot.Target) { t.Membership.LifecycleState = "Standby" }, want: spot.ReplaceDetach},
		{name: "still in service with our tags", target: func(t *spot.Target) { t.Instance.Tags[spot.TagDetached] = group }, want: spot.ReplaceDetach},
		{name: "no node yet", target: func(t *spot.Target) { t.Node = nil }, want: spot.ReplaceDetach},
		{name: "detaching", target: func(t *spot.Target) { t.Membership.LifecycleState = "Detaching" }, want: spot.ReplaceAlready, reason: "Detaching"},
		{name: "terminating", target: func(t *spot.Target) { t.Membership.LifecycleState = "Terminating:Wait" }, want: spot.ReplaceAlready},
		{name: "detached before", target: func(t *spot.Target) {
			t.Membership, t.MembershipErr, t.Instance.Tags[spot.TagDetached] = nil, spot.ErrNotFound, group
		}, want: spot.ReplaceAlready},
		{name: "in no group", target: func(t *spot.Target) { t.Membership, t.MembershipErr = nil, spot.ErrNotFound }, want: spot.ReplaceNone, reason: "in no Auto Scaling group"},
		{name: "the group cannot be asked", target: func(t *spot.Target) { t.Membership, t.MembershipErr = nil, fmt.Errorf("denied") }, want: spot.ReplaceNone, reason: "denied"},
		{name: "EC2 cannot be asked", target: func(t *spot.Target) { t.Instance, t.InstanceErr = nil, fmt.Errorf("timeout") }, want: spot.ReplaceNone, reason: "timeout"},
		{name: "the instance's tag is another's", target: func(t *spot.Target) { t.Instance.Tags = map[string]string{spot.TagCluster: "x.example.com"} }, want: spot.ReplaceNone, reason: "x.example.com"},
		{name: "the group's tag is another's", target: func(t *spot.Target) { t.Membership.GroupTags = nil }, want: spot.ReplaceNone, reason: "does not have the tag"},
		{name: "the group's name is not kOps'", target: func(t *spot.Target) { t.Membership.Group = "nodes" }, want: spot.ReplaceNone, reason: "does not end with"},
		{name: "launch suspended", target: func(t *spot.Target) { t.Membership.Suspended = []string{"AZRebalance", "Launch"} }, want: spot.ReplaceNone, reason: "suspended"},
		{name: "other processes suspended", target: func(t *spot.Target) { t.Membership.Suspended = []string{"AZRebalance"} }, want: spot.ReplaceDetach},
		{name: "control plane by tag", target: func(t *spot.Target) { t.Instance.Tags["k8s.io/role/control-plane"] = "1" }, want: spot.ReplaceNone, reason: "control-plane"},
		{name: "old control plane by tag", target: func(t *spot.Target) { t.Instance.Tags["k8s.io/role/master"] = "1" }, want: spot.ReplaceNone, reason: "control-plane"},
		{name: "API server by label", target: func(t *spot.Target) { t.Node.Labels = map[string]string{"node-role.kubernetes.io/api-server": ""} }, want: spot.ReplaceNone, reason: "control-plane"},
		{name: "Karpenter by label", target: func(t *spot.Target) { t.Node.Labels = map[string]string{"karpenter.sh/nodepool": "spot"} }, want: spot.ReplacePending, reason: "Karpenter"},
		{name: "Karpenter by tag", target: func(t *spot.Target) { t.Instance.Tags["karpenter.sh/nodepool"] = "spot" }, want: spot.ReplacePending, reason: "Karpenter"},
		{name: "in the warm pool", target: func(t *spot.Target) { t.Membership.LifecycleState = "Warmed:Stopped" }, want: spot.ReplaceNone, reason: "warm pool"},
		{name: "cluster-autoscaler removes it", target: func(t *spot.Target) { t.Node.Taints = []spot.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}} }, want: spot.ReplaceNone, reason: "cluster-autoscaler"},
		{name: "Karpenter removes it", target: func(t *spot.Target) { t.Node.Taints = []spot.Taint{{Key: "karpenter.sh/disrupted"}} }, want: spot.ReplaceNone, reason: "Karpenter is removing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.kind == "" {
				c.kind = spot.SpotTerminate
			}
			target := ours()
			if c.target != nil {
				c.target(&target)
			}
			got := spot.DefaultPolicy(cluster).Plan(warning(c.kind), target, eventTime, time.Time{}).Replace
			if got.Action != c.want || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
			if got.Action == spot.ReplaceNone && got.Reason == "" {
				t.Error("no replacement, and no reason why")
			}
		})
	}
}

func TestPlanNamesTheUsersHooksThatADetachSkips(t *testing.T) {
	target := ours()
	target.Membership.TerminateHooks = []string{"drain-queue", "nodes-NTHLifecycleHook"}
	got := spot.DefaultPolicy(cluster).Plan(warning(spot.SpotTerminate), target, eventTime, time.Time{}).Replace.SkippedHooks
	if fmt.Sprint(got) != "[drain-queue]" {
		t.Errorf("got %v, want the user's hook alone", got)
	}
}

func TestPlanDeadline(t *testing.T) {
	at := func(s int) time.Time { return eventTime.Add(time.Duration(s) * time.Second) }
	marked := func(event string, deadline time.Time) *spot.Node {
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
		{"terminate", spot.SpotTerminate, nil, at(1), time.Time{}, at(120), at(120)},
		{"stop", spot.SpotStop, nil, at(1), time.Time{}, at(120), at(120)},
		{"hibernate", spot.SpotHibernate, nil, at(1), time.Time{}, at(20), at(20)},
		{"an event from the future", spot.SpotTerminate, nil, at(-30), time.Time{}, at(90), at(90)},
		{"a short invocation", spot.SpotTerminate, nil, at(1), at(55), at(120), at(55)},
		{"a long invocation", spot.SpotTerminate, nil, at(1), at(900), at(120), at(120)},
		{"marked by an earlier try for this event", spot.SpotTerminate, marked("e1", at(100)), at(1), time.Time{}, at(100), at(100)},
		{"marked for another event", spot.SpotTerminate, marked("e0", at(100)), at(1), time.Time{}, at(120), at(120)},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := ours()
			if c.node != nil {
				target.Node = c.node
			}
			plan := spot.DefaultPolicy(cluster).Plan(warning(c.kind), target, c.now, c.limit)
			if !plan.Deadline.Equal(c.deadline) || !plan.Until.Equal(c.until) {
				t.Errorf("deadline %v, until %v; want %v, %v", plan.Deadline, plan.Until, c.deadline, c.until)
			}
		})
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
			t.Errorf("%q: %v", providerID, got)
		}
	}
}

func TestNodeNames(t *testing.T) {
	for _, c := range []struct {
		dns, ip, region string
		want            string
	}{
		{"ip-10-0-1-2.ec2.internal", "10.0.1.2", "us-east-1", "[i-1 ip-10-0-1-2.ec2.internal]"},
		{"ip-10-0-1-2.eu-west-1.compute.internal", "10.0.1.2", "eu-west-1", "[i-1 ip-10-0-1-2.eu-west-1.compute.internal]"},
		{"i-1.eu-west-1.compute.internal", "10.0.1.2", "eu-west-1", "[i-1 i-1.eu-west-1.compute.internal ip-10-0-1-2.eu-west-1.compute.internal]"},
		{"", "", "eu-west-1", "[i-1]"},
	} {
		got := spot.Instance{ID: "i-1", PrivateDNSName: c.dns, PrivateIP: c.ip}.NodeNames(c.region)
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}
