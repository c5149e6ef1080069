package awsfake

import (
	"context"
	"fmt"

	"github.com/castai/kops-spot/internal/sim"
)

// operation reads the parameters of an operation, carries it out and returns what is inside its answer.
func (s *Server) operation(ctx context.Context, op string, p *params) ([]element, error) {
	var call func() ([]element, error)
	switch op {
	case "DescribeInstances":
		ids := p.list("InstanceId")
		call = func() ([]element, error) {
			found, err := s.aws.DescribeInstances(ctx, ids)
			return describedInstances(found), err
		}
	case "CreateTags":
		ids, tags := p.list("ResourceId"), p.tags()
		call = func() ([]element, error) { return done(), s.aws.CreateTags(ctx, ids, tags) }
	case "DeleteTags":
		ids, keys := p.list("ResourceId"), p.tagKeys()
		call = func() ([]element, error) { return done(), s.aws.DeleteTags(ctx, ids, keys) }
	case "DescribeAutoScalingInstances":
		ids := p.list("InstanceIds.member")
		call = func() ([]element, error) {
			found, err := s.aws.DescribeAutoScalingInstances(ctx, ids)
			return describedMembers(found), err
		}
	case "DescribeAutoScalingGroups":
		names := p.list("AutoScalingGroupNames.member")
		call = func() ([]element, error) {
			found, err := s.aws.DescribeAutoScalingGroups(ctx, names)
			return describedGroups(found), err
		}
	case "DescribeLifecycleHooks":
		group := p.value("AutoScalingGroupName")
		call = func() ([]element, error) {
			found, err := s.aws.DescribeLifecycleHooks(ctx, group)
			return describedHooks(group, found), err
		}
	case "DetachInstances":
		group, ids := p.value("AutoScalingGroupName"), p.list("InstanceIds.member")
		decrement, err := p.requiredBool("ShouldDecrementDesiredCapacity")
		if err != nil {
			return nil, err
		}
		call = func() ([]element, error) {
			return detached(group, ids), s.aws.DetachInstances(ctx, group, ids, decrement)
		}
	}
	if err := p.unknown(); err != nil {
		return nil, err
	}
	out, err := call()
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (p *params) requiredBool(name string) (bool, error) {
	switch v := p.value(name); v {
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, &sim.AWSError{Code: "ValidationError", HTTPStatus: 400,
			Message: fmt.Sprintf("%s must be true or false, not %q", name, v)}
	}
}
