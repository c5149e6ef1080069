package sim

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// hooked is an account whose group has a hook for launches and these for the end of an instance; the first of its members
// is ending.
func hooked(t *testing.T, hooks ...Hook) (a *AWS, id string, told []spot.Action) {
	t.Helper()
	a, ids, _ := account(func(g *Group) {
		g.Hooks = []Hook{{Name: "start", Transition: HookLaunching}}
		for _, h := range hooks {
			h.Transition = HookTerminating
			g.Hooks = append(g.Hooks, h)
		}
	})
	told = a.EndMember(ids[0], false)
	for n, act := range told {
		if act.Group != groupName || act.Hook != hooks[n].Name || act.Instance != ids[0] || act.Token == "" {
			t.Errorf("told %+v", act)
		}
	}
	if len(told) != len(hooks) {
		t.Fatalf("told %+v", told)
	}
	return a, ids[0], told
}

const fiveMinutes = 5 * time.Minute

func wantHeld(t *testing.T, a *AWS, act spot.Action, want time.Duration) {
	t.Helper()
	synctest.Wait()
	until, ok := a.HeldUntil(act.Token)
	if left := time.Until(until); !ok || left != want {
		t.Errorf("held for another %v (%v), want %v", left, ok, want)
	}
}

// A group that has no hook for it ends a member without more ado, and launches another.
func TestEndMemberWithoutHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, id, _ := hooked(t)
		wantStates(t, a, "[2 InService 1 Pending 1 Terminating]")
		wantState(t, a, id, "shutting-down")
		time.Sleep(20 * time.Second)
		wantState(t, a, id, "terminated")
		wantStates(t, a, "[2 InService 1 Pending]")
		if act := a.Activities(groupName)[0]; act.Description != "Terminating EC2 instance: "+id || act.Status != "Successful" {
			t.Errorf("activity %+v", act)
		}
	})
}

func TestEndMemberWithDecrement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.Min = 2 })
		a.EndMember(ids[0], true)
		time.Sleep(time.Hour)
		wantStates(t, a, "[2 InService]")
		if g := a.Group(groupName); g.Desired != 2 {
			t.Errorf("desired %d", g.Desired)
		}
	})
}

func TestLifecycleActionIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, id, told := hooked(t, Hook{Name: "drain", Heartbeat: fiveMinutes})
		cloud, act := a.Cloud(), told[0]
		if m, err := cloud.Membership(t.Context(), id); err != nil || m.LifecycleState != "Terminating:Wait" {
			t.Errorf("%+v, %v", m, err)
		}
		if log := a.Activities(groupName); log[0].Status != "MidLifecycleAction" {
			t.Errorf("activity %+v", log[0])
		}
		wantHeld(t, a, act, fiveMinutes)
		time.Sleep(4 * time.Minute)
		wantState(t, a, id, "running")
		if err := cloud.Heartbeat(t.Context(), act); err != nil {
			t.Error(err)
		}
		wantHeld(t, a, act, fiveMinutes)
		time.Sleep(4 * time.Minute)
		wantState(t, a, id, "running")

		if err := cloud.Complete(t.Context(), act); err != nil {
			t.Error(err)
		}
		if m, err := cloud.Membership(t.Context(), id); err != nil || m.LifecycleState != "Terminating:Proceed" {
			t.Errorf("%+v, %v", m, err)
		}
		wantState(t, a, id, "shutting-down")
		if err := cloud.Complete(t.Context(), act); !errors.Is(err, spot.ErrFinal) {
			t.Errorf("completed again: %v", err)
		}
		if err := cloud.Heartbeat(t.Context(), act); !errors.Is(err, spot.ErrFinal) {
			t.Errorf("a heartbeat after the end: %v", err)
		}
		time.Sleep(20 * time.Second)
		wantState(t, a, id, "terminated")
		if _, err := cloud.Membership(t.Context(), id); !errors.Is(err, spot.ErrNotFound) {
			t.Errorf("membership: %v", err)
		}
		if log := a.Activities(groupName); log[0].Status != "Successful" {
			t.Errorf("activity %+v", log[0])
		}
	})
}

func TestLifecycleActionTimesOut(t *testing.T) {
	for _, result := range []string{"", "CONTINUE", "ABANDON"} {
		synctest.Test(t, func(t *testing.T) {
			a, id, told := hooked(t, Hook{Name: "drain", Heartbeat: fiveMinutes, Default: result})
			time.Sleep(fiveMinutes - time.Second)
			wantState(t, a, id, "running")
			time.Sleep(time.Second)
			wantState(t, a, id, "shutting-down") // terminated it is, whatever the result
			if _, ok := a.HeldUntil(told[0].Token); ok {
				t.Error("it still goes on")
			}
			wantCode(t, a.Cloud().Heartbeat(t.Context(), told[0]), "ValidationError")
		})
	}
}

// Heartbeats hold an instance for a hundred times the timeout, and not longer.
func TestHeartbeatsEndWithTheGlobalTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, id, told := hooked(t, Hook{Name: "drain", Heartbeat: time.Minute})
		beat := func() error { return a.Cloud().Heartbeat(t.Context(), told[0]) }
		for range 199 {
			time.Sleep(30 * time.Second)
			if err := beat(); err != nil {
				t.Fatal(err)
			}
		}
		wantHeld(t, a, told[0], 30*time.Second)
		time.Sleep(30*time.Second - time.Millisecond)
		wantState(t, a, id, "running")
		time.Sleep(time.Millisecond)
		wantState(t, a, id, "shutting-down")
		wantCode(t, beat(), "ValidationError")
	})
}

func TestHookTimeouts(t *testing.T) {
	for _, tt := range []struct{ heartbeat, timeout, global time.Duration }{
		{time.Minute, time.Minute, 100 * time.Minute},
		{0, time.Hour, 48 * time.Hour},
		{30 * time.Minute, 30 * time.Minute, 48 * time.Hour},
	} {
		a, _, _ := account(func(g *Group) {
			g.Hooks = []Hook{{Name: "drain", Transition: HookTerminating, Heartbeat: tt.heartbeat}}
		})
		h, err := a.Cloud().Hook(t.Context(), groupName, "drain")
		if err != nil || h != (spot.Hook{Heartbeat: tt.timeout, Global: tt.global}) {
			t.Errorf("%v: %+v, %v", tt.heartbeat, h, err)
		}
	}
}

// An instance waits for all hooks, unless one of them is abandoned.
func TestSeveralHooks(t *testing.T) {
	hooks := []Hook{{Name: "drain", Heartbeat: fiveMinutes}, {Name: "backup", Heartbeat: time.Hour, Default: "CONTINUE"}}
	t.Run("all are completed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, id, told := hooked(t, hooks...)
			if err := a.Cloud().Complete(t.Context(), told[0]); err != nil {
				t.Error(err)
			}
			time.Sleep(fiveMinutes)
			wantState(t, a, id, "running")
			wantHeld(t, a, told[1], 55*time.Minute)
			if err := a.Cloud().Complete(t.Context(), told[1]); err != nil {
				t.Error(err)
			}
			wantState(t, a, id, "shutting-down")
		})
	})
	t.Run("one is abandoned", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, id, told := hooked(t, hooks...)
			if err := a.CompleteLifecycleAction(t.Context(), told[1], "ABANDON"); err != nil {
				t.Error(err)
			}
			wantState(t, a, id, "shutting-down")
			wantCode(t, a.Cloud().Complete(t.Context(), told[0]), "ValidationError")
		})
	})
	t.Run("one times out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, id, _ := hooked(t, hooks...)
			time.Sleep(fiveMinutes)
			wantState(t, a, id, "shutting-down") // by the default of drain, which is ABANDON
		})
	})
}

// EC2 may take an instance while its group waits for a hook: the member stays until the hook is done.
func TestInstanceEndsWhileItIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, id, told := hooked(t, Hook{Name: "drain", Heartbeat: fiveMinutes})
		a.Reclaim(id, "terminate", time.Minute)
		time.Sleep(2 * time.Minute)
		wantState(t, a, id, "terminated")
		if m, err := a.Cloud().Membership(t.Context(), id); err != nil || m.LifecycleState != "Terminating:Wait" {
			t.Errorf("%+v, %v", m, err)
		}
		if err := a.Cloud().Complete(t.Context(), told[0]); err != nil {
			t.Error(err)
		}
		wantStates(t, a, "[3 InService]")
		if log := a.Activities(groupName); log[0].Status != "Successful" {
			t.Errorf("activity %+v", log[0])
		}
	})
}

func TestLifecycleActionsThatAreNone(t *testing.T) {
	a, id, told := hooked(t, Hook{Name: "drain"}, Hook{Name: "backup"})
	good := told[0]
	change := func(f func(*spot.Action)) spot.Action {
		bad := good
		f(&bad)
		return bad
	}
	for name, tt := range map[string]struct {
		act  spot.Action
		want string
	}{
		"another token":    {change(func(b *spot.Action) { b.Token = "t-1" }), "ValidationError: No active Lifecycle Action found with token t-1"},
		"another's token":  {change(func(b *spot.Action) { b.Token = told[1].Token }), "ValidationError: No active Lifecycle Action found with token " + told[1].Token},
		"another hook":     {change(func(b *spot.Action) { b.Hook = "x" }), "ValidationError: No active Lifecycle Action found with token " + good.Token},
		"another instance": {change(func(b *spot.Action) { b.Instance = "i-1" }), "ValidationError: No active Lifecycle Action found with token " + good.Token},
		"another group":    {change(func(b *spot.Action) { b.Group = "x" }), "ValidationError: AutoScalingGroup name not found - AutoScalingGroup x not found"},
		"no token, and another instance": {change(func(b *spot.Action) { b.Token, b.Instance = "", "i-1" }),
			"ValidationError: No active Lifecycle Action found with instance ID i-1"},
		"neither token nor instance": {change(func(b *spot.Action) { b.Token, b.Instance = "", "" }), "ValidationError: No active Lifecycle Action found with instance ID "},
	} {
		if err := a.RecordLifecycleActionHeartbeat(t.Context(), tt.act); err == nil || err.Error() != tt.want || !errors.Is(err, spot.ErrFinal) {
			t.Errorf("%s: heartbeat: %v, want %s", name, err, tt.want)
		}
		if err := a.CompleteLifecycleAction(t.Context(), tt.act, "CONTINUE"); err == nil || err.Error() != tt.want {
			t.Errorf("%s: completion: %v, want %s", name, err, tt.want)
		}
	}
	wantCode(t, a.CompleteLifecycleAction(t.Context(), good, "continue"), "ValidationError")
	for _, act := range told {
		if _, ok := a.HeldUntil(act.Token); !ok {
			t.Errorf("%s is over", act.Hook)
		}
	}
	for _, by := range []spot.Action{{Token: good.Token}, {Instance: id}} { // either is enough
		by.Group, by.Hook = good.Group, good.Hook
		if err := a.RecordLifecycleActionHeartbeat(t.Context(), by); err != nil {
			t.Errorf("%+v: %v", by, err)
		}
	}
	calls := a.Calls("CompleteLifecycleAction", "RecordLifecycleActionHeartbeat")
	if c := calls[len(calls)-1]; c.Group != groupName || c.Hook != "drain" || !slices.Equal(c.IDs, []string{id}) || c.Err != nil {
		t.Errorf("call %+v", c)
	}
}

func TestHooksByName(t *testing.T) {
	a, _, _ := hooked(t, Hook{Name: "drain"}, Hook{Name: "backup"})
	for _, tt := range []struct{ names, want []string }{
		{nil, []string{"start", "drain", "backup"}},
		{[]string{"backup"}, []string{"backup"}},
		{[]string{"x"}, nil},
	} {
		hooks, err := a.DescribeLifecycleHooks(t.Context(), groupName, tt.names...)
		var got []string
		for _, h := range hooks {
			got = append(got, h.Name)
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, %v", tt.names, got, err)
		}
	}
	for _, of := range [][2]string{{groupName, "x"}, {"x", "drain"}} {
		if _, err := a.Cloud().Hook(t.Context(), of[0], of[1]); !errors.Is(err, spot.ErrNotFound) {
			t.Errorf("%v: %v", of, err)
		}
	}
}

func TestFaultsOfLifecycleActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, id, told := hooked(t, Hook{Name: "drain", Heartbeat: fiveMinutes})
		time.Sleep(time.Minute)
		a.Fail("RecordLifecycleActionHeartbeat", 1, Throttled())
		wantCode(t, a.Cloud().Heartbeat(t.Context(), told[0]), "Throttling")
		wantHeld(t, a, told[0], 4*time.Minute)
		a.Fail("RecordLifecycleActionHeartbeat", 1, AnswerLost())
		wantCode(t, a.Cloud().Heartbeat(t.Context(), told[0]), "")
		wantHeld(t, a, told[0], fiveMinutes)
		a.Fail("CompleteLifecycleAction", 1, Contention())
		wantCode(t, a.Cloud().Complete(t.Context(), told[0]), "ResourceContention")
		wantState(t, a, id, "running")
		a.Fail("CompleteLifecycleAction", 1, AnswerLost())
		wantCode(t, a.Cloud().Complete(t.Context(), told[0]), "")
		wantState(t, a, id, "shutting-down")
		a.Fail("DescribeScalingActivities", 1, Throttled())
		_, err := a.Cloud().Launches(t.Context(), groupName, time.Now())
		wantCode(t, err, "Throttling")
	})
}

func TestMistakesWithHooksPanic(t *testing.T) {
	a, ids, loner := account()
	wantPanics(t, map[string]func(){
		"ending what is no member":  func() { a.EndMember(loner, false) },
		"ending it again":           func() { a.EndMember(ids[0], false); a.EndMember(ids[0], false) },
		"fewer than the minimum":    func() { a.EndMember(ids[1], true) },
		"a hook without transition": func() { a.AddGroup(Group{Name: "y", Hooks: []Hook{{Name: "h"}}}) },
		"a hook with a wrong result": func() {
			a.AddGroup(Group{Name: "z", Hooks: []Hook{{Transition: HookTerminating, Default: "STOP"}}})
		},
	})
}
