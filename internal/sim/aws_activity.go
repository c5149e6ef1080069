package sim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Activity is something that a group did, or is at.
type Activity struct {
	ID, Group   string
	Instance    string // empty for a launch that failed before there was one
	Description string
	Cause       string
	Status      string    // PreInService, InProgress, MidLifecycleAction; then Successful, Failed or Cancelled
	Message     string    // why it failed
	Start, End  time.Time // to the millisecond; without an end it goes on
}

// What the descriptions of activities begin with.
const (
	activityLaunch    = "Launching a new EC2 instance"
	activityDetach    = "Detaching EC2 instance"
	activityTerminate = "Terminating EC2 instance"
)

// Activities looks at what a group did, oldest first.
func (a *AWS) Activities(group string) []Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mustGroup(group)
	var found []Activity
	for _, act := range a.activities {
		if act.Group == group {
			found = append(found, *act)
		}
	}
	return found
}

func (a *AWS) begin(group, what, instance, status, cause string) *Activity {
	now := time.Now().UTC().Truncate(time.Millisecond)
	act := &Activity{
		ID: fmt.Sprintf("00000000-0000-0000-0000-%012d", len(a.activities)+1), Group: group, Instance: instance,
		Description: what, Status: status, Start: now,
		Cause: "At " + now.Format(time.RFC3339) + " " + cause,
	}
	if instance != "" {
		act.Description += ": " + instance
	}
	a.activities = append(a.activities, act)
	return act
}

// finish ends what goes on with an instance, with success.
func (a *AWS) finish(instance string) {
	for _, act := range a.activities {
		if act.Instance == instance && act.End.IsZero() {
			act.end("Successful")
		}
	}
}

func (act *Activity) end(status string) {
	act.Status, act.End = status, time.Now().UTC().Truncate(time.Second)
}

// fail ends an activity, and says why as AWS does: in the message and in the description.
func (act *Activity) fail(status, reason string) {
	act.end(status)
	act.Message = reason
	act.Description += ".  Status Reason: " + reason
}

// maxActivities is how many activities one call answers at the most.
const maxActivities = 100

// DescribeScalingActivities answers a page of a group's activities and the token of the next, if there is one. Those
// that go on come first; of them and of the others, the newest (unverified, but what users show). limit 0 is AWS's own,
// which is the highest too.
func (a *AWS) DescribeScalingActivities(ctx context.Context, group string, limit int, token string) ([]Activity, string, error) {
	var found []Activity
	var next string
	err := a.call(ctx, AWSCall{Operation: "DescribeScalingActivities", Group: group}, func() *AWSError {
		if a.groups[group] == nil {
			return noGroup(group)
		}
		if limit < 0 || limit > maxActivities {
			return invalid("MaxRecords must be between 1 and %d", maxActivities)
		}
		for _, act := range slices.Backward(a.activities) {
			if act.Group == group {
				found = append(found, *act)
			}
		}
		slices.SortStableFunc(found, func(x, y Activity) int {
			return cmp.Or(compareBool(!x.End.IsZero(), !y.End.IsZero()), y.Start.Compare(x.Start))
		})
		from, err := strconv.Atoi(cmp.Or(token, "0"))
		if err != nil || from < 0 || from > len(found) {
			return &AWSError{Code: "InvalidNextToken", Message: "The token '" + token + "' is not valid", HTTPStatus: 400}
		}
		to := min(from+cmp.Or(limit, maxActivities), len(found))
		if to < len(found) {
			next = strconv.Itoa(to)
		}
		found = found[from:to]
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return found, next, nil
}

// compareBool sorts false before true.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
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
	a.begin(g.Name, activityLaunch, "", "InProgress", g.missing()).fail("Failed",
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
