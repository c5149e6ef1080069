package awsfake_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// A group that finds no capacity says so, in its own words, as often as it tries; then its launch has an instance.
func TestLaunchesThatFail(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			c := cloud(t, a)
			launches := func() []spot.Launch {
				t.Helper()
				found, err := c.Launches(t.Context(), nodes, w.made)
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			a.SetGroup(nodes, func(g *sim.Group) {
				g.Spot, g.LaunchError = true, "InsufficientInstanceCapacity - There is no Spot capacity available that matches your request."
			})
			for _, id := range []string{w.spotted, w.plain} {
				if err := c.Detach(t.Context(), id, nodes); err != nil {
					t.Fatal(err)
				}
			}
			found := launches()
			if len(found) != 2 {
				t.Fatalf("launches %+v", found)
			}
			for _, l := range found {
				if !l.Failed || l.Instance != "" || !strings.HasPrefix(l.Reason, "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity") {
					t.Errorf("launch %+v", l)
				}
			}
			a.SetGroup(nodes, func(g *sim.Group) { g.LaunchError = "" })
			found = launches()
			if len(found) != 4 || found[2].Failed || found[3].Failed || found[2].Instance == "" || found[3].Instance == found[2].Instance {
				t.Errorf("mended: %+v", found)
			}
		})
	}
}

// The clock of the caller and AWS's may be a second apart, but what is older is not meant.
func TestLaunchesOfATime(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			c := cloud(t, a)
			if err := c.Detach(t.Context(), w.plain, nodes); err != nil {
				t.Fatal(err)
			}
			at := a.Activities(nodes)[1].Start
			for after, want := range map[time.Duration]int{-time.Hour: 1, 0: 1, time.Second: 1, 2 * time.Second: 1, 2001 * time.Millisecond: 0, time.Minute: 0} {
				found, err := c.Launches(t.Context(), nodes, at.Add(after))
				if err != nil || len(found) != want {
					t.Errorf("%v after: %+v, %v", after, found, err)
				}
				if want == 1 && !found[0].At.Equal(at) {
					t.Errorf("began at %v, told is %v", at, found[0].At)
				}
			}
		})
	}
}

// All launches that are asked for are found, oldest first, in as few pages as they fill.
func TestLaunchesByThePage(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, w := model()
			c := cloud(t, a)
			a.SetGroup(nodes, func(g *sim.Group) { g.Desired += 250 })
			eventually(t, "all are in service", func() bool { return inService(w.members(), nil) == 252 })
			found, err := c.Launches(t.Context(), nodes, w.made)
			if err != nil {
				t.Fatal(err)
			}
			var want, got []string
			for _, act := range a.Activities(nodes) {
				want = append(want, act.Instance)
			}
			for _, l := range found {
				got = append(got, l.Instance)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d launches, want %d: %v\n%v", len(got), len(want), got, want)
			}
			if n := len(a.Calls("DescribeScalingActivities")); n != 3 {
				t.Errorf("%d calls for 250 launches", n)
			}
			if found, err := c.Launches(t.Context(), nodes, time.Now().Add(time.Minute)); err != nil || found != nil {
				t.Errorf("in time to come: %+v, %v", found, err)
			}
			if n := len(a.Calls("DescribeScalingActivities")) - 3; n != 1 {
				t.Errorf("%d calls for no launch", n)
			}
		})
	}
}

// However many ids there are, each call asks for no more than EC2 allows, and what it does not know is left out.
func TestInstancesOfMany(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, _ := model()
			var ids []string
			for n := range 450 {
				ids = append(ids, fmt.Sprintf("i-0fffffffffff%04x", n))
				if n%2 == 0 {
					a.AddInstance(sim.Instance{ID: ids[n]})
				}
			}
			found, err := cloud(t, a).InstancesOf(t.Context(), ids)
			if err != nil || len(found) != 225 || found[ids[448]].ID != ids[448] {
				t.Errorf("%d instances, %v", len(found), err)
			}
			if n := len(a.Calls("DescribeInstances")); n != 3 {
				t.Errorf("%d calls", n)
			}
			a.Fail("DescribeInstances", 1, sim.Throttled())
			if found, err := cloud(t, a).InstancesOf(t.Context(), ids); err == nil || errors.Is(err, spot.ErrFinal) || found != nil {
				t.Errorf("throttled: %d instances, %v", len(found), err)
			}
		})
	}
}

// A self-check says which permission is missing.
func TestReadableSaysWhichIsRefused(t *testing.T) {
	for name, cloud := range clouds() {
		t.Run(name, func(t *testing.T) {
			a, _ := model()
			c := cloud(t, a)
			for _, tt := range []struct{ denied, says []string }{
				{[]string{"DescribeInstances"}, []string{"ec2:DescribeInstances"}},
				{[]string{"DescribeAutoScalingGroups"}, []string{"autoscaling:DescribeAutoScalingGroups"}},
				{[]string{"DescribeInstances", "DescribeAutoScalingGroups"}, []string{"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingGroups"}},
			} {
				a.Heal()
				for _, op := range tt.denied {
					a.Fail(op, 1, sim.Denied())
				}
				err := c.Readable(t.Context(), cluster)
				if !errors.Is(err, spot.ErrFinal) {
					t.Errorf("%v denied: %v", tt.denied, err)
				}
				for _, op := range []string{"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingGroups"} {
					if err != nil && strings.Contains(err.Error(), "perform: "+op) != slices.Contains(tt.says, op) {
						t.Errorf("%v denied: %v", tt.denied, err)
					}
				}
			}
		})
	}
}
