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

const (
	HookLaunching   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	HookTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"
)

// Global is the maximum time in the wait state: 48 hours or 100 times the heartbeat timeout, whichever is less (API
// reference, LifecycleHook).
func (h Hook) Global() time.Duration { return min(100*h.Heartbeat, 48*time.Hour) }

func (h Hook) check() {
	awsRequire(h.Transition == HookLaunching || h.Transition == HookTerminating, "hook %s: AWS has no transition %q",
		h.Name, h.Transition)
}

// activeAction is a lifecycle action in progress.
type activeAction struct {
	spot.Action
	hook  Hook
	until time.Time
	timer *time.Timer
}

// TerminateMember terminates a member as TerminateInstanceInAutoScalingGroup does, and launches another (at once;
// whether AWS waits for the hooks is unverified). The group must have a termination hook. It returns the lifecycle
// actions that Auto Scaling sends to EventBridge.
func (a *AWS) TerminateMember(id string) []spot.Action {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.member(id)
	awsRequire(m != nil, "instance %q is in no group", id)
	awsRequire(m.State == "InService" || m.State == "Standby", "instance %s is %s and cannot be terminated", id,
		m.State)
	g := a.groups[m.Group]
	var actions []spot.Action
	for _, h := range g.Hooks {
		if h.Transition == HookTerminating {
			actions = append(actions, a.startAction(g, h, id))
		}
	}
	awsRequire(actions != nil, "group %s has no termination hook", g.Name)
	m.State = "Terminating:Wait"
	a.launchMissing(g)
	return actions
}

// startAction starts a lifecycle action.
func (a *AWS) startAction(g *Group, h Hook, instance string) spot.Action {
	a.actionNo++
	now := time.Now()
	token := fmt.Sprintf("%08x-0000-4000-8000-%012x", a.actionNo, a.firstID)
	held := &activeAction{Action: spot.Action{Group: g.Name, Hook: h.Name, Token: token, Instance: instance}, hook: h,
		until: now.Add(h.Heartbeat)}
	a.actions[held.Token] = held
	held.timer = time.AfterFunc(h.Heartbeat, func() { a.timeOut(held) })
	return held.Action
}

func (a *AWS) timeOut(held *activeAction) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.actions[held.Token] == held && !time.Now().Before(held.until) {
		a.endAction(held)
	}
}

// endAction ends a lifecycle action. After the last one of an instance, its termination continues.
func (a *AWS) endAction(held *activeAction) {
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

// HeldUntil returns when a lifecycle action times out; false if it is not active.
func (a *AWS) HeldUntil(token string) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.actions[token]
	if held == nil {
		return time.Time{}, false
	}
	return held.until, true
}

// RecordLifecycleActionHeartbeat restarts the timeout of the hook. Group, hook, token and instance must match.
func (a *AWS) RecordLifecycleActionHeartbeat(ctx context.Context, act spot.Action) error {
	return a.onAction(ctx, "RecordLifecycleActionHeartbeat", act, func(held *activeAction) {
		held.until = time.Now().Add(held.hook.Heartbeat)
		held.timer.Reset(held.hook.Heartbeat)
	})
}

// CompleteLifecycleAction completes a lifecycle action with the result CONTINUE.
func (a *AWS) CompleteLifecycleAction(ctx context.Context, act spot.Action) error {
	return a.onAction(ctx, "CompleteLifecycleAction", act, a.endAction)
}

func (a *AWS) onAction(ctx context.Context, op string, act spot.Action, do func(*activeAction)) error {
	c := AWSCall{Operation: op, Group: act.Group, Hook: act.Hook, IDs: []string{act.Instance}}
	return a.call(ctx, c, func() *AWSError {
		held := a.actions[act.Token]
		if held == nil || held.Action != act {
			// Message as reported by users. For an unknown group or hook it is unverified.
			return invalid("No active Lifecycle Action found with token %s", act.Token)
		}
		do(held)
		return nil
	})
}

// DescribeLifecycleHooks returns the hooks of a group, or those with these names. Omitting unknown names is unverified.
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
