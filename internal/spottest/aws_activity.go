package spottest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Activity is something that a group did, or is at.
type Activity struct {
	Group       string
	Instance    string // empty for a launch that failed before there was one
	Description string
	Status      string    // PreInService, InProgress, MidLifecycleAction; then Successful or Failed
	Message     string    // why it failed
	Start       time.Time // to the millisecond
}

// What the descriptions of activities begin with.
const (
	activityLaunch    = "Launching a new EC2 instance"
	activityDetach    = "Detaching EC2 instance"
	activityTerminate = "Terminating EC2 instance"
)

func (a *AWS) begin(group, what, instance, status string) *Activity {
	act := &Activity{Group: group, Instance: instance, Description: what, Status: status,
		Start: time.Now().UTC().Truncate(time.Millisecond)}
	if instance != "" {
		act.Description += ": " + instance
	}
	a.activities = append(a.activities, act)
	return act
}

// finish ends the termination of an instance, with success.
func (a *AWS) finish(instance string) {
	for _, act := range a.activities {
		if act.Instance == instance && act.Status == "MidLifecycleAction" {
			act.Status = "Successful"
		}
	}
}

// fail ends an activity, and says why as AWS does: in the message and in the description.
func (act *Activity) fail(reason string) {
	act.Status, act.Message = "Failed", reason
	act.Description += ".  Status Reason: " + reason
}

// DescribeScalingActivities answers a group's activities, the newest first (unverified, but what users show), and all on
// one page.
func (a *AWS) DescribeScalingActivities(ctx context.Context, group string) ([]Activity, error) {
	var found []Activity
	err := a.call(ctx, AWSCall{Operation: "DescribeScalingActivities", Group: group}, func() *AWSError {
		a.mustGroup(group)
		for _, act := range slices.Backward(a.activities) {
			if act.Group == group {
				found = append(found, *act)
			}
		}
		return nil
	})
	return found, err
}

// Launches that fail are tried again, ever more slowly. AWS does not say how slowly; users show gaps of half a minute
// and of minutes.
const (
	firstRetry = 30 * time.Second
	lastRetry  = 15 * time.Minute
)

type launchRetry struct {
	wait  time.Duration // before the next try
	timer *time.Timer
}

// launchFailed notes a launch that failed, and has it tried again.
func (a *AWS) launchFailed(g *Group) {
	market := "On-Demand"
	if g.Spot {
		market = "Spot"
	}
	a.begin(g.Name, activityLaunch, "", "InProgress").fail(
		fmt.Sprintf("Could not launch %s Instances. %s. Launching EC2 instance failed.", market, strings.TrimSuffix(g.LaunchError, ".")))

	r := a.retries[g.Name]
	if r == nil {
		r = &launchRetry{wait: firstRetry}
		a.retries[g.Name] = r
	} else {
		r.timer.Stop()
		r.wait = min(2*r.wait, lastRetry)
	}
	r.timer = time.AfterFunc(r.wait, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.retries[g.Name] == r {
			a.launchMissing(g)
		}
	})
}

// noRetry ends the tries: there is nothing to launch, or it may be launched.
func (a *AWS) noRetry(g *Group) {
	if r := a.retries[g.Name]; r != nil {
		r.timer.Stop()
		delete(a.retries, g.Name)
	}
}
