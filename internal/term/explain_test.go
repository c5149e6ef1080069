package term

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// explanation returns the explanation of a node with a pod of each action.
func explanation(change func(*Explanation)) Explanation {
	e := Explanation{Region: "us-east-1", Policy: spot.DefaultPolicy("prod.example.com"), Outcome: outcome(spot.Planned, func(o *spot.Outcome) {
		o.Node = "ip-172-20-0-7.ec2.internal"
		o.Plan = &spot.PlanResult{Cordon: true, Drain: true, Replace: spot.ReplaceDetach, Group: "nodes.prod.example.com", Pods: []spot.PlannedPod{
			{Namespace: "shop", Name: "web-a", Action: spot.PodEvict, Reason: web, GracePeriod: 30, ForceAt: sec(85)},
			{Namespace: "shop", Name: "tool", Action: spot.PodEvict, Reason: "it ends with the instance", GracePeriod: 114.5},
			{Namespace: "shop", Name: "old", Action: spot.PodWait, Reason: "another request could only shorten its grace period"},
			{Namespace: "kube-system", Name: "logs-x", Action: spot.PodSkip, Reason: daemon},
		}}
	})}
	change(&e)
	return e
}

const essentials = `
  cluster      prod.example.com
  node         ip-172-20-0-7.ec2.internal, instance i-0a1b2c3d4e5f60718 in us-east-1
  event        spot-terminate: EC2 terminates the Spot instance
  deadline     120 s after the event
  replacement  detach the instance from nodes.prod.example.com
  policy       force-delete with a grace period of at most 60 s, DaemonSet pods skipped
`

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Explanation)
		want   string
	}{
		{"a node", func(*Explanation) {}, `
ip-172-20-0-7.ec2.internal  would be cordoned and drained
` + essentials + `
  2 would be evicted
    shop/web-a  grace period 30 s     force-delete after 85 s  ` + web + `
    shop/tool   grace period 114.5 s                           it ends with the instance

  1 already terminating
    shop/old  another request could only shorten its grace period

  1 would be skipped by rule
    kube-system/logs-x  ` + daemon + `
`},
		{"a pod that may be force-deleted", func(e *Explanation) { e.Pod = "shop/web-a" }, `
shop/web-a  would be evicted

  evicted with a grace period of 30 s: ` + web + `
  if the eviction is refused, it is retried; after 85 s, the pod is force-deleted with a grace period of 30 s,
  35 s before the deadline
` + essentials},
		{"a pod that is never force-deleted", func(e *Explanation) { e.Pod = "shop/tool" }, `
shop/tool  would be evicted

  evicted with a grace period of 114.5 s: it ends with the instance
  if the eviction is refused until the deadline, the pod stays on the node
` + essentials},
		{"a pod that the shutdown window covers", func(e *Explanation) {
			e.Pod = "shop/web-a"
			e.Outcome.Plan.Pods[0].ForceAt, e.Outcome.Plan.Pods[0].KubeletAt, e.Outcome.Plan.Pods[0].KubeletGrace = nil, sec(120), 20
		}, `
shop/web-a  would be evicted

  evicted with a grace period of 30 s: ` + web + `
  if the eviction is refused, it is retried until the deadline; then its kubelet terminates it with 20 s
` + strings.Replace(essentials, "force-delete with a grace period of at most 60 s, ", "", 1)},
		{"a pod that is skipped", func(e *Explanation) { e.Pod = "kube-system/logs-x" }, `
kube-system/logs-x  would be skipped by rule

  ` + daemon + `
` + essentials},
		{"a pod that has terminated meanwhile", func(e *Explanation) { e.Pod = "shop/gone" }, `
shop/gone  is no longer on the node
` + essentials},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := explained(t, explanation(c.change)), strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestExplainEssentials covers single lines.
func TestExplainEssentials(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Explanation)
		want   string
	}{
		"nothing to do": {func(e *Explanation) {
			e.Outcome.Result, e.Outcome.Reason = spot.Skipped, "the policy ignores the event"
		}, "ip-172-20-0-7.ec2.internal  nothing to do: the policy ignores the event\n"},
		"cordon only":                       {func(e *Explanation) { e.Outcome.Plan.Drain = false }, "  would be cordoned\n"},
		"the node's name is the instance's": {func(e *Explanation) { e.Outcome.Node = instance }, "  node         i-0a1b2c3d4e5f60718 in us-east-1\n"},
		"a replacement with a warning": {func(e *Explanation) { e.Outcome.Plan.Reason = "whether the detach skips a lifecycle hook is not known" },
			"  replacement  detach the instance from nodes.prod.example.com; whether the detach skips a lifecycle hook is not known\n"},
		"a replacement requested before": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplaceAlready, "it is leaving"
		}, "  replacement  already requested: it is leaving\n"},
		"no replacement": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplaceNone, "it is in no group"
		}, "  replacement  none: it is in no group\n"},
		"AWS was not queried": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason, e.NoAWS = spot.ReplaceNone, "the instance is unknown: no AWS credentials", "no AWS credentials"
		}, "  replacement  unknown: the instance is unknown: no AWS credentials\n"},
		"AWS was not queried, and need not be": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason, e.NoAWS = spot.ReplaceNone, "it may come back", "no AWS credentials"
		}, "  replacement  none: it may come back\n"},
		"the autoscaler": {func(e *Explanation) { e.Outcome.Plan.Replace = spot.ReplaceNotify }, "  replacement  notify the CAST AI autoscaler\n"},
		"Karpenter":      {func(e *Explanation) { e.Outcome.Plan.Replace = spot.ReplaceClaim }, "  replacement  delete the NodeClaim\n"},
		"Karpenter by itself": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplacePending, "Karpenter replaces the node"
		}, "  replacement  none: Karpenter replaces the node\n"},
		"cordoned already": {func(e *Explanation) {
			e.Applied = spot.Restored{Event: "7a", Deadline: time.Date(2026, 1, 31, 12, 2, 0, 0, time.UTC), Removed: []string{"unschedulable"}}
		}, "  cordoned     for event 7a, deadline 2026-01-31T12:02:00Z\n"},
		"another policy": {func(e *Explanation) {
			e.Policy.Force, e.Policy.DaemonSets, e.PolicyOf = spot.ForceNever, spot.DrainLast, "(yours)"
		}, "  policy       never force-delete, DaemonSet pods evicted last (yours)\n"},
		"a shutdown window": {func(e *Explanation) {
			e.Policy.ShutdownGrace = 20 * time.Second
			pods := e.Outcome.Plan.Pods
			pods[1].KubeletAt, pods[1].KubeletGrace = sec(120), 20
		}, "shop/tool   grace period 114.5 s  or its kubelet terminates it at +120 s with 20 s  it ends with the instance\n"},
		"a shutdown window in the policy": {func(e *Explanation) { e.Policy.ShutdownGrace = 20 * time.Second },
			"at most 60 s, shutdown window 20 s, DaemonSet pods skipped\n"},
		"another replacer":               {func(e *Explanation) { e.Policy.Replace = spot.ReplacerGroup }, "DaemonSet pods skipped, replacement by asg\n"},
		"the policy for recommendations": {func(e *Explanation) { e.Outcome.Event.Kind = spot.Rebalance }, "DaemonSet pods skipped, rebalance recommendations: ignore\n"},
		"the policy for changes":         {func(e *Explanation) { e.Outcome.Event.Kind = spot.ScheduledChange }, "DaemonSet pods skipped, scheduled changes: ignore\n"},
	} {
		if got := explained(t, explanation(c.change)); !strings.Contains(got, c.want) {
			t.Errorf("%s: missing\n%s\nin\n%s", name, c.want, got)
		}
	}
}

func explained(t *testing.T, e Explanation) string {
	t.Helper()
	var b strings.Builder
	if err := Explain(&b, e, Options{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRestoring(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		r    spot.Restored
		want string
	}{
		{"after the deadline", spot.Restored{Event: "7a", Deadline: now.Add(-90 * time.Minute), Removed: []string{"unschedulable", "label a=b"}, Changed: []string{"label c"}}, `
node n was cordoned by kops-spot for event 7a
the deadline passed 1h30m0s ago

  would be removed
    unschedulable
    label a=b

  would be kept, because somebody changed it
    label c

`},
		{"before the deadline", spot.Restored{Event: "7a", Deadline: now.Add(90 * time.Second), Removed: []string{"unschedulable"}}, `
node n was cordoned by kops-spot for event 7a
! the deadline is in 1m30s: EC2 is about to reclaim the instance, with all pods that are scheduled to it

  would be removed
    unschedulable

`},
		{"without an event", spot.Restored{Removed: []string{"annotation x"}}, `
node n was cordoned by kops-spot

  would be removed
    annotation x

`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := Restoring(&b, "node n", c.r, now, Options{}); err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimPrefix(c.want, "\n"); b.String() != want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), want)
			}
		})
	}
}

func TestSay(t *testing.T) {
	var plain, colored strings.Builder
	for _, m := range []Mark{Good, Mind, Bad} {
		Say(&plain, m, "one\ntwo", Options{})
		Say(&colored, m, "one\ntwo", Options{Color: true})
	}
	if want := "✔ one\n  two\n! one\n  two\n✗ one\n  two\n"; plain.String() != want {
		t.Errorf("got %q, want %q", plain.String(), want)
	}
	if want := "\x1b[32m✔\x1b[0m one\n  two\n\x1b[33m!\x1b[0m one\n  two\n\x1b[31m✗\x1b[0m one\n  two\n"; colored.String() != want {
		t.Errorf("got %q, want %q", colored.String(), want)
	}
}

func TestExplainWriteFails(t *testing.T) {
	full := errors.New("no space left")
	if err := Explain(failing{full}, explanation(func(*Explanation) {}), Options{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if err := Restoring(failing{full}, "n", spot.Restored{}, time.Now(), Options{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}
