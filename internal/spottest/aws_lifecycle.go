package spottest

import (
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
	Heartbeat  time.Duration // whole seconds, 30 s to 2 h
}

// The transitions that hooks are for.
const (
	HookLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	HookTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Global is how long the hook holds an instance in all: 48 hours, or 100 times the heartbeat timeout, whichever is less
// (API reference, LifecycleHook).
func (h Hook) Global() time.Duration { return min(100*h.Heartbeat, 48*time.Hour) }

func (h Hook) mustBe() {
	awsMust(h.Transition == HookLaunching || h.Transition == HookTerminating, "hook %s: AWS has no transition %q", h.Name, h.Transition)
}

// heldByHook is a lifecycle action that goes on.
type heldByHook struct {
	spot.Action
	hook  Hook
	until time.Time
	timer *time.Timer
}

// EndMember has a group end a member, as on TerminateInstanceInAutoScalingGroup, and launch another (at once: whether AWS
// waits for the hooks is unverified). Each of the group's hooks for an instance's end holds it back, and there must be one:
// what it returns is what Auto Scaling tells EventBridge of each.
func (a *AWS) EndMember(id string) []spot.Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.member(id)
	awsMust(m != nil, "instance %q is in no group", id)
	awsMust(m.State == "InService" || m.State == "Standby", "instance %s is %s: the group cannot end it", id, m.State)
	g := a.groups[m.Group]
	var told []spot.Action
	for _, h := range g.Hooks {
		if h.Transition == HookTerminating {
			told = append(told, a.hold(g, h, id))
		}
	}
	awsMust(told != nil, "group %s has no hook for an instance's end", g.Name)
	m.State = "Terminating:Wait"
	a.begin(g.Name, activityTerminate, id, "MidLifecycleAction")
	a.launchMissing(g)
	return told
}

// hold begins a lifecycle action.
func (a *AWS) hold(g *Group, h Hook, instance string) spot.Action {
	a.actionNo++
	now := time.Now()
	held := &heldByHook{
		Action: spot.Action{Group: g.Name, Hook: h.Name, Token: fmt.Sprintf("%08x-0000-4000-8000-%012x", a.actionNo, a.firstID), Instance: instance},
		hook:   h, until: now.Add(h.Heartbeat),
	}
	a.actions[held.Token] = held
	held.timer = time.AfterFunc(h.Heartbeat, func() { a.timeOut(held) })
	return held.Action
}

func (a *AWS) timeOut(held *heldByHook) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.actions[held.Token] == held && !time.Now().Before(held.until) {
		a.over(held)
	}
}

// over ends a lifecycle action. When all of an instance are over, its end goes on.
func (a *AWS) over(held *heldByHook) {
	held.timer.Stop()
	delete(a.actions, held.Token)
	for _, other := range a.actions {
		if other.Instance == held.Instance {
			return
		}
	}
	if m := a.member(held.Instance); m != nil && m.State == "Terminating:Wait" {
		m.State = "Terminating:Proceed"
		a.shutDown(a.instances[m.ID])
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

// RecordLifecycleActionHeartbeat begins the hook's timeout anew. The action is named by group, hook, token and instance,
// which must fit.
func (a *AWS) RecordLifecycleActionHeartbeat(ctx context.Context, act spot.Action) error {
	return a.onAction(ctx, "RecordLifecycleActionHeartbeat", act, func(held *heldByHook) {
		held.until = time.Now().Add(held.hook.Heartbeat)
		held.timer.Reset(held.hook.Heartbeat)
	})
}

// CompleteLifecycleAction ends a lifecycle action with the result CONTINUE.
func (a *AWS) CompleteLifecycleAction(ctx context.Context, act spot.Action) error {
	return a.onAction(ctx, "CompleteLifecycleAction", act, a.over)
}

func (a *AWS) onAction(ctx context.Context, op string, act spot.Action, do func(*heldByHook)) error {
	c := AWSCall{Operation: op, Group: act.Group, Hook: act.Hook, IDs: []string{act.Instance}}
	return a.call(ctx, c, func() *AWSError {
		held := a.actions[act.Token]
		if held == nil || held.Action != act {
			// The words are those that users report. Of a group or hook that there is not, they are unverified.
			return invalid("No active Lifecycle Action found with token %s", act.Token)
		}
		do(held)
		return nil
	})
}

// DescribeLifecycleHooks answers the hooks of a group, or those of these names. That one it does not have is left out is
// unverified.
func (a *AWS) DescribeLifecycleHooks(ctx context.Context, group string, names ...string) ([]Hook, error) {
	var found []Hook
	err := a.call(ctx, AWSCall{Operation: "DescribeLifecycleHooks", Group: group}, func() *AWSError {
		for _, h := range a.mustGroup(group).Hooks {
			if len(names) == 0 || slices.Contains(names, h.Name) {
				found = append(found, h)
			}
		}
		return nil
	})
	return found, err
}
