package term

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// explanation is one of a node with a pod of each fate.
func explanation(change func(*Explanation)) Explanation {
	e := Explanation{Region: "us-east-1", Policy: spot.DefaultPolicy("prod.example.com"), Outcome: outcome(spot.Planned, func(o *spot.Outcome) {
		o.Node = "ip-172-20-0-7.ec2.internal"
		o.Plan = &spot.PlanResult{Cordon: true, Replace: spot.ReplaceDetach, Group: "nodes.prod.example.com", Pods: []spot.PlannedPod{
			{Namespace: "shop", Name: "web-a", Action: spot.PodEvict, Reason: web, GracePeriod: 30, ForceAt: sec(85)},
			{Namespace: "shop", Name: "tool", Action: spot.PodEvict, Reason: "it ends with the machine", GracePeriod: 114.5},
			{Namespace: "shop", Name: "old", Action: spot.PodWait, Reason: "it is ending already"},
			{Namespace: "kube-system", Name: "logs-x", Action: spot.PodSkip, Reason: daemon},
		}}
	})}
	change(&e)
	return e
}

const essentials = `
  cluster      prod.example.com
  node         ip-172-20-0-7.ec2.internal, the instance i-0a1b2c3d4e5f60718 in us-east-1
  warning      spot-terminate: EC2 terminates the Spot instance
  deadline     120 s after the warning
  replacement  asked of nodes.prod.example.com, by detaching the instance from it
  policy       reserve 5 s, past budgets with at most 60 s of grace, DaemonSets' pods not asked, 50 evictions at once
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
    shop/web-a  grace 30 s     past its budget after 85 s  ` + web + `
    shop/tool   grace 114.5 s                              it ends with the machine

  1 would be watched only
    shop/old  it is ending already

  1 would be left by rule
    kube-system/logs-x  ` + daemon + `
`},
		{"a pod that may be forced", func(e *Explanation) { e.Pod = "shop/web-a" }, `
shop/web-a  would be evicted

  it is told to end, with a grace period of 30 s: ` + web + `
  if a budget or a webhook refuses that, it is asked again and again; 85 s after the warning it is deleted past what refuses it,
  with a grace period of 30 s, 35 s before the machine ends
` + essentials},
		{"a pod that is never forced", func(e *Explanation) { e.Pod = "shop/tool" }, `
shop/tool  would be evicted

  it is told to end, with a grace period of 114.5 s: it ends with the machine
  if a budget or a webhook refuses that to the last, it stays on the machine
` + essentials},
		{"a pod that stays", func(e *Explanation) { e.Pod = "kube-system/logs-x" }, `
kube-system/logs-x  would be left by rule

  ` + daemon + `
` + essentials},
		{"a pod that has gone meanwhile", func(e *Explanation) { e.Pod = "shop/gone" }, `
shop/gone  has just left the node
` + essentials},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := explained(t, explanation(c.change)), strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestExplainEssentials are one line each.
func TestExplainEssentials(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Explanation)
		want   string
	}{
		"nothing would be done":             {func(e *Explanation) { e.Outcome.Result, e.Outcome.Reason = spot.Skipped, "the policy is so" }, "ip-172-20-0-7.ec2.internal  nothing would be done: the policy is so\n"},
		"the node's name is the instance's": {func(e *Explanation) { e.Outcome.Node = instance }, "  node         i-0a1b2c3d4e5f60718 in us-east-1\n"},
		"a replacement with a doubt": {func(e *Explanation) { e.Outcome.Plan.Reason = "whether the detach skips a lifecycle hook is not known" },
			"  replacement  asked of nodes.prod.example.com, by detaching the instance from it; whether the detach skips a lifecycle hook is not known\n"},
		"somebody has asked": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplaceAlready, "it is leaving"
		}, "  replacement  asked for already: it is leaving\n"},
		"no replacement": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplaceNone, "it is in no group"
		}, "  replacement  not asked: it is in no group\n"},
		"AWS was not asked": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason, e.Unasked = spot.ReplaceNone, "EC2 could not be asked: no AWS credentials", "no AWS credentials"
		}, "  replacement  not known: EC2 could not be asked: no AWS credentials\n"},
		"AWS was not asked, and need not be": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason, e.Unasked = spot.ReplaceNone, "it may come back", "no AWS credentials"
		}, "  replacement  not asked: it may come back\n"},
		"the autoscaler": {func(e *Explanation) { e.Outcome.Plan.Replace = spot.ReplaceNotify }, "  replacement  CAST AI's autoscaler is told\n"},
		"Karpenter":      {func(e *Explanation) { e.Outcome.Plan.Replace = spot.ReplaceClaim }, "  replacement  the node's NodeClaim is deleted, and Karpenter launches what is needed\n"},
		"Karpenter by itself": {func(e *Explanation) {
			e.Outcome.Plan.Replace, e.Outcome.Plan.Reason = spot.ReplacePending, "Karpenter sees to it"
		}, "  replacement  not asked: Karpenter sees to it\n"},
		"marked already": {func(e *Explanation) {
			e.Marks = spot.Restored{Event: "7a", Deadline: time.Date(2026, 1, 31, 12, 2, 0, 0, time.UTC), Removed: []string{"unschedulable"}}
		}, "  marks        it is marked for the event 7a already, with the deadline 2026-01-31T12:02:00Z\n"},
		"another policy": {func(e *Explanation) {
			e.Policy.Force, e.Policy.DaemonSets, e.Policy.Reserve, e.From = spot.ForceNever, spot.DrainLast, 2500*time.Millisecond, "(yours)"
		}, "  policy       reserve 2.5 s, never past budgets, DaemonSets' pods asked last, 50 evictions at once (yours)\n"},
		"who is asked":                   {func(e *Explanation) { e.Policy.Replace = spot.ReplacerGroup }, "50 evictions at once, replacement by asg\n"},
		"the policy for recommendations": {func(e *Explanation) { e.Outcome.Event.Kind = spot.Rebalance }, "50 evictions at once, rebalance recommendations: ignore\n"},
		"the policy for changes":         {func(e *Explanation) { e.Outcome.Event.Kind = spot.ScheduledChange }, "50 evictions at once, scheduled changes: ignore\n"},
	} {
		if got := explained(t, explanation(c.change)); !strings.Contains(got, c.want) {
			t.Errorf("%s: nothing says\n%s\nin\n%s", name, c.want, got)
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
		{"its time has passed", spot.Restored{Event: "7a", Deadline: now.Add(-90 * time.Minute), Removed: []string{"unschedulable", "label a=b"}, Changed: []string{"label c"}}, `
node n is marked for the event 7a
its deadline passed 1h30m0s ago

  would be taken off
    unschedulable
    label a=b

  would stay, since somebody has changed it
    label c

`},
		{"it has time yet", spot.Restored{Event: "7a", Deadline: now.Add(90 * time.Second), Removed: []string{"unschedulable"}}, `
node n is marked for the event 7a
! its deadline is in 1m30s: EC2 is still to take the machine, and the pods that come to it end with it

  would be taken off
    unschedulable

`},
		{"it does not say for what", spot.Restored{Removed: []string{"annotation x"}}, `
node n is marked

  would be taken off
    annotation x

`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := Restoring(&b, "n", c.r, now, Options{}); err != nil {
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

func TestNothingCanBeWritten(t *testing.T) {
	full := errors.New("no space left")
	if err := Explain(failing{full}, explanation(func(*Explanation) {}), Options{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
	if err := Restoring(failing{full}, "n", spot.Restored{}, time.Now(), Options{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}
