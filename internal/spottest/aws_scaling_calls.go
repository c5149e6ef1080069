package spottest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// DescribeAutoScalingInstances returns the members with these IDs, or all. Instances outside any group are omitted.
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

// DescribeAutoScalingGroups returns the groups with these names, or all. Unknown ones are omitted.
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

// DetachInstances detaches instances without decrementing the desired capacity: all of them, or none if one is not
// InService or Standby. The group replaces those that were InService (that it does not replace Standby ones is
// unverified).
func (a *AWS) DetachInstances(ctx context.Context, group string, ids []string) error {
	return a.call(ctx, AWSCall{Operation: "DetachInstances", Group: group, IDs: ids}, func() *AWSError {
		g := a.mustGroup(group)
		for _, id := range ids {
			m := a.member(id)
			if m == nil || m.Group != group {
				return invalid("The instance %s is not part of Auto Scaling group %s.", id, group)
			}
			if m.State != "InService" && m.State != "Standby" {
				return invalid("The instance %s is not in InService or Standby.", id)
			}
		}
		for _, id := range ids {
			a.member(id).State = "Detaching"
			if g.DetachTime == 0 {
				a.leave(id)
				continue
			}
			time.AfterFunc(g.DetachTime, func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.leave(id)
			})
		}
		a.launchMissing(g)
		return nil
	})
}

func invalid(format string, args ...any) *AWSError {
	return &AWSError{Code: "ValidationError", Message: fmt.Sprintf(format, args...), HTTPStatus: 400,
		Means: spot.ErrPermanent}
}
