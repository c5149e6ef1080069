package spot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is whether an interruption is ours to act on.
type Verdict string

const (
	Act     Verdict = "act"
	Stale   Verdict = "stale"   // it speaks of the past
	Foreign Verdict = "foreign" // it is another cluster's instance, or none of kOps'
	Noted   Verdict = "noted"   // it is ours, and the policy is to leave the node as it is
)

// Plan is what to do about one interruption, and why.
type Plan struct {
	Verdict  Verdict
	Reason   string    // why it is not acted on; empty for Act
	Deadline time.Time // the end of the machine, or of the work where nothing ends the machine
	Until    time.Time // when the work must be done: the deadline, or the end of the invocation
	Drain    bool      // the node is drained; otherwise it is only cordoned
	Replace  Replacement

	forced     bool
	EvictOnce  bool
	NoDeadline bool
	policy     Policy
	limit      time.Time
	graces     time.Time // until when grace periods may run: the deadline, or as far as heartbeats can move it
}

// noDeadlineLimit is how long work goes on that neither a machine's end nor an invocation's ends.
const NoDeadlineLimit = 15 * time.Minute

// Plan decides what to do about an interruption of the target at the moment now. limit is when the invocation that is to
// do it ends; zero if nothing ends it.
//
// All sums start from the deadline. A warning sent at 12:00:00 for a pod with a grace period of 90 s whose budget
// refuses: the machine ends at 12:02:00, the reserve begins at 12:01:55, so the eviction is asked for with 90 s at
// first, less from 12:00:25 on, and at 12:00:55 the pod is deleted past its budget with 60 s.
func (p Policy) Plan(in Interruption, t Target, now, limit time.Time) Plan {
	m := ruleFor(in)
	plan := Plan{Deadline: p.deadline(in, m, t, now, limit), Drain: true, forced: m.force, EvictOnce: m.evictOnce, NoDeadline: m.noDeadline, policy: p, limit: limit}
	plan.Until = plan.Deadline
	if !limit.IsZero() {
		plan.Until = Earlier(plan.Until, limit)
	}
	if plan.graces = plan.Deadline; t.Hook != nil {
		plan.graces = in.Time.Add(t.Hook.Global)
		if !limit.IsZero() { // the last heartbeat is sent by then
			plan.graces = Later(plan.Deadline, Earlier(plan.graces, limit.Add(t.Hook.Heartbeat)))
		}
	}
	plan.Verdict, plan.Reason = p.verdict(in, t, plan.Deadline, now)
	if response, asked := p.response(in.Kind); asked {
		plan.Drain = response == RespondDrain
		if plan.Verdict == Act && response == RespondIgnore {
			plan.Verdict, plan.Reason = Noted, "the policy is to leave the node as it is"
		}
	}
	if plan.Verdict == Act || plan.Verdict == Noted {
		plan.Replace = p.replace(m, t)
	} else {
		plan.Replace = Replacement{Action: ReplaceNone, Reason: plan.Reason}
	}
	return plan
}

// deadline is the end of the machine, as far as it is known; where nothing ends it, the end of the work.
func (p Policy) deadline(in Interruption, m eventRule, t Target, now, limit time.Time) time.Time {
	switch {
	case m.noDeadline && limit.IsZero():
		return now.Add(NoDeadlineLimit)
	case m.noDeadline:
		return limit
	case in.Kind == ScheduledChange:
		return in.Start
	}
	lead := m.notice
	if t.Hook != nil {
		lead = min(t.Hook.Heartbeat, t.Hook.Global)
	}
	deadline := Earlier(in.Time, now).Add(lead)
	if t.Node != nil {
		if marked, ok := t.Node.deadlineOfEvent(in.EventID); ok {
			deadline = Earlier(deadline, marked)
		}
	}
	return deadline
}

// response is what the policy says to do about an event that does not end the machine by itself; false for others.
func (p Policy) response(k Kind) (Response, bool) {
	switch k {
	case Rebalance:
		return cmp.Or(p.Rebalance, RespondIgnore), true
	case ScheduledChange:
		return cmp.Or(p.ScheduledChange, RespondIgnore), true
	}
	return "", false
}

// Moved is the plan with another end of the machine. A lifecycle hook's heartbeat moves it.
func (p Plan) WithDeadline(deadline time.Time) Plan {
	p.Deadline, p.Until = deadline, deadline
	if !p.limit.IsZero() {
		p.Until = Earlier(p.Until, p.limit)
	}
	return p
}

func (p Policy) verdict(in Interruption, t Target, deadline, now time.Time) (Verdict, string) {
	if in.Replayed {
		return Stale, "the event is a replay from an archive"
	}
	if in.Kind == LifecycleTerminate && !slices.Contains(p.Hooks, in.Action.Hook) {
		return Noted, fmt.Sprintf("the lifecycle hook %s of %s is not one that is handled: it is left to whom it belongs", in.Action.Hook, in.Action.Group)
	}
	if in.Kind == LifecycleTerminate && strings.HasSuffix(in.Action.Hook, suffixNTHHook) && t.Instance != nil && has(t.Instance.Tags, tagNTH) {
		return Noted, fmt.Sprintf("the lifecycle hook %s is aws-node-termination-handler's, which is there: the instance carries its tag %s", in.Action.Hook, tagNTH)
	}
	if t.Node == nil {
		switch {
		case t.Instance != nil:
			if why := p.OtherClusterReason(*t.Instance); why != "" {
				return Foreign, why
			}
		case errors.Is(t.InstanceErr, ErrNotFound):
			return Foreign, "EC2 knows no such instance and the cluster has no node of it"
		}
	}
	if !now.Before(deadline) {
		state := "what has become of the instance is not known"
		if t.Instance != nil {
			state = "EC2 says that the instance is " + t.Instance.State
		}
		return Stale, fmt.Sprintf("the deadline passed %s ago; %s", now.Sub(deadline).Round(time.Second), state)
	}
	return Act, ""
}

// otherClusterReason says why an instance is not one of this cluster's nodes; empty if it is.
func (p Policy) OtherClusterReason(i Instance) string {
	switch owner, ok := i.Tags[TagCluster]; {
	case !ok:
		return "the instance has no tag " + TagCluster + ": kOps did not make it"
	case owner != p.Cluster:
		return fmt.Sprintf("the instance belongs to the cluster %s", owner)
	case hasRole(Target{Instance: &i}, "bastion"):
		return "the instance is a bastion, not a node"
	}
	return ""
}

func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
