package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// logOf is what a group did, oldest first: how long after start, what, and how it stands.
func logOf(a *AWS, start time.Time) []string {
	var lines []string
	for _, act := range a.Activities(groupName) {
		what := strings.Join(strings.Fields(act.Description)[:1], " ")
		lines = append(lines, fmt.Sprintf("%v %s %s %s", act.Start.Sub(start), what, act.Instance, act.Status))
	}
	return lines
}

func wantLog(t *testing.T, a *AWS, start time.Time, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := logOf(a, start); !slices.Equal(got, want) {
		t.Errorf("activities\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestActivities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.HealthCheck = time.Minute })
		start := time.Now()
		time.Sleep(1500 * time.Millisecond)
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		launched := a.Group(groupName).Members[3].ID
		wantLog(t, a, start, "1.5s Detaching "+ids[0]+" InProgress", "1.5s Launching "+launched+" PreInService")
		time.Sleep(20 * time.Second)
		wantLog(t, a, start, "1.5s Detaching "+ids[0]+" Successful", "1.5s Launching "+launched+" PreInService")
		time.Sleep(20 * time.Second)
		a.SetState(ids[1], "stopped")
		time.Sleep(time.Minute)
		synctest.Wait()
		second := a.Group(groupName).Members[3].ID
		wantLog(t, a, start, "1.5s Detaching "+ids[0]+" Successful", "1.5s Launching "+launched+" Successful",
			"1m41.5s Terminating "+ids[1]+" InProgress", "1m41.5s Launching "+second+" PreInService")
		time.Sleep(time.Hour)
		acts := a.Activities(groupName)
		if last := acts[2]; last.Status != "Successful" || last.End.Sub(start) != 2*time.Minute+time.Second { // the end is in whole seconds
			t.Errorf("terminated: %+v", last)
		}
		a.EndMember(launched, false)
		time.Sleep(time.Hour)
		if after := a.Activities(groupName); after[1] != acts[1] || !strings.HasPrefix(after[4].Description, "Terminating EC2 instance: "+launched) || after[4].Status != "Successful" {
			t.Errorf("the launch was %+v, is %+v, and its end %+v", acts[1], after[1], after[4])
		}
		for _, act := range acts {
			if act.Message != "" || act.Group != groupName || !strings.HasPrefix(act.Cause, "At 2000-01-01T00:0") {
				t.Errorf("activity %+v", act)
			}
		}
	})
}

// A launch that fails is tried again, ever more slowly, until it succeeds or nothing is missing any more.
func TestLaunchFailureIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.LaunchError = "InsufficientInstanceCapacity - There is no Spot capacity available." })
		start := time.Now()
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		failures := func() (at []time.Duration) {
			synctest.Wait()
			for _, act := range a.Activities(groupName)[1:] {
				if act.Status == "Failed" {
					at = append(at, act.Start.Sub(start))
				}
			}
			return at
		}
		time.Sleep(4 * time.Minute)
		if got, want := failures(), []time.Duration{0, 30 * time.Second, 90 * time.Second, 210 * time.Second}; !slices.Equal(got, want) {
			t.Errorf("failed after %v, want %v", got, want)
		}
		failed := a.Activities(groupName)[1]
		const message = "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity available. Launching EC2 instance failed."
		if failed.Message != message || failed.Description != "Launching a new EC2 instance.  Status Reason: "+message || failed.Instance != "" || failed.End.IsZero() {
			t.Errorf("activity %+v", failed)
		}
		time.Sleep(3 * time.Hour)
		at := failures()
		if gap := at[len(at)-1] - at[len(at)-2]; gap != 15*time.Minute {
			t.Errorf("the last gap is %v", gap)
		}

		a.SetGroup(groupName, func(g *Group) { g.Desired, g.Min = 2, 2 })
		n := len(failures())
		time.Sleep(time.Hour)
		if len(failures()) != n {
			t.Error("what is not missing is launched")
		}
		a.SetGroup(groupName, func(g *Group) { g.Desired = 3 })
		time.Sleep(30 * time.Second)
		if at := failures(); len(at) != n+2 { // as if it had never failed
			t.Errorf("%d more failures, want 2", len(at)-n)
		}
		a.SetGroup(groupName, func(g *Group) { g.Suspended = []string{"Launch"} })
		time.Sleep(time.Hour)
		if len(failures()) != n+2 {
			t.Error("a suspended group launches")
		}
		a.SetGroup(groupName, func(g *Group) { g.LaunchError, g.Suspended = "", nil })
		time.Sleep(time.Hour)
		wantStates(t, a, "[3 InService]")
		if len(failures()) != n+2 {
			t.Error("a mended group still fails")
		}
	})
}

// An instance that ends before it is in service is given up, and another launched.
func TestLaunchGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account()
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		born := a.Group(groupName).Members[3].ID
		a.SetState(born, "terminated")
		time.Sleep(40 * time.Second)
		wantStates(t, a, "[2 InService 1 Pending]")
		acts := a.Activities(groupName)
		if act := acts[1]; act.Instance != born || act.Status != "Cancelled" || act.Message == "" || !strings.HasPrefix(act.Description, "Launching a new EC2 instance: "+born+".  Status Reason: ") {
			t.Errorf("activity %+v", act)
		}
		time.Sleep(40 * time.Second)
		wantStates(t, a, "[3 InService]")
		found, err := a.Cloud().Launches(t.Context(), groupName, time.Now().Add(-time.Hour))
		if err != nil || len(found) != 2 || !found[0].Failed || found[0].Instance != born || found[0].Reason == "" || found[1].Failed {
			t.Errorf("launches %+v, %v", found, err)
		}
	})
}

func TestDescribeScalingActivities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account(func(g *Group) { g.DetachTime = time.Hour; g.LaunchTime = time.Second; g.Desired, g.Max = 3, 6 })
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil { // goes on for an hour
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(time.Minute)
			a.SetGroup(groupName, func(g *Group) { g.Desired++ })
		}
		time.Sleep(time.Minute)
		read := func(limit int) (ids []string) {
			token := ""
			for {
				page, next, err := a.DescribeScalingActivities(t.Context(), groupName, limit, token)
				if err != nil {
					t.Fatal(err)
				}
				for _, act := range page {
					ids = append(ids, strings.TrimLeft(act.ID, "0-"))
				}
				if next == "" {
					return ids
				}
				token = next
			}
		}
		want := []string{"1", "5", "4", "3", "2"} // what goes on is first, then the newest
		for limit, calls := range map[int]int{0: 1, 1: 5, 2: 3, 5: 1, 100: 1} {
			before := len(a.Calls("DescribeScalingActivities"))
			if got := read(limit); !slices.Equal(got, want) {
				t.Errorf("with %d at once: %v, want %v", limit, got, want)
			}
			if n := len(a.Calls("DescribeScalingActivities")) - before; n != calls {
				t.Errorf("with %d at once: %d calls, want %d", limit, n, calls)
			}
		}
		_, _, err := a.DescribeScalingActivities(t.Context(), "x", 0, "")
		wantCode(t, err, "ValidationError")
		_, _, err = a.DescribeScalingActivities(t.Context(), groupName, 101, "")
		wantCode(t, err, "ValidationError")
		for _, token := range []string{"-1", "6", "x"} {
			_, _, err = a.DescribeScalingActivities(t.Context(), groupName, 0, token)
			wantCode(t, err, "InvalidNextToken")
		}
	})
}

// A group's launches are its own, and of another group nothing is told.
func TestLaunchesAreTheGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ids, _ := account()
		a.AddGroup(Group{Name: "other", Desired: 2})
		if err := a.DetachInstances(t.Context(), groupName, ids[:1], false); err != nil {
			t.Fatal(err)
		}
		found, err := a.Cloud().Launches(t.Context(), groupName, time.Now())
		if err != nil || len(found) != 1 || found[0].Instance != a.Group(groupName).Members[3].ID {
			t.Errorf("launches %+v, %v", found, err)
		}
		if found, err := a.Cloud().Launches(t.Context(), "other", time.Now()); err != nil || len(found) != 2 {
			t.Errorf("of the other group: %+v, %v", found, err)
		}
	})
}
