package awsfake

import (
	"context"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// A call carries an operation out and returns what is inside its answer.
type call func() ([]element, error)

// operation reads the parameters of an operation, carries it out and returns what is inside its answer.
func (s *Server) operation(ctx context.Context, op string, p *params) ([]element, error) {
	do, err := s.read(ctx, op, p)
	if err != nil {
		return nil, err
	}
	if err := p.unknown(); err != nil {
		return nil, err
	}
	out, err := do()
	if err != nil {
		return nil, err
	}
	return out, nil
}

// read reads the parameters of an operation.
func (s *Server) read(ctx context.Context, op string, p *params) (call, error) {
	switch op {
	case "DescribeInstances":
		return s.describeInstances(ctx, p)
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
		return s.describeGroups(ctx, p)
	case "DescribeLifecycleHooks":
		group, names := p.value("AutoScalingGroupName"), p.list("LifecycleHookNames.member")
		return func() ([]element, error) {
			found, err := s.aws.DescribeLifecycleHooks(ctx, group, names...)
			return describedHooks(found), err
		}, nil
	case "DetachInstances":
		return s.detachInstances(ctx, p)
	case "DescribeScalingActivities":
		return s.describeActivities(ctx, p)
	case "RecordLifecycleActionHeartbeat":
		act := p.action()
		return func() ([]element, error) { return nil, s.aws.RecordLifecycleActionHeartbeat(ctx, act) }, nil
	case "CompleteLifecycleAction":
		act, result := p.action(), p.value("LifecycleActionResult")
		return func() ([]element, error) { return nil, s.aws.CompleteLifecycleAction(ctx, act, result) }, nil
	}
	panic("the model has an operation " + op + " that the endpoint has not")
}

func (s *Server) describeInstances(ctx context.Context, p *params) (call, error) {
	ids, limit, token := p.list("InstanceId"), p.value("MaxResults"), p.value("NextToken")
	filters, err := p.filters()
	if err != nil {
		return nil, err
	}
	if limit != "" && len(ids) > 0 {
		return nil, &sim.AWSError{Code: "InvalidParameterCombination", HTTPStatus: 400,
			Message: "The parameter instancesSet cannot be used with the parameter maxResults"}
	}
	from, to, err := pageOf(limit, token, pageLimits{5, 1000, "InvalidParameterValue"})
	if err != nil {
		return nil, err
	}
	return func() ([]element, error) {
		found, err := s.aws.DescribeInstances(ctx, ids, filters...)
		found, next := cut(found, from, to)
		return append(describedInstances(found), nextToken("nextToken", next)...), err
	}, nil
}

func (s *Server) describeGroups(ctx context.Context, p *params) (call, error) {
	names := p.list("AutoScalingGroupNames.member")
	from, to, err := pageOf(p.value("MaxRecords"), p.value("NextToken"), pageLimits{1, 100, "ValidationError"})
	if err != nil {
		return nil, err
	}
	return func() ([]element, error) {
		found, err := s.aws.DescribeAutoScalingGroups(ctx, names)
		found, next := cut(found, from, to)
		return append(describedGroups(found), nextToken("NextToken", next)...), err
	}, nil
}

func (s *Server) describeActivities(ctx context.Context, p *params) (call, error) {
	group, token := p.value("AutoScalingGroupName"), p.value("NextToken")
	limit, err := p.number("MaxRecords", "ValidationError")
	if err != nil {
		return nil, err
	}
	return func() ([]element, error) {
		found, next, err := s.aws.DescribeScalingActivities(ctx, group, limit, token)
		return append(describedActivities(found), nextToken("NextToken", next)...), err
	}, nil
}

func (s *Server) detachInstances(ctx context.Context, p *params) (call, error) {
	group, ids := p.value("AutoScalingGroupName"), p.list("InstanceIds.member")
	decrement, err := p.requiredBool("ShouldDecrementDesiredCapacity")
	if err != nil {
		return nil, err
	}
	return func() ([]element, error) { return nil, s.aws.DetachInstances(ctx, group, ids, decrement) }, nil
}

// action reads which lifecycle action is meant.
func (p *params) action() spot.Action {
	return spot.Action{Group: p.value("AutoScalingGroupName"), Hook: p.value("LifecycleHookName"),
		Token: p.value("LifecycleActionToken"), Instance: p.value("InstanceId")}
}
