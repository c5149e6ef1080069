package awsadmin

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// Group is an Auto Scaling group.
type Group struct {
	Name              string
	Tags              map[string]string
	CapacityRebalance bool
	InstanceTypes     []string // named by a mixed instances policy; without one, the launch template has one
	ByRequirements    bool     // requirements choose the types instead
	Zones             []string
	Hooks             []string // names of the lifecycle hooks for terminations
	Waiting           []string // instances whose termination a hook delays
}

// onTermination is the transition of hooks for terminations.
const onTermination = "autoscaling:EC2_INSTANCE_TERMINATING"

// Groups returns the groups with a tag, ordered by name.
func (a *Account) Groups(ctx context.Context, key, value string) ([]Group, error) {
	all, err := a.GroupsWithoutHooks(ctx, key, value)
	if err != nil {
		return nil, err
	}
	return a.withHooks(ctx, all)
}

// GroupsWithoutHooks is Groups without reading the hooks.
func (a *Account) GroupsWithoutHooks(ctx context.Context, key, value string) ([]Group, error) {
	return a.groups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(100),
		Filters: []types.Filter{{Name: aws.String("tag:" + key), Values: []string{value}}}})
}

// Group returns a group, and whether it exists.
func (a *Account) Group(ctx context.Context, name string) (g Group, exists bool, err error) {
	all, err := a.groups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
	if err == nil {
		all, err = a.withHooks(ctx, all)
	}
	if len(all) > 0 {
		return all[0], true, err
	}
	return g, false, err
}

func (a *Account) groups(ctx context.Context, in *autoscaling.DescribeAutoScalingGroupsInput) ([]Group, error) {
	all, err := every(ctx, "", autoscaling.NewDescribeAutoScalingGroupsPaginator(a.scaling, in),
		func(p *autoscaling.DescribeAutoScalingGroupsOutput) []types.AutoScalingGroup {
			return p.AutoScalingGroups
		},
		func(g types.AutoScalingGroup) Group {
			group := Group{Name: aws.ToString(g.AutoScalingGroupName), CapacityRebalance: aws.ToBool(g.CapacityRebalance),
				Tags: mapOf(g.Tags, func(t types.TagDescription) (key, value *string) { return t.Key, t.Value })}
			group.Zones = g.AvailabilityZones
			group.InstanceTypes, group.ByRequirements = instanceTypes(g.MixedInstancesPolicy)
			for _, i := range g.Instances {
				if strings.HasSuffix(string(i.LifecycleState), "Terminating:Wait") { // also of a warm pool
					group.Waiting = append(group.Waiting, aws.ToString(i.InstanceId))
				}
			}
			return group
		})
	slices.SortFunc(all, func(a, b Group) int { return strings.Compare(a.Name, b.Name) })
	return all, err
}

// withHooks reads the hooks of the groups that still exist.
func (a *Account) withHooks(ctx context.Context, all []Group) (existing []Group, err error) {
	for _, g := range all {
		switch g.Hooks, err = a.terminationHooks(ctx, g.Name); {
		case errors.Is(err, ErrNotFound): // the group was deleted meanwhile
		case err != nil:
			return nil, err
		default:
			existing = append(existing, g)
		}
	}
	return existing, nil
}

// instanceTypes returns the types that a policy names, or whether it has requirements instead.
func instanceTypes(p *types.MixedInstancesPolicy) (names []string, byRequirements bool) {
	if p == nil || p.LaunchTemplate == nil {
		return nil, false
	}
	for _, o := range p.LaunchTemplate.Overrides {
		if o.InstanceType == nil {
			return nil, true
		}
		names = append(names, *o.InstanceType)
	}
	return names, false
}

func (a *Account) terminationHooks(ctx context.Context, group string) (names []string, err error) {
	out, err := a.scaling.DescribeLifecycleHooks(ctx,
		&autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: &group})
	if err != nil {
		return nil, translate("Auto Scaling group "+group, err)
	}
	for _, h := range out.LifecycleHooks {
		if aws.ToString(h.LifecycleTransition) == onTermination {
			names = append(names, aws.ToString(h.LifecycleHookName))
		}
	}
	return names, nil
}

// PutLifecycleHook creates a hook that delays terminations until its heartbeat timeout, in seconds.
func PutLifecycleHook(group, hook string, timeout int32) Call {
	return call("Auto Scaling group "+group, (*autoscaling.Client).PutLifecycleHook, &autoscaling.PutLifecycleHookInput{
		AutoScalingGroupName: &group, LifecycleHookName: &hook, LifecycleTransition: aws.String(onTermination),
		HeartbeatTimeout: &timeout, DefaultResult: aws.String("CONTINUE")})
}

// DeleteLifecycleHook deletes a hook. Terminations that it delays continue at once.
func DeleteLifecycleHook(group, hook string) Call {
	return call("Auto Scaling group "+group, (*autoscaling.Client).DeleteLifecycleHook,
		&autoscaling.DeleteLifecycleHookInput{AutoScalingGroupName: &group, LifecycleHookName: &hook})
}

// Queue returns the URL of an SQS queue, and its tags; empty if there is none.
func (a *Account) Queue(ctx context.Context, name string) (url string, tags map[string]string, err error) {
	out, err := a.queues.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", nil, unlessNone(translate("queue "+name, err))
	}
	list, err := a.queues.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: out.QueueUrl})
	if err != nil {
		return "", nil, unlessNone(translate("queue "+name, err))
	}
	return aws.ToString(out.QueueUrl), list.Tags, nil
}

func DeleteQueue(url string) Call {
	return call("queue "+url, (*sqs.Client).DeleteQueue, &sqs.DeleteQueueInput{QueueUrl: &url})
}
