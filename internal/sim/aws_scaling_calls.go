package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// DescribeAutoScalingInstances answers the places of these instances, or of all; one that is in no group is left out.
func (a *AWS) DescribeAutoScalingInstances(ctx context.Context, ids []string) ([]Member, error) {
	var found []Member
	err := a.call(ctx, AWSCall{Operation: "DescribeAutoScalingInstances", IDs: ids}, func() *AWSError {
		for _, g := range awsSorted(a.groups) {
			for _, m := range g.Members {
				if len(ids) == 0 || slices.Contains(ids, m.ID) {
					found = append(found, m)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// DescribeAutoScalingGroups answers the groups of these names, or all; one that does not exist is left out.
func (a *AWS) DescribeAutoScalingGroups(ctx context.Context, names []string) ([]Group, error) {
	var found []Group
	c := AWSCall{Operation: "DescribeAutoScalingGroups"}
	if len(names) == 1 {
		c.Group = names[0]
	}
	err := a.call(ctx, c, func() *AWSError {
		for _, g := range awsSorted(a.groups) {
			if len(names) == 0 || slices.Contains(names, g.Name) {
				found = append(found, g.clone())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// maxDetach is how many instances one call may detach. The documentation says 20 in one place and 19 in another.
const maxDetach = 20

// DetachInstances takes instances out of a group: all of them or, if one cannot be, none. Only a member that is
// InService or Standby can be. With decrement the group desires so many fewer, but never fewer than its minimum;
// without, it launches others for those that were InService (a Standby one did not count: that none is launched for it
// is unverified).
func (a *AWS) DetachInstances(ctx context.Context, group string, ids []string, decrement bool) error {
	return a.call(ctx, AWSCall{Operation: "DetachInstances", Group: group, IDs: ids}, func() *AWSError {
		g := a.groups[group]
		if g == nil {
			return noGroup(group)
		}
		if len(ids) > maxDetach {
			return invalid("List exceeds the maximum number of instances to detach. Please retry your request with fewer instances.")
		}
		for _, id := range ids {
			m := a.member(id)
			if m == nil || m.Group != group {
				return invalid("The instance %s is not part of Auto Scaling group %s.", id, group)
			}
			if m.State != "InService" && m.State != "Standby" {
				return invalid("The instance %s is not in InService or Standby.", id)
			}
		}
		if decrement {
			if g.Desired-len(ids) < g.Min {
				// AWS's words for EnterStandby; those for DetachInstances are unverified.
				return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To detach %d instance, please update the AutoScalingGroup sizes appropriately.",
					group, g.Min, g.Max, g.Desired, len(ids))
			}
			g.Desired -= len(ids)
		}
		for _, id := range ids {
			a.member(id).State = "Detaching"
			act := a.begin(group, activityDetach, id, "InProgress", "instance "+id+" was detached in response to a user request.")
			leave := func() {
				a.leave(id)
				act.end("Successful")
			}
			if g.DetachTime == 0 {
				leave()
				continue
			}
			time.AfterFunc(g.DetachTime, func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				leave()
			})
		}
		a.launchMissing(g)
		return nil
	})
}

func invalid(format string, args ...any) *AWSError {
	return &AWSError{Code: "ValidationError", Message: fmt.Sprintf(format, args...), HTTPStatus: 400, Means: spot.ErrFinal}
}

func noGroup(name string) *AWSError {
	return invalid("AutoScalingGroup name not found - AutoScalingGroup %s not found", name)
}
