package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Hook is a lifecycle hook.
type Hook struct {
	Name       string
	Transition string        // HookLaunching or HookTerminating
	Heartbeat  time.Duration // whole seconds, 30 s to 2 h; AWS's default of an hour if 0
	Default    string        // what a time-out counts as: CONTINUE, or ABANDON, which it is if empty
}

// The transitions that hooks are for.
const (
	HookLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	HookTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// The results of a lifecycle action.
const (
	resultContinue = "CONTINUE"
	resultAbandon  = "ABANDON"
)

// Timeout is how long the hook holds an instance from the beginning, or from the last heartbeat.
func (h Hook) Timeout() time.Duration { return cmp.Or(h.Heartbeat, time.Hour) }

// Global is how long the hook holds an instance in all: 48 hours, or 100 times the heartbeat timeout, whichever is less
// (API reference, LifecycleHook).
func (h Hook) Global() time.Duration { return min(100*h.Timeout(), 48*time.Hour) }

// Result is what a time-out counts as.
func (h Hook) Result() string { return cmp.Or(h.Default, resultAbandon) }

func (h Hook) mustBe() {
	awsMust(h.Transition == HookLaunching || h.Transition == HookTerminating, "hook %s: AWS has no transition %q", h.Name, h.Transition)
	awsMust(h.Result() == resultContinue || h.Result() == resultAbandon, "hook %s: AWS has no result %q", h.Name, h.Default)
}

// heldByHook is a lifecycle action that goes on.
type heldByHook struct {
	spot.Action
	hook  Hook
	last  time.Time // no heartbeat moves the end further than that
	until time.Time
	timer *time.Timer
}

// EndMember has a group end a member, as on TerminateInstanceInAutoScalingGroup; with decrement it desires one fewer, and
// else launches another (at once: whether AWS waits for the hooks is unverified). Each of the group's hooks for an
// instance's end holds it back: what it returns is what Auto Scaling tells EventBridge of each.
func (a *AWS) EndMember(id string, decrement bool) []spot.Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.member(id)
	awsMust(m != nil, "instance %q is in no group", id)
	awsMust(m.State == "InService" || m.State == "Standby", "instance %s is %s: the group cannot end it", id, m.State)
	g := a.groups[m.Group]
	if decrement {
		awsMust(g.Desired > g.Min, "group %s is at its minimum", g.Name)
		g.Desired--
	}
	act := a.begin(g.Name, activityTerminate, id, "InProgress", "instance "+id+" was taken out of service in response to a user request.")
	var told []spot.Action
	for _, h := range g.Hooks {
		if h.Transition == HookTerminating {
			told = append(told, a.hold(g, h, id))
		}
	}
	if told == nil {
		a.endMember(m, "Terminating")
	} else {
		m.State, act.Status = "Terminating:Wait", "MidLifecycleAction"
	}
	a.launchMissing(g)
	return told
}

// endMember ends the instance of a member, whose state says so until it is gone.
func (a *AWS) endMember(m *Member, state string) {
	m.State = state
	id := m.ID
	if i := a.instances[id]; i != nil && i.State != "terminated" {
		a.shutDown(i)
		return
	}
	a.leave(id)
	a.finish(id)
}

// hold begins a lifecycle action.
func (a *AWS) hold(g *Group, h Hook, instance string) spot.Action {
	a.actionNo++
	now := time.Now()
	held := &heldByHook{
		Action: spot.Action{Group: g.Name, Hook: h.Name, Token: fmt.Sprintf("%08x-0000-4000-8000-%012x", a.actionNo, a.firstID), Instance: instance},
		hook:   h, last: now.Add(h.Global()), until: now.Add(h.Timeout()),
	}
	a.actions[held.Token] = held
	held.timer = time.AfterFunc(h.Timeout(), func() { a.timeOut(held) })
	return held.Action
}

func (a *AWS) timeOut(held *heldByHook) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.actions[held.Token] == held && !time.Now().Before(held.until) {
		a.over(held, held.hook.Result())
	}
}

// over ends a lifecycle action. When all of an instance are over, its end goes on. ABANDON "stops any remaining actions,
// such as other lifecycle hooks"; the instance is terminated whatever the result (user guide, lifecycle hooks).
func (a *AWS) over(held *heldByHook, result string) {
	for token, other := range a.actions {
		if other == held || result == resultAbandon && other.Instance == held.Instance {
			other.timer.Stop()
			delete(a.actions, token)
		}
	}
	for _, other := range a.actions {
		if other.Instance == held.Instance {
			return
		}
	}
	if m := a.member(held.Instance); m != nil && m.State == "Terminating:Wait" {
		a.endMember(m, "Terminating:Proceed")
	}
}

// HeldUntil looks at a lifecycle action: when it times out, and whether it goes on at all.
func (a *AWS) HeldUntil(token string) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.actions[token]
	if held == nil {
		return time.Time{}, false
	}
	return held.until, true
}

// RecordLifecycleActionHeartbeat begins the hook's timeout anew, up to what it holds an instance in all. The action is
// named by group and hook and by its token or its instance; if by both, both must fit.
func (a *AWS) RecordLifecycleActionHeartbeat(ctx context.Context, act spot.Action) error {
	return a.onAction(ctx, "RecordLifecycleActionHeartbeat", act, func(held *heldByHook) {
		now := time.Now()
		held.until = now.Add(held.hook.Timeout())
		if held.until.After(held.last) {
			held.until = held.last
		}
		held.timer.Reset(held.until.Sub(now))
	})
}

// CompleteLifecycleAction ends a lifecycle action with a result: CONTINUE or ABANDON.
func (a *AWS) CompleteLifecycleAction(ctx context.Context, act spot.Action, result string) error {
	if result != resultContinue && result != resultAbandon {
		return a.call(ctx, actionCall("CompleteLifecycleAction", act), func() *AWSError {
			return invalid("Lifecycle action result must be CONTINUE or ABANDON, not %q", result) // words unverified
		})
	}
	return a.onAction(ctx, "CompleteLifecycleAction", act, func(held *heldByHook) { a.over(held, result) })
}

func (a *AWS) onAction(ctx context.Context, op string, act spot.Action, do func(*heldByHook)) error {
	return a.call(ctx, actionCall(op, act), func() *AWSError {
		if a.groups[act.Group] == nil {
			return noGroup(act.Group)
		}
		for _, held := range awsSorted(a.actions) {
			if held.fits(act) {
				do(held)
				return nil
			}
		}
		// The words are those that users report. Of a hook that the group does not have, they are unverified.
		if act.Token != "" {
			return invalid("No active Lifecycle Action found with token %s", act.Token)
		}
		return invalid("No active Lifecycle Action found with instance ID %s", act.Instance)
	})
}

func (held *heldByHook) fits(act spot.Action) bool {
	named := act.Token != "" || act.Instance != ""
	return named && held.Group == act.Group && held.Hook == act.Hook &&
		(act.Token == "" || act.Token == held.Token) && (act.Instance == "" || act.Instance == held.Instance)
}

func actionCall(op string, act spot.Action) AWSCall {
	return AWSCall{Operation: op, Group: act.Group, Hook: act.Hook, IDs: []string{act.Instance}}
}

// DescribeLifecycleHooks answers the hooks of a group, or those of these names. That one it does not have is left out is
// unverified; so is what AWS says of a group it does not know.
func (a *AWS) DescribeLifecycleHooks(ctx context.Context, group string, names ...string) ([]Hook, error) {
	var found []Hook
	err := a.call(ctx, AWSCall{Operation: "DescribeLifecycleHooks", Group: group}, func() *AWSError {
		g := a.groups[group]
		if g == nil {
			return noGroup(group)
		}
		for _, h := range g.Hooks {
			if len(names) == 0 || slices.Contains(names, h.Name) {
				found = append(found, h)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
