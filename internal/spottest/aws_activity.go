package spottest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Activity is a scaling activity.
type Activity struct {
	Group       string
	Instance    string // empty for a failed launch
	Description string
	Status      string    // PreInService, InProgress, MidLifecycleAction; then Successful or Failed
	Message     string    // failure reason
	Start       time.Time // to the millisecond
}

// Prefixes of activity descriptions.
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

// finish marks the termination of an instance as successful.
func (a *AWS) finish(instance string) {
	for _, act := range a.activities {
		if act.Instance == instance && act.Status == "MidLifecycleAction" {
			act.Status = "Successful"
		}
	}
}

// fail marks an activity as failed, with the reason in the message and the description, as AWS does.
func (act *Activity) fail(reason string) {
	act.Status, act.Message = "Failed", reason
	act.Description += ".  Status Reason: " + reason
}

// DescribeScalingActivities returns the activities of a group on one page, newest first (unverified; observed by
// users).
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

// Bounds of the retry interval of failed launches. AWS does not document it; users report gaps of 30 s to several
// minutes.
const (
	firstRetry = 30 * time.Second
	lastRetry  = 15 * time.Minute
)

type launchRetry struct {
	wait  time.Duration // before the next try
	timer *time.Timer
}

// launchFailed records a failed launch and schedules a retry.
func (a *AWS) launchFailed(g *Group) {
	market := "On-Demand"
	if g.Spot {
		market = "Spot"
	}
	a.begin(g.Name, activityLaunch, "", "InProgress").fail(
		fmt.Sprintf("Could not launch %s Instances. %s. Launching EC2 instance failed.", market,
			strings.TrimSuffix(g.LaunchError, ".")))

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

// cancelRetry cancels the scheduled retry.
func (a *AWS) cancelRetry(g *Group) {
	if r := a.retries[g.Name]; r != nil {
		r.timer.Stop()
		delete(a.retries, g.Name)
	}
}
