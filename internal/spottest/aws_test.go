package spottest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const groupName = "nodes.example.com"

// account is a group of two with a termination hook. The contract tests in test/fakes/aws cover spot.Cloud; these tests
// cover the rest.
func account() (a *AWS, members []string) {
	a = NewAWS("eu-west-1")
	g := a.AddGroup(Group{Name: groupName, Tags: map[string]string{spot.TagCluster: "example.com"},
		LaunchTime: 40 * time.Second,
		DetachTime: 20 * time.Second, Hooks: []Hook{{Name: "drain", Transition: HookTerminating,
			Heartbeat: 5 * time.Minute}}},
		Instance{Spot: true}, Instance{})
	return a, []string{g.Members[0].ID, g.Members[1].ID}
}

// code returns the AWS error code: empty for a broken connection, "none" for no error.
func code(err error) string {
	if refused, ok := errors.AsType[*AWSError](err); ok {
		return refused.Code
	}
	if err != nil {
		return err.Error()
	}
	return "none"
}

// TestCallsAndFaults checks that every call is logged and that each fault affects the planned number of calls.
func TestCallsAndFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids := account()
		start := time.Now()
		a.Instance(ids[0]) // not a call
		detach := func() error { return a.DetachInstances(t.Context(), groupName, ids[:1]) }
		tag := func() error { return a.CreateTags(t.Context(), ids[:1], map[string]string{"b": "", "a": ""}) }
		detaching := func() bool { return a.Group(groupName).Members[0].State == "Detaching" }

		a.Delay("CreateTags", 3*time.Second)
		a.Fail("DetachInstances", 2, Throttled())
		a.Fail("DetachInstances", 1, Contention())
		a.Fail("DetachInstances", 1, AnswerLost())
		for i, want := range []string{"Throttling", "Throttling", "ResourceContention", ""} {
			if detaching() {
				t.Errorf("detached by call %d, which failed", i)
			}
			if got := code(detach()); got != want {
				t.Errorf("call %d: %s, want %s", i, got, want)
			}
		}
		if got := code(detach()); !detaching() || got != "ValidationError" {
			t.Errorf("after the lost response: %s, %+v", got, a.Group(groupName).Members)
		}
		a.Fail(AnyOperation, -1, Denied())
		if got := code(tag()); got != "UnauthorizedOperation" {
			t.Errorf("denied: %s", got)
		}
		a.Heal()
		if err := tag(); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("healed: %v after %v", err, time.Since(start))
		}
		calls := a.Calls()
		if first := calls[0]; len(calls) != 7 || first.Operation != "DetachInstances" || first.Group != groupName ||
			code(first.Err) != "Throttling" {
			t.Errorf("calls %+v", calls)
		}
		tags := a.Calls("CreateTags")
		if last := tags[1]; len(tags) != 2 || !slices.Equal(last.IDs, ids[:1]) ||
			!slices.Equal(last.Keys, []string{"a", "b"}) || !last.Time.Equal(start.Add(3*time.Second)) ||
			last.Err != nil {
			t.Errorf("calls %+v", tags)
		}
	})
}

// TestFailedLaunchesAreRetried at growing intervals.
func TestFailedLaunchesAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids := account()
		a.SetGroup(groupName, func(g *Group) { g.LaunchError = "InsufficientInstanceCapacity" })
		start, launched := time.Now(), make(chan Instance, 1)
		a.OnLaunch(func(i Instance) { launched <- i })
		if err := a.DetachInstances(t.Context(), groupName, ids[:1]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		a.SetGroup(groupName, func(g *Group) { g.LaunchError = "" })
		if i := <-launched; time.Since(start) != 4*time.Minute+40*time.Second || i.State != "running" ||
			i.Tags[spot.TagCluster] != "example.com" {
			t.Errorf("%+v was launched after %v", i, time.Since(start))
		}
	})
}

// TestLifecycleActionTimeout checks that only a heartbeat extends a lifecycle action.
func TestLifecycleActionTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids := account()
		act := a.TerminateMember(ids[0])[0]
		state := func() string {
			synctest.Wait()
			i, _ := a.Instance(ids[0])
			return i.State
		}
		time.Sleep(4 * time.Minute)
		if err := a.Cloud().Heartbeat(t.Context(), act); err != nil {
			t.Error(err)
		}
		time.Sleep(5*time.Minute - 1)
		if _, held := a.HeldUntil(act.Token); !held || state() != "running" {
			t.Errorf("before the timeout: held %v, %s", held, state())
		}
		time.Sleep(time.Nanosecond)
		if got := state(); got != "shutting-down" {
			t.Errorf("it is %s", got)
		}
		if _, held := a.HeldUntil(act.Token); held {
			t.Error("it is still held")
		}
		if got := code(a.Cloud().Heartbeat(t.Context(), act)); got != "ValidationError" {
			t.Errorf("a heartbeat after the timeout: %s", got)
		}
	})
}

// TestCloudTimeout checks that a hanging call takes as long as in internal/aws and is not a context.DeadlineExceeded.
func TestCloudTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids := account()
		a.Delay(AnyOperation, time.Hour)
		start := time.Now()
		_, err := a.Cloud().Instance(t.Context(), ids[0])
		if err == nil || errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Cloud().Detach(ctx, ids[0], groupName); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's deadline: %v", err)
		}
	})
}
