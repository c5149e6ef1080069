package term

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	instance = "i-0a1b2c3d4e5f60718"
	web      = "its ReplicaSet web-5d9c8b7f creates another elsewhere"
	daemon   = "its DaemonSet would recreate it on this node"
	refusal  = "refused with 429: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget pay needs 1 healthy pods and has 1 currently"
)

func sec(s float64) *spot.Seconds { return new(spot.Seconds(s)) }

// outcome returns the outcome of a Spot warning, with the fields that every result has.
func outcome(r spot.Result, change func(*spot.Outcome)) spot.Outcome {
	event := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	out := spot.Outcome{Version: 1, Result: r, Cluster: "prod.example.com", Deadline: event.Add(2 * time.Minute),
		Event:   spot.EventInfo{ID: "e", Kind: spot.SpotTerminate, Instance: instance, Time: event},
		Timings: spot.Timings{Started: sec(0.46), Finished: sec(8.5)}}
	change(&out)
	return out
}

func pod(name, owner string, status spot.PodStatus, reason string, change ...func(*spot.PodResult)) spot.PodResult {
	p := spot.PodResult{Namespace: "shop", Name: name, UID: name, Owner: owner, Status: status, Reason: reason}
	for _, c := range change {
		c(&p)
	}
	return p
}

func gone(s float64) func(*spot.PodResult) {
	return func(p *spot.PodResult) { p.TerminatedAt = sec(s) }
}

func refused(n int) func(*spot.PodResult) {
	return func(p *spot.PodResult) { p.Refusals, p.LastRefusal = n, refusal }
}

func drained() spot.Outcome {
	return outcome(spot.Drained, func(o *spot.Outcome) {
		o.Node = "ip-172-20-0-7.ec2.internal"
		o.Cordon = &spot.CordonResult{At: sec(0.7)}
		o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceDetach, Group: "nodes-us-east-1a.prod.example.com", At: sec(0.8), SkippedHooks: []string{"backup"}}
		o.Timings.Located, o.Timings.Cordoned, o.Timings.LastEviction, o.Timings.Empty = sec(0.6), sec(0.7), sec(5.2), sec(6.5)
		o.Pods = []spot.PodResult{
			pod("web-5d9c8b7f-aaaaa", "ReplicaSet/web-5d9c8b7f", spot.PodEvicted, web, gone(3)),
			pod("web-5d9c8b7f-bbbbb", "ReplicaSet/web-5d9c8b7f", spot.PodEvicted, web, gone(6.5), refused(2)),
			pod("pay-1", "StatefulSet/pay", spot.PodForceDeleted, "it was deleted despite the refusals: the instance ends anyway", gone(70), refused(30)),
			pod("tool", "", spot.PodEvicted, "it has no controller: it ends with the instance", gone(1.25)),
			pod("left-early", "Job/x", spot.PodTerminated, "another request could only shorten its grace period", gone(2)),
			pod("logs-x", "DaemonSet/logs", spot.PodSkipped, daemon),
			pod("net-x", "DaemonSet/net", spot.PodSkipped, daemon),
		}
	})
}

func TestTimeline(t *testing.T) {
	for _, c := range []struct {
		name string
		out  spot.Outcome
		want string
	}{
		{"drained", drained(), `
drained  ip-172-20-0-7.ec2.internal: cordoned after 0.70 s, last eviction after 5.20 s, empty after 6.50 s; 113.50 s to spare

     +0.00 s  event spot-terminate for i-0a1b2c3d4e5f60718
     +0.46 s  received by the handler
     +0.60 s  node found
     +0.70 s  node cordoned
     +0.80 s  instance detached from nodes-us-east-1a.prod.example.com
     +5.20 s  last pod evicted
     +6.50 s  node empty
   +120.00 s  deadline
           -  lifecycle hooks skipped by the detach: backup

  1 force-deleted
    shop/pay-1  terminated +70.00 s  it was deleted despite the refusals: the instance ends anyway
                                     30 refusals, last: 429: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget pay needs 1 healthy pods and has 1 currently

  3 evicted
    shop/web-5d9c8b7f ×2  terminated +6.50 s  after 2 refusals
    shop/tool             terminated +1.25 s  it has no controller: it ends with the instance

  1 terminated without eviction
    shop/left-early  terminated +2.00 s  another request could only shorten its grace period

  2 skipped by rule
    shop/logs-x, shop/net-x  its DaemonSet would recreate it on this node
`},
		{"incomplete", outcome(spot.Incomplete, func(o *spot.Outcome) {
			o.Node, o.Reason = instance, "2 pods still running at the deadline"
			o.Cordon = &spot.CordonResult{Error: "the request timed out"}
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceNone, Reason: "the process Launch is suspended in its group g"}
			o.Timings.Located, o.Timings.LastEviction, o.Timings.Finished = sec(0.6), sec(5.7), sec(114.9)
			o.Pods = []spot.PodResult{
				pod("pay-0", "StatefulSet/pay", spot.PodStillRunning, "every eviction was refused", refused(1)),
				pod("slow", "Job/slow", spot.PodStillRunning, "it was evicted and was still terminating"),
				pod("kept", "Job/kept", spot.PodStuck, "its containers have exited: a finalizer or an unmount keeps the object"),
			}
			o.Problems = []string{"cordoning the node: the request timed out"}
		}), `
incomplete  i-0a1b2c3d4e5f60718: 2 pods still running at the deadline; not cordoned, last eviction after 5.70 s

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
     +0.60 s  node found
     +5.70 s  last pod evicted
   +114.90 s  gave up
   +120.00 s  deadline
           -  no replacement requested: the process Launch is suspended in its group g

  2 still running at the end
    shop/pay-0  every eviction was refused
                1 refusal, last: 429: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget pay needs 1 healthy pods and has 1 currently
    shop/slow   it was evicted and was still terminating

  1 exited but not deleted
    shop/kept  its containers have exited: a finalizer or an unmount keeps the object

  problems
    cordoning the node: the request timed out
`},
		{"left to the kubelet", outcome(spot.Drained, func(o *spot.Outcome) {
			o.Node, o.Reason = instance, "1 pod left to the kubelet's shutdown window"
			o.Timings.Cordoned = sec(0.7)
			o.Pods = []spot.PodResult{pod("pay-0", "StatefulSet/pay", spot.PodLeftToKubelet,
				"every eviction was refused; its kubelet ends it in the shutdown window", refused(1))}
		}), `
drained  i-0a1b2c3d4e5f60718: 1 pod left to the kubelet's shutdown window; cordoned after 0.70 s

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
     +0.70 s  node cordoned
   +120.00 s  deadline

  1 left to the kubelet's shutdown window
    shop/pay-0  every eviction was refused; its kubelet ends it in the shutdown window
                1 refusal, last: 429: Cannot evict pod as it would violate the pod's disruption budget. The disruption budget pay needs 1 healthy pods and has 1 currently
`},
		{"another cluster's instance", outcome(spot.OtherCluster, func(o *spot.Outcome) {
			o.Reason, o.Timings.Finished = "the instance belongs to the cluster staging.example.com", sec(0.6)
		}), `
other cluster  i-0a1b2c3d4e5f60718: the instance belongs to the cluster staging.example.com
`},
		{"ignored", spot.Outcome{Version: 1, Result: spot.Ignored, Reason: `no rule for events of type "X" from "aws.ec2"`, Event: spot.EventInfo{ID: "e", DetailType: "X"}}, `
ignored  X: no rule for events of type "X" from "aws.ec2"
`},
		{"planned", outcome(spot.Planned, func(o *spot.Outcome) {
			o.Node = instance
			o.Plan = &spot.PlanResult{Cordon: true, Replace: spot.ReplaceDetach, Group: "nodes.prod.example.com", Pods: []spot.PlannedPod{
				{Namespace: "shop", Name: "web-a", Action: spot.PodEvict, Reason: web, GracePeriod: 30, ForceAt: sec(85)},
				{Namespace: "shop", Name: "web-b", Action: spot.PodEvict, Reason: web, GracePeriod: 30, ForceAt: sec(85)},
				{Namespace: "shop", Name: "old", Action: spot.PodWait, Reason: "another request could only shorten its grace period"},
				{Namespace: "kube-system", Name: "logs-x", Action: spot.PodSkip, Reason: daemon},
			}}
		}), `
planned  i-0a1b2c3d4e5f60718: nothing was changed

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
   +120.00 s  deadline

  the node would be cordoned
  replacement: detach the instance from nodes.prod.example.com

  2 would be evicted
    shop/web-a  grace period 30 s  force-delete after 85 s  its ReplicaSet web-5d9c8b7f creates another elsewhere
    shop/web-b  grace period 30 s  force-delete after 85 s  its ReplicaSet web-5d9c8b7f creates another elsewhere

  1 already terminating
    shop/old  another request could only shorten its grace period

  1 would be skipped by rule
    kube-system/logs-x  its DaemonSet would recreate it on this node
`},
		{"planned without a node", outcome(spot.Planned, func(o *spot.Outcome) {
			o.Reason = "no node of the instance has registered yet"
			o.Plan = &spot.PlanResult{Replace: spot.ReplaceNone, Reason: "the instance is in no Auto Scaling group"}
		}), `
planned  i-0a1b2c3d4e5f60718: no node of the instance has registered yet; nothing was changed

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
   +120.00 s  deadline

  replacement: none: the instance is in no Auto Scaling group
`},
		{"node not found, replacement already requested", outcome(spot.NodeNotFound, func(o *spot.Outcome) {
			o.Reason = "no node of the instance registered before the deadline"
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceAlready, Group: "nodes.prod.example.com", Reason: "it is already detached from its group"}
			o.Timings.Finished = sec(115)
		}), `
node not found  i-0a1b2c3d4e5f60718: no node of the instance registered before the deadline

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
   +115.00 s  gave up
   +120.00 s  deadline
           -  replacement already requested: it is already detached from its group
`},
		{"replacement failed", outcome(spot.ReplacementFailed, func(o *spot.Outcome) {
			o.Reason, o.Deadline = "group nodes.prod.example.com has 1 of 2 instances and could not launch another: no capacity", time.Time{}
			o.Event = spot.EventInfo{Kind: spot.LaunchFailed, Group: "nodes.prod.example.com"}
			o.FailedLaunch = &spot.FailedLaunch{Detached: []string{instance}}
		}), `
replacement failed  nodes.prod.example.com: group nodes.prod.example.com has 1 of 2 instances and could not launch another: no capacity

     +0.00 s  event launch-failed
     +0.46 s  received by the handler

  detached without a replacement
    i-0a1b2c3d4e5f60718
`},
		{"replaced, hooks unknown", outcome(spot.Drained, func(o *spot.Outcome) {
			o.Node = instance
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceDetach, Group: "g", At: sec(0.8), Reason: "whether the detach skips a lifecycle hook is not known: access denied"}
			o.Timings.Empty = sec(1)
		}), `
drained  i-0a1b2c3d4e5f60718: empty after 1.00 s; 119.00 s to spare

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
     +0.80 s  instance detached from g
     +1.00 s  node empty
   +120.00 s  deadline
           -  replacement: whether the detach skips a lifecycle hook is not known: access denied
`},
		{"detached only", outcome(spot.Incomplete, func(o *spot.Outcome) {
			o.Reason = "the node could not be read"
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceDetach, Group: "nodes.prod.example.com", At: sec(3.6)}
			o.Timings.Finished = sec(115)
			o.Problems = []string{"finding the node of " + instance + ": connection refused"}
		}), `
incomplete  i-0a1b2c3d4e5f60718: the node could not be read

     +0.00 s  event spot-terminate
     +0.46 s  received by the handler
     +3.60 s  instance detached from nodes.prod.example.com
   +115.00 s  gave up
   +120.00 s  deadline

  problems
    finding the node of i-0a1b2c3d4e5f60718: connection refused
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := Timeline(&b, c.out, Options{}); err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimPrefix(c.want, "\n"); b.String() != want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), want)
			}
		})
	}
}

// TestTimelineLines covers lines that only some events have.
func TestTimelineLines(t *testing.T) {
	for _, c := range []struct {
		name string
		out  spot.Outcome
		want []string
	}{
		{"the CAST AI autoscaler", outcome(spot.Drained, func(o *spot.Outcome) {
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceNotify, AutoscalerEvent: "interrupted", At: sec(2)}
		}), []string{"+2.00 s  CAST AI autoscaler notified: interrupted"}},
		{"a lifecycle hook", outcome(spot.Drained, func(o *spot.Outcome) {
			o.Lifecycle = &spot.LifecycleResult{Hook: "drain", Group: "g", Completed: sec(30)}
		}), []string{"+30.00 s  lifecycle hook drain completed"}},
		{"a lifecycle action that is not completed", outcome(spot.Incomplete, func(o *spot.Outcome) {
			o.Replacement = &spot.ReplacementResult{Action: spot.ReplaceNone, Reason: "why"}
			o.Lifecycle = &spot.LifecycleResult{Hook: "drain", Reason: "the node is not empty"}
		}), []string{"-  lifecycle hook drain: the node is not empty"}},
		{"a clean-up", outcome(spot.CleanedUp, func(o *spot.Outcome) {
			o.Cleanup = &spot.CleanupResult{Tainted: sec(1), PodsDeleted: sec(2), VolumesDetached: sec(3), NodeDeleted: sec(4)}
			o.Pods = []spot.PodResult{pod("db-0", "StatefulSet/db", spot.PodDeleted, "its instance has stopped", gone(2))}
		}), []string{"pods deleted after 2.00 s", "+1.00 s  out-of-service taint applied", "+3.00 s  volumes detached", "+4.00 s  node deleted", "1 deleted after the instance stopped"}},
		{"volumes", outcome(spot.Drained, func(o *spot.Outcome) {
			o.AttachedVolumes = []string{"csi^vol-1"}
		}), []string{"still attached\n    csi^vol-1"}},
		{"several instances", spot.Outcome{Result: spot.Incomplete, Outcomes: []spot.Outcome{drained(), outcome(spot.Incomplete, func(o *spot.Outcome) { o.Reason = "2 pods still running" })}},
			[]string{"incomplete  2 instances in one event\n\ndrained  ip-172", "\nincomplete  " + instance + ": 2 pods still running"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if err := Timeline(&b, c.out, Options{}); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is missing in\n%s", want, b.String())
				}
			}
		})
	}
}

// TestLongLists: pods share rows, and the omitted rows are counted.
func TestLongLists(t *testing.T) {
	out := outcome(spot.Drained, func(o *spot.Outcome) {
		for i := range 30 {
			name := fmt.Sprintf("job-%02d", i)
			o.Pods = append(o.Pods, pod(name, "Job/"+name, spot.PodEvicted, "its Job "+name+" creates another elsewhere", gone(1)))
			o.Pods = append(o.Pods, pod("daemon-"+name, "DaemonSet/d", spot.PodSkipped, daemon), pod("daemon2-"+name, "DaemonSet/e", spot.PodSkipped, daemon))
		}
	})
	var b strings.Builder
	if err := Timeline(&b, out, Options{}); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "deadline\n\n")
	want := "  30 evicted\n"
	for i := range 9 {
		want += fmt.Sprintf("    shop/job-%02d  terminated +1.00 s\n", i)
	}
	want += "    and 21 more\n\n  60 skipped by rule\n    shop/daemon-job-00, shop/daemon2-job-00 and 58 more  " + daemon + "\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestColor(t *testing.T) {
	var b, colored strings.Builder
	if err := Timeline(&b, drained(), Options{}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("unexpected color: %q", b.String())
	}
	if err := Timeline(&colored, drained(), Options{Color: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(colored.String(), "\x1b[32mdrained\x1b[0m  ip-172") {
		t.Errorf("the result is not green: %q", colored.String()[:40])
	}
	bare := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(colored.String())
	if bare != b.String() {
		t.Errorf("color changes the text:\n%s\n%s", bare, b.String())
	}
}

func TestWriteFails(t *testing.T) {
	full := errors.New("no space left")
	if err := Timeline(failing{full}, drained(), Options{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestReport(t *testing.T) {
	rows := [][]string{{"", "warnings", "p50"}, {"total", "1000", "9.5 s"}, {"by group"}, {"nodes-é", "999", "10.5 s"}, {"unknown", "1", ""}}
	for name, c := range map[string]struct {
		notes, notices []string
		want           string
	}{
		"a table": {nil, nil, `Title

         warnings     p50
total        1000   9.5 s

by group
nodes-é       999  10.5 s
unknown         1
`},
		"with notes": {[]string{"other: 1 cordoned"}, []string{"the log is short"}, `Title

         warnings     p50
total        1000   9.5 s

by group
nodes-é       999  10.5 s
unknown         1

other: 1 cordoned
! the log is short
`},
	} {
		var b strings.Builder
		if err := Report(&b, "Title", rows, c.notes, c.notices, Options{}); err != nil || b.String() != c.want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, b.String(), c.want)
		}
	}
}
