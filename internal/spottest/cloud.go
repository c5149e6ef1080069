package spottest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// attemptLimit is the time limit of one call, as in internal/aws.
const attemptLimit = 5 * time.Second

// Cloud implements spot.Cloud on AWS with the same calls in the same order as internal/aws.
type Cloud struct{ aws *AWS }

var _ spot.Cloud = (*Cloud)(nil)

// Cloud returns the account as spot.Cloud.
func (a *AWS) Cloud() *Cloud { return &Cloud{aws: a} }

// cloudCall makes one call within the limit. As in internal/aws, reaching the limit is not context.DeadlineExceeded.
func cloudCall[T any](ctx context.Context, doing string, call func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	out, err := call(bounded)
	if err == nil {
		return out, nil
	}
	var none T
	switch {
	case ctx.Err() != nil:
		return none, fmt.Errorf("%s: %w", doing, ctx.Err())
	case bounded.Err() != nil:
		return none, fmt.Errorf("%s: no answer within %s", doing, attemptLimit)
	}
	return none, fmt.Errorf("%s: %w", doing, err)
}

// Instance implements spot.Cloud.
func (c *Cloud) Instance(ctx context.Context, id string) (spot.Instance, error) {
	found, err := cloudCall(ctx, "describing instance "+id, func(ctx context.Context) ([]Instance, error) {
		return c.aws.DescribeInstances(ctx, []string{id})
	})
	if err != nil {
		return spot.Instance{}, err
	}
	return found[0].toSpot(), nil
}

// toSpot converts an instance.
func (i Instance) toSpot() spot.Instance {
	return spot.Instance{
		ID: i.ID, State: i.State, PrivateDNSName: i.PrivateDNSName, PrivateIP: i.PrivateIP,
		Type: i.Type, Zone: i.Zone, Spot: i.Spot, Hibernates: i.Hibernates, Tags: i.Tags,
	}
}

// Membership implements spot.Cloud.
func (c *Cloud) Membership(ctx context.Context, id string) (spot.Membership, error) {
	doing := "looking for the Auto Scaling group of instance " + id
	members, err := cloudCall(ctx, doing, func(ctx context.Context) ([]Member, error) {
		return c.aws.DescribeAutoScalingInstances(ctx, []string{id})
	})
	if err != nil {
		return spot.Membership{}, err
	}
	if len(members) == 0 {
		return spot.Membership{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	group := members[0].Group

	var hooks []Hook
	var hooksErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		hooks, hooksErr = cloudCall(ctx, "describing lifecycle hooks of Auto Scaling group "+group,
			func(ctx context.Context) ([]Hook, error) {
				return c.aws.DescribeLifecycleHooks(ctx, group)
			})
	})
	groups, err := cloudCall(ctx, "describing Auto Scaling group "+group, func(ctx context.Context) ([]Group, error) {
		return c.aws.DescribeAutoScalingGroups(ctx, []string{group})
	})
	wg.Wait()
	if err != nil {
		return spot.Membership{}, err
	}
	m := spot.Membership{Group: group, LifecycleState: members[0].State, GroupTags: groups[0].Tags,
		Suspended: groups[0].Suspended, HooksErr: hooksErr}
	for _, h := range hooks {
		if h.Transition == HookTerminating {
			m.TerminateHooks = append(m.TerminateHooks, h.Name)
		}
	}
	return m, nil
}

// Tag implements spot.Cloud.
func (c *Cloud) Tag(ctx context.Context, id string, tags map[string]string) error {
	return c.change(ctx, "tagging instance "+id, func(ctx context.Context) error {
		return c.aws.CreateTags(ctx, []string{id}, tags)
	})
}

// Detach implements spot.Cloud.
func (c *Cloud) Detach(ctx context.Context, id, group string) error {
	return c.change(ctx, "detaching instance "+id+" from Auto Scaling group "+group, func(ctx context.Context) error {
		return c.aws.DetachInstances(ctx, group, []string{id})
	})
}

func (c *Cloud) change(ctx context.Context, doing string, call func(context.Context) error) error {
	_, err := cloudCall(ctx, doing, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
	return err
}
