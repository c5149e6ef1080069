package aws

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/castai/kops-spot/internal/spot"
)

// terminating is the transition of hooks that run before an instance ends; a detached instance skips them.
const terminating = "autoscaling:EC2_INSTANCE_TERMINATING"

// Membership reads which group the instance is in, then, at once, the group and its hooks. Hooks that could not be read
// are not the same as no hooks, and no reason to give the rest up.
func (c *Cloud) Membership(ctx context.Context, id string) (spot.Membership, error) {
	doing := "looking for the Auto Scaling group of instance " + id
	out, err := attempt(ctx, c, "autoscaling:DescribeAutoScalingInstances", doing, "", c.scale.DescribeAutoScalingInstances,
		&autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return spot.Membership{}, err
	}
	if len(out.AutoScalingInstances) == 0 {
		return spot.Membership{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	member := out.AutoScalingInstances[0]
	m := spot.Membership{
		Group:          aws.ToString(member.AutoScalingGroupName),
		LifecycleState: aws.ToString(member.LifecycleState),
	}

	var wg sync.WaitGroup
	wg.Go(func() { m.TerminateHooks, m.HooksErr = c.terminateHooks(ctx, m.Group) })
	g, err := c.group(ctx, m.Group)
	wg.Wait()
	if err != nil {
		return spot.Membership{}, err
	}
	m.GroupTags = tags(g)
	// AWS lists here what a user suspended and what it suspended itself (administrative suspension, after a day of
	// launches that failed): neither launches anything.
	for _, p := range g.SuspendedProcesses {
		m.Suspended = append(m.Suspended, aws.ToString(p.ProcessName))
	}
	return m, nil
}

// Group reads a group.
func (c *Cloud) Group(ctx context.Context, name string) (spot.Group, error) {
	g, err := c.group(ctx, name)
	if err != nil {
		return spot.Group{}, err
	}
	out := spot.Group{Name: name, Tags: tags(g), Desired: int(aws.ToInt32(g.DesiredCapacity))}
	for _, i := range g.Instances {
		if i.LifecycleState == types.LifecycleStateInService || strings.HasPrefix(string(i.LifecycleState), "Pending") {
			out.Present++
		}
	}
	return out, nil
}

func tags(g types.AutoScalingGroup) map[string]string {
	m := map[string]string{}
	for _, t := range g.Tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

func (c *Cloud) group(ctx context.Context, name string) (types.AutoScalingGroup, error) {
	doing := "describing Auto Scaling group " + name
	out, err := attempt(ctx, c, "autoscaling:DescribeAutoScalingGroups", doing, "", c.scale.DescribeAutoScalingGroups,
		&autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err != nil {
		return types.AutoScalingGroup{}, err
	}
	if len(out.AutoScalingGroups) == 0 {
		return types.AutoScalingGroup{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	return out.AutoScalingGroups[0], nil
}

func (c *Cloud) terminateHooks(ctx context.Context, group string) ([]string, error) {
	out, err := attempt(ctx, c, "autoscaling:DescribeLifecycleHooks", "describing lifecycle hooks of Auto Scaling group "+group, "",
		c.scale.DescribeLifecycleHooks, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String(group)})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, h := range out.LifecycleHooks {
		if aws.ToString(h.LifecycleTransition) == terminating {
			names = append(names, aws.ToString(h.LifecycleHookName))
		}
	}
	return names, nil
}

// Detach takes the instance out of the group and leaves the desired capacity as it is: the group launches another. AWS
// refuses for good (ValidationError) what is not InService or Standby, or is in the group no more.
func (c *Cloud) Detach(ctx context.Context, id, group string) error {
	_, err := attempt(ctx, c, "autoscaling:DetachInstances", "detaching instance "+id+" from Auto Scaling group "+group,
		"Auto Scaling group "+group, c.scale.DetachInstances, &autoscaling.DetachInstancesInput{
			AutoScalingGroupName:           aws.String(group),
			InstanceIds:                    []string{id},
			ShouldDecrementDesiredCapacity: aws.Bool(false),
		})
	return err
}
