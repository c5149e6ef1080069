package spottest

import (
	"context"
	"fmt"
	"slices"

	"github.com/castai/kops-spot/internal/spot"
)

// Group implements spot.Cloud.
func (c *Cloud) Group(ctx context.Context, name string) (spot.Group, error) {
	doing := "describing Auto Scaling group " + name
	groups, err := cloudCall(ctx, doing, func(ctx context.Context) ([]Group, error) {
		return c.aws.DescribeAutoScalingGroups(ctx, []string{name})
	})
	switch {
	case err != nil:
		return spot.Group{}, err
	case len(groups) == 0:
		return spot.Group{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	g := groups[0]
	return spot.Group{Name: name, Tags: g.Tags, Desired: g.Desired, Present: g.capacity()}, nil
}

// DetachedFrom implements spot.Cloud.
func (c *Cloud) DetachedFrom(ctx context.Context, group string) ([]spot.Instance, error) {
	page, err := cloudCall(ctx, "describing instances detached from Auto Scaling group "+group,
		func(ctx context.Context) ([]Instance, error) {
			return c.aws.DescribeInstances(ctx, nil, Filter{Name: filterTag + spot.TagDetached, Values: []string{group}})
		})
	var found []spot.Instance
	for _, i := range page {
		found = append(found, i.toSpot())
	}
	return found, err
}

// Hook implements spot.Cloud.
func (c *Cloud) Hook(ctx context.Context, group, hook string) (spot.Hook, error) {
	doing := "describing lifecycle hook " + hook + " of Auto Scaling group " + group
	hooks, err := cloudCall(ctx, doing, func(ctx context.Context) ([]Hook, error) {
		return c.aws.DescribeLifecycleHooks(ctx, group, hook)
	})
	if err != nil {
		return spot.Hook{}, err
	}
	if len(hooks) == 0 {
		return spot.Hook{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	return spot.Hook{Heartbeat: hooks[0].Heartbeat, Global: hooks[0].Global()}, nil
}

// Heartbeat implements spot.Cloud.
func (c *Cloud) Heartbeat(ctx context.Context, a spot.Action) error {
	return c.change(ctx, "recording a heartbeat of "+actionName(a), func(ctx context.Context) error {
		return c.aws.RecordLifecycleActionHeartbeat(ctx, a)
	})
}

// Complete implements spot.Cloud.
func (c *Cloud) Complete(ctx context.Context, a spot.Action) error {
	return c.change(ctx, "completing "+actionName(a), func(ctx context.Context) error {
		return c.aws.CompleteLifecycleAction(ctx, a)
	})
}

func actionName(a spot.Action) string {
	return "lifecycle hook " + a.Hook + " of Auto Scaling group " + a.Group + " for instance " + a.Instance
}

// Readable checks that EC2 and Auto Scaling can be read.
func (c *Cloud) Readable(ctx context.Context, cluster string) error {
	_, instances := cloudCall(ctx, "describing instances of cluster "+cluster,
		func(ctx context.Context) ([]Instance, error) {
			return c.aws.DescribeInstances(ctx, nil,
				Filter{Name: filterTag + spot.TagCluster, Values: []string{cluster}})
		})
	_, groups := cloudCall(ctx, "describing Auto Scaling groups", func(ctx context.Context) ([]Group, error) {
		return c.aws.DescribeAutoScalingGroups(ctx, nil)
	})
	switch {
	case instances == nil:
		return groups
	case groups == nil:
		return instances
	}
	return fmt.Errorf("%w; %w", instances, groups)
}

// idsAtOnce is the number of instances per call, as in internal/aws.
const idsAtOnce = 200

// InstancesOf reads instances by ID. Unknown ones are omitted.
func (c *Cloud) InstancesOf(ctx context.Context, ids []string) (map[string]spot.Instance, error) {
	found := map[string]spot.Instance{}
	for some := range slices.Chunk(ids, idsAtOnce) {
		page, err := cloudCall(ctx, fmt.Sprintf("describing %d instances", len(ids)),
			func(ctx context.Context) ([]Instance, error) {
				return c.aws.DescribeInstances(ctx, nil, Filter{Name: filterID, Values: some})
			})
		if err != nil {
			return nil, err
		}
		for _, i := range page {
			found[i.ID] = i.toSpot()
		}
	}
	return found, nil
}
