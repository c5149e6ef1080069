package aws

import (
	"context"

	"github.com/castai/kops-spot/internal/spot"
)

// A call executes an operation and returns the content of its response.
type call func() ([]element, error)

// read reads the parameters of an operation. Describe operations return everything on one page, whatever the limit.
func (s *Server) read(ctx context.Context, op string, p *params) (call, error) {
	switch op {
	case "DescribeInstances":
		ids, filters := p.list("InstanceId"), p.filters()
		p.value("MaxResults")
		return func() ([]element, error) {
			found, err := s.aws.DescribeInstances(ctx, ids, filters...)
			return describedInstances(found), err
		}, nil
	case "CreateTags":
		ids, tags := p.list("ResourceId"), p.tags()
		return func() ([]element, error) { return done(), s.aws.CreateTags(ctx, ids, tags) }, nil
	case "DescribeAutoScalingInstances":
		ids := p.list("InstanceIds.member")
		return func() ([]element, error) {
			found, err := s.aws.DescribeAutoScalingInstances(ctx, ids)
			return describedMembers(found), err
		}, nil
	case "DescribeAutoScalingGroups":
		names := p.list("AutoScalingGroupNames.member")
		p.value("MaxRecords")
		return func() ([]element, error) {
			found, err := s.aws.DescribeAutoScalingGroups(ctx, names)
			return describedGroups(found), err
		}, nil
	case "DescribeLifecycleHooks":
		group, names := p.value("AutoScalingGroupName"), p.list("LifecycleHookNames.member")
		return func() ([]element, error) {
			found, err := s.aws.DescribeLifecycleHooks(ctx, group, names...)
			return describedHooks(found), err
		}, nil
	case "DetachInstances":
		group, ids := p.value("AutoScalingGroupName"), p.list("InstanceIds.member")
		if err := p.only("ShouldDecrementDesiredCapacity", "false"); err != nil {
			return nil, err
		}
		return func() ([]element, error) { return nil, s.aws.DetachInstances(ctx, group, ids) }, nil
	case "RecordLifecycleActionHeartbeat":
		act := p.action()
		return func() ([]element, error) { return nil, s.aws.RecordLifecycleActionHeartbeat(ctx, act) }, nil
	case "CompleteLifecycleAction":
		act := p.action()
		if err := p.only("LifecycleActionResult", "CONTINUE"); err != nil {
			return nil, err
		}
		return func() ([]element, error) { return nil, s.aws.CompleteLifecycleAction(ctx, act) }, nil
	}
	panic("no endpoint for the operation " + op + "")
}

// action reads the parameters of a lifecycle action.
func (p *params) action() spot.Action {
	return spot.Action{Group: p.value("AutoScalingGroupName"), Hook: p.value("LifecycleHookName"),
		Token: p.value("LifecycleActionToken"), Instance: p.value("InstanceId")}
}
