package handler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// newOutcome returns an outcome without any steps.
func (c *invocation) newOutcome(plan spot.Plan) spot.Outcome {
	out := spot.Outcome{Version: spot.OutcomeVersion, Cluster: c.Policy.Cluster, Result: plan.Result, Reason: plan.Reason,
		Event: spot.EventInfo{ID: c.in.EventID, Kind: c.in.Kind, Instance: c.in.Instance, Group: c.in.Group,
			Time: c.in.Time, Rehearsal: c.in.Rehearsal},
		Instance: c.target().InstanceInfo(),
		Timings: spot.Timings{Started: spot.SecondsSince(c.in.Time, c.began),
			Finished: spot.SecondsSince(c.in.Time, time.Now())},
	}
	if !plan.Deadline.IsZero() {
		out.Deadline = plan.Deadline.UTC().Round(0)
	}
	if n, _ := c.node.known(); n != nil {
		out.Node = n.Name
	}
	return out
}

// outcome combines the drain and the replacement. It returns an error if nothing was changed and something failed.
func (c *invocation) outcome(d drainResult, r spot.ReplacementResult) (spot.Outcome, error) {
	t := c.target()
	plan := c.plan(t)
	out := c.newOutcome(plan)
	if plan.Result != "" {
		return out, nil
	}
	changed := out.SetReplacement(r) || d.Changed
	out.Problems, out.AttachedVolumes = d.Problems, d.Attached
	var replaceErr error
	if plan.Replace.Action != spot.ReplaceNone && r.Action == spot.ReplaceNone {
		replaceErr = fmt.Errorf("replacing the instance: %s", r.Reason)
	}
	if t.Node == nil {
		switch absent := errors.Is(t.NodeErr, errNotYet) || errors.Is(t.NodeErr, spot.ErrNotFound); {
		case absent && t.Instance == nil && !changed:
			return spot.Outcome{}, c.failure()
		case absent:
			out.Result, out.Reason = spot.NodeNotFound, "no node registered for the instance before the deadline"
		case !changed:
			return spot.Outcome{}, errors.Join(c.failure(), replaceErr)
		default:
			out.Result, out.Reason = spot.Incomplete, "the node could not be read from the cluster"
			out.Problems = append(out.Problems, c.failure().Error())
		}
		return out, nil
	}
	if d.Refused != "" {
		out.Result, out.Reason = d.Refused, d.Reason
		return out, nil
	}
	d.Timings.Started, d.Timings.Finished = out.Timings.Started, out.Timings.Finished
	out.Timings, out.Plan, out.Cordon, out.Pods = d.Timings, d.Plan, &d.Cordon, d.Pods
	if out.Plan == nil { // the pods were never listed
		out.Plan = plan.Summary(c.in, true, nil, c.began)
	}
	out.Plan.SetReplacement(plan)
	remaining, left := countPods(d.Pods, spot.PodStillRunning), leftToKubelet(d.Pods)
	trimPods(&out)
	switch {
	case !plan.Drain && d.Cordon.Error != "" && !changed:
		return spot.Outcome{}, fmt.Errorf("cordoning node %s: %s", out.Node, d.Cordon.Error)
	case !plan.Drain && d.Cordon.Error != "":
		out.Result, out.Reason = spot.Incomplete, "the node could not be cordoned"
	case !plan.Drain:
		out.Result, out.Reason = spot.Cordoned, "the policy is to cordon the node without draining it"
	case !d.Listed && !changed:
		err := fmt.Errorf("draining node %s: %s", out.Node, strings.Join(d.Problems, "; "))
		return spot.Outcome{}, errors.Join(err, replaceErr)
	case !d.Listed:
		out.Result, out.Reason = spot.Incomplete, "the node's pods could not be listed"
	case remaining > 0:
		out.Result, out.Reason = spot.Incomplete, podCount(remaining)+" still running"
		if left != "" {
			out.Reason += ", " + left
		}
	default:
		out.Result, out.Reason = spot.Drained, left
	}
	return out, nil
}

// maxPods limits the pods in an outcome: a log event has at most 256 KB. Pods are missing only if their owners recreate
// them on the node again and again.
const maxPods = 300

// trimPods removes pods that have left from a list that is too long.
func trimPods(out *spot.Outcome) {
	more := len(out.Pods) - maxPods
	if more <= 0 {
		return
	}
	hasLeft := func(p spot.PodResult) int {
		if p.Status == spot.PodEvicted || p.Status == spot.PodTerminated {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(out.Pods, func(a, b spot.PodResult) int { return hasLeft(a) - hasLeft(b) })
	out.Pods = out.Pods[:maxPods]
	out.Problems = append(out.Problems, fmt.Sprintf("%s more than listed here", podCount(more)))
}

func countPods(pods []spot.PodResult, status spot.PodStatus) (n int) {
	for _, p := range pods {
		if p.Status == status {
			n++
		}
	}
	return n
}

// leftToKubelet names the number of pods left to the kubelet; empty for none.
func leftToKubelet(pods []spot.PodResult) string {
	n := countPods(pods, spot.PodLeftToKubelet)
	if n == 0 {
		return ""
	}
	return podCount(n) + " left to the kubelet's shutdown window"
}

func podCount(n int) string {
	if n == 1 {
		return "1 pod"
	}
	return fmt.Sprintf("%d pods", n)
}
