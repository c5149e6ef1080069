package spot_test

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

func TestReplacement(t *testing.T) {
	tagged := func(key, value string) func(*spot.Target) {
		return func(t *spot.Target) { t.Instance.Tags[key] = value }
	}
	tainted := func(key string) func(*spot.Target) {
		return func(t *spot.Target) { t.Node.Taints = []spot.Taint{{Key: key}} }
	}
	state := func(s string) func(*spot.Target) { return func(t *spot.Target) { t.Membership.LifecycleState = s } }
	suspended := func(processes ...string) func(*spot.Target) {
		return func(t *spot.Target) { t.Membership.Suspended = processes }
	}
	noGroup := func(t *spot.Target) { t.Membership, t.MembershipErr = nil, spot.ErrNotFound }
	for _, c := range []struct {
		name   string
		kind   spot.Kind // SpotTerminate if empty
		target func(*spot.Target)
		want   spot.ReplaceAction
		reason string
	}{
		{name: "terminate", want: spot.ReplaceDetach},
		{name: "stop", kind: spot.SpotStop, want: spot.ReplaceNone, reason: "may start it again"},
		{name: "hibernate", kind: spot.SpotHibernate, want: spot.ReplaceNone, reason: "may resume it"},
		{name: "standby", target: state("Standby"), want: spot.ReplaceDetach},
		{name: "in service, tagged as detached", target: tagged(spot.TagDetached, group), want: spot.ReplaceDetach},
		{name: "no node", target: func(t *spot.Target) { t.Node = nil }, want: spot.ReplaceDetach},
		{name: "detaching", target: state("Detaching"), want: spot.ReplaceAlready, reason: "Detaching"},
		{name: "terminating", target: state("Terminating:Wait"), want: spot.ReplaceAlready},
		{name: "detached", target: func(t *spot.Target) { noGroup(t); tagged(spot.TagDetached, group)(t) },
			want: spot.ReplaceAlready},
		{name: "in no group", target: noGroup, want: spot.ReplaceNone, reason: "in no Auto Scaling group"},
		{name: "group unreadable", target: func(t *spot.Target) {
			t.Membership, t.MembershipErr = nil, errors.New("denied")
		}, want: spot.ReplaceNone, reason: "denied"},
		{name: "instance unreadable", target: func(t *spot.Target) {
			t.Instance, t.InstanceErr = nil, errors.New("timeout")
		}, want: spot.ReplaceNone, reason: "timeout"},
		{name: "instance of another cluster", target: func(t *spot.Target) {
			t.Instance.Tags = map[string]string{spot.TagCluster: "x.example.com"}
		}, want: spot.ReplaceNone, reason: "x.example.com"},
		{name: "group without the tag", target: func(t *spot.Target) { t.Membership.GroupTags = nil },
			want: spot.ReplaceNone, reason: "does not have the tag"},
		{name: "group not named by kOps", target: func(t *spot.Target) { t.Membership.Group = "nodes" },
			want: spot.ReplaceNone, reason: "does not end with"},
		{name: "launch suspended", target: suspended("AZRebalance", "Launch"),
			want: spot.ReplaceNone, reason: "suspended"},
		{name: "other process suspended", target: suspended("AZRebalance"), want: spot.ReplaceDetach},
		{name: "control plane by tag", target: tagged("k8s.io/role/control-plane", "1"),
			want: spot.ReplaceNone, reason: "control-plane"},
		{name: "control plane by former tag", target: tagged("k8s.io/role/master", "1"),
			want: spot.ReplaceNone, reason: "control-plane"},
		{name: "API server by label", target: labeled("node-role.kubernetes.io/api-server", ""),
			want: spot.ReplaceNone, reason: "control-plane"},
		{name: "Karpenter by label", target: labeled("karpenter.sh/nodepool", "spot"),
			want: spot.ReplacePending, reason: "Karpenter"},
		{name: "Karpenter by tag", target: tagged("karpenter.sh/nodepool", "spot"),
			want: spot.ReplacePending, reason: "Karpenter"},
		{name: "warm pool", target: state("Warmed:Stopped"), want: spot.ReplaceNone, reason: "warm pool"},
		{name: "removed by cluster-autoscaler", target: tainted("ToBeDeletedByClusterAutoscaler"),
			want: spot.ReplaceNone, reason: "cluster-autoscaler"},
		{name: "removed by Karpenter", target: tainted("karpenter.sh/disrupted"),
			want: spot.ReplaceNone, reason: "Karpenter is removing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := newTarget()
			if c.target != nil {
				c.target(&target)
			}
			in := warning(cmp.Or(c.kind, spot.SpotTerminate))
			got := spot.DefaultPolicy(cluster).Plan(in, target, eventTime, time.Time{}).Replace
			if got.Action != c.want || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
			if got.Action == spot.ReplaceNone && got.Reason == "" {
				t.Error("got no reason for no replacement")
			}
		})
	}
}

func TestReplacer(t *testing.T) {
	castai := labeled("provisioner.cast.ai/node-id", "n1")
	karpenter := func(t *spot.Target) {
		labeled("karpenter.sh/nodepool", "spot")(t)
		t.Node.NodeClaim, t.Membership, t.MembershipErr = "spot-x7", nil, spot.ErrNotFound
	}
	for _, c := range []struct {
		name   string
		target func(*spot.Target)
		policy spot.Replacer // ReplacerAuto if empty
		apiKey bool          // for CAST AI
		want   spot.ReplaceAction
		reason string
	}{
		{name: "auto", apiKey: true, want: spot.ReplaceDetach},
		{name: "auto, CAST AI node", target: castai, apiKey: true, want: spot.ReplaceNotify},
		{name: "auto, CAST AI node without API key", target: castai, want: spot.ReplaceNone, reason: "no API key"},
		{name: "auto, Karpenter node", target: karpenter, apiKey: true, want: spot.ReplacePending},
		{name: "karpenter, Karpenter node", target: karpenter, policy: spot.ReplacerKarpenter, want: spot.ReplaceClaim},
		{name: "karpenter", policy: spot.ReplacerKarpenter, want: spot.ReplaceNone, reason: "no Karpenter NodeClaim"},
		{name: "none", policy: spot.ReplacerNone, want: spot.ReplaceNone, reason: "policy"},
		{name: "asg, CAST AI node", target: castai, apiKey: true, policy: spot.ReplacerGroup, want: spot.ReplaceDetach},
		{name: "castai", apiKey: true, policy: spot.ReplacerAutoscaler, want: spot.ReplaceNotify},
		{name: "castai, no node", apiKey: true, policy: spot.ReplacerAutoscaler,
			target: func(t *spot.Target) { t.Node = nil }, want: spot.ReplaceNone, reason: "a known node"},
		{name: "castai, control plane", apiKey: true, policy: spot.ReplacerAutoscaler,
			target: func(t *spot.Target) { t.Instance.Tags["k8s.io/role/master"] = "1" },
			want:   spot.ReplaceNone, reason: "control-plane"},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy, target := spot.DefaultPolicy(cluster), newTarget()
			policy.Replace, policy.HasAutoscaler = cmp.Or(c.policy, spot.ReplacerAuto), c.apiKey
			if c.target != nil {
				c.target(&target)
			}
			got := policy.Plan(warning(spot.SpotTerminate), target, eventTime, time.Time{}).Replace
			if got.Action != c.want || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("got %s, %q; want %s, %q", got.Action, got.Reason, c.want, c.reason)
			}
		})
	}
}

func TestSkippedHooks(t *testing.T) {
	policy, target := spot.DefaultPolicy(cluster), newTarget()
	policy.Hooks = []string{"kops-spot"}
	target.Membership.TerminateHooks = []string{"drain-queue", "kops-spot", "nodes-NTHLifecycleHook"}
	plan := policy.Plan(warning(spot.SpotTerminate), target, eventTime, time.Time{})
	if got, want := plan.Replace.SkippedHooks, []string{"drain-queue"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
