package awsfake_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

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

// What other programs read of the new answers.
func TestAnswersToOthers(t *testing.T) {
	a, w := model()
	cfg := config(serve(t, a).URL(), "AKIDFAKE")
	s, ctx := autoscaling.NewFromConfig(cfg), t.Context()

	detached, err := s.DetachInstances(ctx, &autoscaling.DetachInstancesInput{AutoScalingGroupName: aws.String(nodes), InstanceIds: []string{w.plain}, ShouldDecrementDesiredCapacity: aws.Bool(false)})
	if err != nil || len(detached.Activities) != 1 {
		t.Fatalf("%+v, %v", detached, err)
	}
	logged, err := s.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(nodes)})
	if err != nil || len(logged.Activities) != 2 || logged.NextToken != nil {
		t.Fatalf("%+v, %v", logged, err)
	}
	launch, detach := logged.Activities[0], logged.Activities[1]
	if got := detached.Activities[0]; *got.ActivityId != *detach.ActivityId || *got.Description != "Detaching EC2 instance: "+w.plain || got.StatusCode != "InProgress" {
		t.Errorf("detached: %+v, logged: %+v", got, detach)
	}
	if launch.StatusCode != "PreInService" || launch.EndTime != nil || launch.StatusMessage != nil || *launch.Progress != 50 || *launch.AutoScalingGroupName != nodes || launch.Cause == nil {
		t.Errorf("launch: %+v", launch)
	}
	eventually(t, "the launch is done", func() bool { return a.Activities(nodes)[1].Status == "Successful" })
	logged, err = s.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(nodes), MaxRecords: aws.Int32(1)})
	if err != nil || len(logged.Activities) != 1 || logged.NextToken == nil {
		t.Fatalf("%+v, %v", logged, err)
	}
	hooks, err := s.DescribeLifecycleHooks(ctx, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String(nodes), LifecycleHookNames: []string{"drain"}})
	if err != nil || len(hooks.LifecycleHooks) != 1 || *hooks.LifecycleHooks[0].DefaultResult != "ABANDON" {
		t.Errorf("hooks %+v, %v", hooks, err)
	}
}

// Pages are as long as they are asked to be, and limits are AWS's.
func TestPages(t *testing.T) {
	a, w := model()
	for n := range 4 {
		a.AddGroup(sim.Group{Name: fmt.Sprint("group-", n)})
		a.AddInstance(sim.Instance{})
	}
	cfg := config(serve(t, a).URL(), "AKIDFAKE")
	e, s, ctx := ec2.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg), t.Context()

	sizes := []int{}
	instances := ec2.NewDescribeInstancesPaginator(e, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)})
	for instances.HasMorePages() {
		page, err := instances.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Reservations))
	}
	if want := []int{5, 4}; !slices.Equal(sizes, want) {
		t.Errorf("instances: pages of %v, want %v", sizes, want)
	}
	sizes = nil
	groups := autoscaling.NewDescribeAutoScalingGroupsPaginator(s, &autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(2)})
	for groups.HasMorePages() {
		page, err := groups.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.AutoScalingGroups))
	}
	if want := []int{2, 2, 1}; !slices.Equal(sizes, want) {
		t.Errorf("groups: pages of %v, want %v", sizes, want)
	}

	before := len(a.Calls())
	for name, tt := range map[string]struct {
		call func() error
		code string
	}{
		"too few instances": {func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(4)})
			return err
		}, "InvalidParameterValue"},
		"too many instances": {func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(1001)})
			return err
		}, "InvalidParameterValue"},
		"some of certain ones": {func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5), InstanceIds: []string{w.plain}})
			return err
		}, "InvalidParameterCombination"},
		"a made-up token": {func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{NextToken: aws.String("x")})
			return err
		}, "InvalidParameterValue"},
		"one of two filters": {func() error {
			_, err := e.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []ec2types.Filter{
				{Name: aws.String("instance-id"), Values: []string{w.plain}}, {Name: aws.String("vpc-id"), Values: []string{"vpc-1"}}}})
			return err
		}, "UnknownParameter"},
		"too many groups": {func() error {
			_, err := s.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(101)})
			return err
		}, "ValidationError"},
		"no activities": {func() error {
			_, err := s.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(nodes), MaxRecords: aws.Int32(0)})
			return err
		}, "ValidationError"},
	} {
		if err := tt.call(); err == nil || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
	if calls := a.Calls()[before:]; len(calls) != 0 {
		t.Errorf("the account was asked: %+v", calls)
	}
}
