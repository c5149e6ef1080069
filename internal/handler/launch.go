package handler

import (
	"context"
	"errors"
	"fmt"

	"github.com/castai/kops-spot/internal/spot"
)

// launchFailed reports whether a failed launch of a group means that an instance of ours, which was detached from it,
// has no replacement. It sends no request for a group with another cluster's name, and none to the API server.
func (c *invocation) launchFailed(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	if why := c.Policy.OtherGroupNameReason(c.in.Group); why != "" {
		return c.ignored(why), nil
	}
	var g spot.Group
	err := toAWS.persist(ctx, func(ctx context.Context) (err error) {
		g, err = c.Cloud.Group(ctx, c.in.Group)
		return err
	})
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return c.ignored("group " + c.in.Group + " no longer exists"), nil
	case err != nil:
		return spot.Outcome{}, err
	}
	if why := c.Policy.NothingMissingReason(g); why != "" {
		return c.ignored(why), nil
	}
	var instances []spot.Instance
	err = toAWS.persist(ctx, func(ctx context.Context) (err error) {
		instances, err = c.Cloud.DetachedFrom(ctx, c.in.Group)
		return err
	})
	if err != nil {
		return spot.Outcome{}, err
	}
	failed := spot.FailedLaunch{Message: c.in.Message, Desired: g.Desired, Present: g.Present,
		Detached: c.Policy.DetachedBefore(c.in, instances)}
	if len(failed.Detached) == 0 {
		return c.ignored("none of our instances was detached from group " + g.Name + " shortly before"), nil
	}
	out := c.newOutcome(spot.Plan{Result: spot.ReplacementFailed, Reason: fmt.Sprintf(
		"group %s has %d of %d instances and could not launch another: %s", g.Name, g.Present, g.Desired, c.in.Message)})
	out.FailedLaunch = &failed
	return out, nil
}
