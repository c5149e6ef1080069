package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const groupName = "nodes.example.com"

// account is one group of three, the way kOps makes it (its maximum is what it desires), and an instance beside it.
func account(change ...func(*Group)) (a *AWS, members []string, loner string) {
	a = NewAWS("eu-west-1")
	g := Group{Name: groupName, Min: 3, Max: 3, Desired: 3, Tags: map[string]string{spot.TagCluster: "example.com"},
		LaunchTime: 40 * time.Second, DetachTime: 20 * time.Second, Spot: true, Zones: []string{"eu-west-1a", "eu-west-1b"}}
	for _, c := range change {
		c(&g)
	}
	for _, m := range a.AddGroup(g, Instance{Spot: true}, Instance{Spot: true}, Instance{Spot: true}).Members {
		members = append(members, m.ID)
	}
	return a, members, a.AddInstance(Instance{}).ID
}

// states are the members' LifecycleStates.
func states(a *AWS) string {
	n := map[string]int{}
	for _, m := range a.Group(groupName).Members {
		n[m.State]++
	}
	var s []string
	for _, k := range slices.Sorted(maps.Keys(n)) {
		s = append(s, fmt.Sprintf("%d %s", n[k], k))
	}
	return fmt.Sprint(s)
}

func wantStates(t *testing.T, a *AWS, want string) {
	t.Helper()
	synctest.Wait()
	if got := states(a); got != want {
		t.Errorf("members: %s, want %s", got, want)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var e *AWSError
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func TestDetachLaunchesAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account()
		launched := make(chan Instance, 1)
		a.OnLaunch(func(i Instance) { launched <- i })
		start := time.Now()
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		wantStates(t, a, "[1 Detaching 2 InService 1 Pending]")
		if g := a.Group(groupName); g.Desired != 3 || g.Max != 3 {
			t.Errorf("desired %d, max %d: the sizes must stay", g.Desired, g.Max)
		}
		wantCode(t, a.DetachInstances(t.Context(), groupName, ids[:1], false), "ValidationError")

		time.Sleep(20 * time.Second)
		wantStates(t, a, "[2 InService 1 Pending]")
		i, _ := a.Instance(ids[0])
		if i.State != "running" || i.Tags[spot.TagCluster] != "example.com" {
			t.Errorf("detached instance %+v: must run on and keep its group's tags", i)
		}
		if _, ok := i.Tags[groupTag]; ok {
			t.Errorf("tag %s is left", groupTag)
		}

		i = <-launched
		if d := time.Since(start); d != 40*time.Second {
			t.Errorf("launched after %v", d)
		}
		if i.State != "running" || !i.Spot || i.Tags[groupTag] != groupName || i.Tags[spot.TagCluster] != "example.com" || i.PrivateDNSName == "" {
			t.Errorf("launched %+v", i)
		}
		wantStates(t, a, "[3 InService]")
	})
}

// Fifty members warned at once, in a group that is busy: each is replaced once.
func TestDetachMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 50
		a := NewAWS("eu-west-1")
		members := a.AddGroup(Group{Name: groupName, LaunchTime: time.Minute, DetachTime: time.Second}, make([]Instance, n)...).Members
		a.Fail("DetachInstances", n, Contention())
		launched := make(chan string, 2*n)
		a.OnLaunch(func(i Instance) { launched <- i.ID })
		c := a.Cloud()
		for _, m := range members {
			go func() {
				for c.Detach(t.Context(), m.ID, groupName) != nil {
					time.Sleep(time.Second)
				}
			}()
		}
		time.Sleep(time.Hour)
		wantStates(t, a, "[50 InService]")
		if len(launched) != n || len(a.Calls("DetachInstances")) != 2*n {
			t.Errorf("%d launched after %d calls", len(launched), len(a.Calls("DetachInstances")))
		}
	})
}

func TestDetachRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, loner := account()
		tests := []struct {
			name, group string
			ids         []string
			decrement   bool
			want        string
		}{
			{"no member", groupName, []string{loner}, false, "ValidationError: The instance " + loner + " is not part of Auto Scaling group nodes.example.com."},
			{"one of two is no member", groupName, []string{ids[0], loner}, false, "ValidationError: The instance " + loner + " is not part of Auto Scaling group nodes.example.com."},
			{"no such group", "x", ids[:1], false, "ValidationError: AutoScalingGroup name not found - AutoScalingGroup x not found"},
			{"too many", groupName, make([]string, 21), false, "ValidationError: List exceeds the maximum number of instances to detach. Please retry your request with fewer instances."},
			{"below the minimum", groupName, ids[:1], true, "ValidationError: AutoScalingGroup nodes.example.com has min-size=3, max-size=3, and desired-size=3. To detach 1 instance, please update the AutoScalingGroup sizes appropriately."},
		}
		for _, tt := range tests {
			if err := a.DetachInstances(t.Context(), tt.group, tt.ids, tt.decrement); err == nil || err.Error() != tt.want {
				t.Errorf("%s: error %v", tt.name, err)
			}
			wantStates(t, a, "[3 InService]")
		}
		for _, state := range []string{"Pending", "Terminating:Wait", "Detaching", "EnteringStandby"} {
			a.SetLifecycle(ids[0], state)
			err := a.DetachInstances(t.Context(), groupName, ids[:1], false)
			if want := "ValidationError: The instance " + ids[0] + " is not in InService or Standby."; err == nil || err.Error() != want {
				t.Errorf("%s: error %v", state, err)
			}
		}
		a.SetLifecycle(ids[0], "Standby")
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Errorf("Standby: %v", err)
		}
	})
}

func TestDetachWithDecrement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.Min, g.DetachTime = 2, 0 })
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], true); err != nil {
			t.Fatal(err)
		}
		wantStates(t, a, "[2 InService]")
		if g := a.Group(groupName); g.Desired != 2 || g.Max != 3 {
			t.Errorf("desired %d, max %d", g.Desired, g.Max)
		}
	})
}

// A group that cannot launch keeps its gap until it can.
func TestNoLaunch(t *testing.T) {
	tests := map[string]struct{ spoil, mend func(*Group) }{
		"suspended":   {func(g *Group) { g.Suspended = []string{"Launch"} }, func(g *Group) { g.Suspended = nil }},
		"no capacity": {func(g *Group) { g.LaunchError = "InsufficientInstanceCapacity" }, func(g *Group) { g.LaunchError = "" }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, ids, _ := account(tt.spoil)
				if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				wantStates(t, a, "[2 InService]")
				a.SetGroup(groupName, tt.mend)
				time.Sleep(time.Minute)
				wantStates(t, a, "[3 InService]")
			})
		})
	}
}

// A group with more members than it desires, as capacity rebalancing makes it, launches nothing for the surplus one.
func TestDetachSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.DetachTime = 0 })
		a.SetGroup(groupName, func(g *Group) { g.Desired = 2 })
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		wantStates(t, a, "[2 InService]")
	})
}

// What happens if nobody detaches: the group notices by its health check, minutes later, or never.
func TestHealthCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.HealthCheck = 3 * time.Minute })
		a.SetState(ids[0], "terminated")
		if i, _ := a.Instance(ids[0]); i.PrivateDNSName != "" || i.PrivateIP != "" {
			t.Errorf("terminated instance has a name or an address: %+v", i)
		}
		time.Sleep(3*time.Minute - time.Second)
		wantStates(t, a, "[3 InService]")
		time.Sleep(time.Second)
		wantStates(t, a, "[2 InService 1 Pending]")

		a.SetGroup(groupName, func(g *Group) { g.Suspended = []string{"HealthCheck"} })
		a.SetState(ids[1], "terminated")
		time.Sleep(time.Hour)
		wantStates(t, a, "[3 InService]")
	})
}

func TestTags(t *testing.T) {
	a, ids, loner := account()
	ctx := t.Context()
	if err := a.CreateTags(ctx, []string{loner}, map[string]string{"a": "1", "b": "2"}); err != nil {
		t.Fatal(err)
	}
	if i, _ := a.Instance(loner); !maps.Equal(i.Tags, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("tags %v", i.Tags)
	}
	wantCode(t, a.CreateTags(ctx, []string{loner}, map[string]string{"aws:x": ""}), "InvalidParameterValue")
	wantCode(t, a.CreateTags(ctx, []string{loner, "i-00000000"}, map[string]string{"c": ""}), "InvalidInstanceID.NotFound")
	wantCode(t, a.CreateTags(ctx, []string{"x"}, map[string]string{"c": ""}), "InvalidInstanceID.Malformed")
	if i, _ := a.Instance(loner); len(i.Tags) != 2 {
		t.Errorf("a refused call changed the tags to %v", i.Tags)
	}

	many := map[string]string{}
	for n := range 49 { // the group's tag makes 50
		many[fmt.Sprint(n)] = ""
	}
	if err := a.CreateTags(ctx, ids[:1], many); err != nil {
		t.Error(err)
	}
	wantCode(t, a.CreateTags(ctx, ids[:1], map[string]string{"one": "more"}), "TagLimitExceeded")
}

func TestDescribeInstances(t *testing.T) {
	a, ids, loner := account()
	for _, tt := range []struct {
		ids  []string
		code string
	}{
		{[]string{loner, "i-0123456789abcdef0"}, "InvalidInstanceID.NotFound"},
		{[]string{"i-01234567"}, "InvalidInstanceID.NotFound"},
		{[]string{"i-0123456z"}, "InvalidInstanceID.Malformed"},
		{[]string{"i-012345678"}, "InvalidInstanceID.Malformed"},
		{[]string{""}, "InvalidInstanceID.Malformed"},
	} {
		found, err := a.DescribeInstances(t.Context(), tt.ids)
		wantCode(t, err, tt.code)
		if found != nil {
			t.Errorf("%v: found %v beside an error", tt.ids, found)
		}
	}
	found, err := a.DescribeInstances(t.Context(), nil)
	if err != nil || len(found) != len(ids)+1 {
		t.Errorf("all: %v, %v", found, err)
	}
	found[0].Tags["written"] = "by the caller"
	if again, _ := a.DescribeInstances(t.Context(), []string{found[0].ID}); again[0].Tags["written"] != "" {
		t.Error("an answer shares its tags with the account")
	}
	a.Forget(loner)
	_, err = a.DescribeInstances(t.Context(), []string{loner})
	wantCode(t, err, "InvalidInstanceID.NotFound")
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, loner := account()
		detach := func(id string) error { return a.DetachInstances(t.Context(), groupName, []string{id}, false) }

		a.Fail("DetachInstances", 2, Throttled())
		a.Fail("DetachInstances", 1, Contention())
		wantCode(t, detach(ids[0]), "Throttling")
		if err := a.CreateTags(t.Context(), []string{loner}, map[string]string{"a": ""}); err != nil {
			t.Errorf("a fault of another operation: %v", err)
		}
		wantCode(t, detach(ids[0]), "Throttling")
		wantCode(t, detach(ids[0]), "ResourceContention")
		wantStates(t, a, "[3 InService]")
		if err := detach(ids[0]); err != nil {
			t.Errorf("after the faults: %v", err)
		}

		a.Fail("DetachInstances", 1, AnswerLost())
		wantCode(t, detach(ids[1]), "")
		wantStates(t, a, "[2 Detaching 1 InService 2 Pending]")

		a.Fail(AnyOperation, -1, Denied())
		wantCode(t, detach(ids[2]), "AccessDenied")
		_, err := a.DescribeInstances(t.Context(), nil)
		wantCode(t, err, "UnauthorizedOperation")
		a.Heal()
		if _, err := a.DescribeInstances(t.Context(), nil); err != nil {
			t.Errorf("healed: %v", err)
		}

		a.Delay("DescribeLifecycleHooks", 3*time.Second)
		start := time.Now()
		if _, err := a.DescribeLifecycleHooks(t.Context(), groupName); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("delayed: %v after %v", err, time.Since(start))
		}
	})
}

func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account()
		start := time.Now()
		a.Instance(ids[0]) // a look is no call
		a.Fail("CreateTags", 1, Broken())
		a.CreateTags(t.Context(), ids[:1], map[string]string{"b": "", "a": ""})
		time.Sleep(time.Second)
		a.DetachInstances(t.Context(), groupName, ids[:1], false)
		calls := a.Calls()
		if len(calls) != 2 {
			t.Fatalf("calls %+v", calls)
		}
		tag, detach := calls[0], calls[1]
		wantCode(t, tag.Err, "InternalError")
		if tag.Operation != "CreateTags" || !slices.Equal(tag.IDs, ids[:1]) || !slices.Equal(tag.Keys, []string{"a", "b"}) || !tag.Time.Equal(start) {
			t.Errorf("call %+v", tag)
		}
		if detach.Operation != "DetachInstances" || detach.Group != groupName || detach.Err != nil || detach.Time.Sub(start) != time.Second {
			t.Errorf("call %+v", detach)
		}
		if c := a.Calls("DetachInstances"); len(c) != 1 {
			t.Errorf("detach calls %+v", c)
		}
	})
}

// A name that does not exist must not make a test pass for nothing.
func TestMistakesPanic(t *testing.T) {
	a, _, _ := account()
	for name, mistake := range map[string]func(){
		"operation of a fault": func() { a.Fail("Detach", 1, Broken()) },
		"operation of a delay": func() { a.Delay("Detach", 1) },
		"operation of the log": func() { a.Calls("Detach") },
		"instance":             func() { a.SetState("i-1", "running") },
		"state":                func() { a.AddInstance(Instance{State: "dead"}) },
		"group":                func() { a.SetGroup("x", func(*Group) {}) },
		"member":               func() { a.SetLifecycle("i-1", "Standby") },
		"second group":         func() { a.AddGroup(Group{Name: groupName}) },
		"transition":           func() { a.AddGroup(Group{Name: "y", Hooks: []Hook{{Transition: "TERMINATING"}}}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			mistake()
		}()
	}
}

// The black hole costs sim.Cloud what it costs the real one, and is not the end of the caller's time.
func TestCloudBlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account()
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
		wantStates(t, a, "[3 InService]")
	})
}
