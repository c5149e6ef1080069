package spot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Plan is what to do about an interruption.
type Plan struct {
	Result   Result    // why not to act: Expired, OtherCluster or Skipped. Empty to act.
	Reason   string    // of Result
	Deadline time.Time // when the instance stops; if nothing stops it, when the work ends
	Until    time.Time // when the work ends: the deadline or the end of the invocation
	Drain    bool      // drain the node; otherwise only cordon it
	Replace  Replacement

	EvictOnce  bool // send one eviction per pod, with its full grace period
	NoDeadline bool // nothing stops the instance
	force      bool // the event allows force deletion
	policy     Policy
	limit      time.Time
	graces     time.Time     // the deadline, or as late as heartbeats can move it: grace periods count from it
	window     time.Duration // for how long the kubelet then delays the shutdown for ordinary pods
}

// NoDeadlineLimit limits the work if neither the instance nor the invocation has a deadline.
const NoDeadlineLimit = 15 * time.Minute

// Plan decides what to do about an interruption of the target. limit is when the invocation ends; zero for no limit.
//
// All times derive from the deadline. Example: a warning from 12:00:00, and a pod with a grace period of 90 s whose
// PodDisruptionBudget refuses. The instance stops at 12:02:00 and the reserve starts at 12:01:55. The pod is evicted
// with 90 s, and with less from 12:00:25. At 12:00:55 it is deleted with 60 s.
func (p Policy) Plan(in Interruption, t Target, now, limit time.Time) Plan {
	rule := ruleFor(in)
	plan := Plan{Deadline: p.deadline(in, rule, t, now, limit), Drain: true, force: rule.force, EvictOnce: rule.evictOnce,
		NoDeadline: rule.noDeadline, policy: p, limit: limit}
	if rule.shutdown {
		plan.window = p.ShutdownGrace.Truncate(time.Second)
	}
	plan = plan.WithDeadline(plan.Deadline, true)
	if t.Hook != nil {
		plan.graces = in.Time.Add(t.Hook.Global)
		if !limit.IsZero() { // the last heartbeat comes before the limit
			plan.graces = Later(plan.Deadline, Earlier(plan.graces, limit.Add(t.Hook.Heartbeat)))
		}
	}
	plan.Result, plan.Reason = p.whyNot(in, t, plan.Deadline, now)
	if response, ok := p.response(in.Kind); ok {
		plan.Drain = response == RespondDrain
		if plan.Result == "" && response == RespondIgnore {
			plan.Result, plan.Reason = Skipped, "the policy is to ignore this event"
		}
	}
	if plan.Result == "" || plan.Result == Skipped {
		plan.Replace = p.replace(rule, t)
	} else {
		plan.Replace = Replacement{Action: ReplaceNone, Reason: plan.Reason}
	}
	return plan
}

// WithDeadline returns the plan with another deadline: a lifecycle hook's heartbeat moves it. last is whether no
// further heartbeat moves it.
func (p Plan) WithDeadline(deadline time.Time, last bool) Plan {
	p.Deadline, p.Until = deadline, deadline
	if last {
		p.graces = deadline
	}
	if !p.limit.IsZero() {
		p.Until = Earlier(p.Until, p.limit)
	}
	return p
}

// deadline returns when the instance stops as far as known, or else when the work ends.
func (p Policy) deadline(in Interruption, rule eventRule, t Target, now, limit time.Time) time.Time {
	switch {
	case rule.noDeadline && limit.IsZero():
		return now.Add(NoDeadlineLimit)
	case rule.noDeadline:
		return limit
	case in.Kind == ScheduledChange:
		return in.Start
	}
	notice := rule.notice
	if t.Hook != nil {
		notice = min(t.Hook.Heartbeat, t.Hook.Global)
	}
	deadline := Earlier(in.Time, now).Add(notice)
	if t.Node != nil {
		if recorded, ok := t.Node.deadlineOfEvent(in.EventID); ok {
			deadline = Earlier(deadline, recorded)
		}
	}
	return deadline
}

// response returns the configured response to an event that does not stop the instance; false for other events.
func (p Policy) response(k Kind) (Response, bool) {
	switch k {
	case Rebalance:
		return cmp.Or(p.Rebalance, RespondIgnore), true
	case ScheduledChange:
		return cmp.Or(p.ScheduledChange, RespondIgnore), true
	}
	return "", false
}

// whyNot returns Expired, OtherCluster or Skipped with a reason, or an empty Result to act.
func (p Policy) whyNot(in Interruption, t Target, deadline, now time.Time) (Result, string) {
	if in.Replayed {
		return Expired, "replayed from an event archive"
	}
	if hook := in.Action.Hook; in.Kind == LifecycleTerminate {
		if why := p.OtherGroupNameReason(in.Action.Group); why != "" {
			return OtherCluster, why // clusters share the names of hooks, and get each other's events
		}
		if !slices.Contains(p.Hooks, hook) {
			return Skipped, fmt.Sprintf("lifecycle hook %s of group %s is not in KOPS_SPOT_HOOKS: it is left to whoever "+
				"handles it", hook, in.Action.Group)
		}
	}
	if t.Node != nil && in.Rehearsal && t.Node.isCordonedByUs() && !has(t.Node.Annotations, annotationRehearse) {
		return Skipped, "the node is already cordoned for event " + t.Node.Annotations[annotationEvent]
	}
	if t.Node == nil {
		switch {
		case t.Instance != nil:
			if why := p.OtherClusterReason(*t.Instance); why != "" {
				return OtherCluster, why
			}
		case errors.Is(t.InstanceErr, ErrNotFound):
			return OtherCluster, "EC2 has no such instance, and the cluster has no node for it"
		}
	}
	if !now.Before(deadline) {
		state := "the instance's state is unknown"
		if t.Instance != nil {
			state = "the instance is " + t.Instance.State
		}
		reason := fmt.Sprintf("the deadline passed %s ago; %s", now.Sub(deadline).Round(time.Second), state)
		if p.missed(in, t, deadline, now) {
			return Missed, reason
		}
		return Expired, reason
	}
	return "", ""
}

// interruptedLate is how long after the deadline EC2 may still end an instance. One that runs longer was spared.
const interruptedLate = time.Minute

// missed reports whether an interruption of our own instance was not handled before the deadline: neither the node's
// annotations nor the instance's tag show that any invocation worked on it.
func (p Policy) missed(in Interruption, t Target, deadline, now time.Time) bool {
	ours := t.Node != nil || t.Instance != nil && p.OtherClusterReason(*t.Instance) == ""
	if !ours || in.Rehearsal || !in.Kind.EndsInstance() || errors.Is(t.InstanceErr, ErrNotFound) {
		return false
	}
	if t.Instance != nil {
		at, err := time.Parse(time.RFC3339, t.Instance.Tags[TagInterruptedAt])
		spared := t.Instance.State == StateRunning && now.Sub(deadline) > interruptedLate
		if spared || err == nil && !at.Before(in.Time.Truncate(time.Second)) {
			return false
		}
	}
	if t.Node == nil || has(t.Node.Annotations, annotationRehearse) {
		return true
	}
	recorded, ok := t.Node.recordedDeadline()
	return !ok || !recorded.After(in.Time)
}

// LatePlan is the plan for a missed interruption of an instance that is still running: each pod is evicted once, with
// its own grace period, because the instance may stop at any moment.
func (p Policy) LatePlan(now, limit time.Time) Plan {
	plan := Plan{Drain: true, EvictOnce: true, policy: p, limit: limit,
		Replace: Replacement{Action: ReplaceNone, Reason: "the deadline has passed"}}
	return plan.WithDeadline(now.Add(eventRules[SpotHibernate].notice), true)
}

// OtherClusterReason returns why an instance is not a node of this cluster; empty if it is one.
func (p Policy) OtherClusterReason(i Instance) string {
	switch owner, ok := i.Tags[TagCluster]; {
	case !ok:
		return "the instance has no tag " + TagCluster + ": kOps did not create it"
	case owner != p.Cluster:
		return "the instance belongs to cluster " + owner
	case hasRole(Target{Instance: &i}, "bastion"):
		return "the instance is a bastion, not a node"
	}
	return ""
}

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
