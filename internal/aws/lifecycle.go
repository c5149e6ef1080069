package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/internal/spot"
)

// Hook reads a lifecycle hook of a group.
func (c *Cloud) Hook(ctx context.Context, group, hook string) (spot.Hook, error) {
	doing := "describing lifecycle hook " + hook + " of Auto Scaling group " + group
	out, err := attempt(ctx, c, "autoscaling:DescribeLifecycleHooks", doing, "", c.hooksNamed,
		&autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String(group), LifecycleHookNames: []string{hook}})
	if err != nil {
		return spot.Hook{}, err
	}
	for _, h := range out.LifecycleHooks {
		if aws.ToString(h.LifecycleHookName) == hook {
			return spot.Hook{Heartbeat: seconds(h.HeartbeatTimeout), Global: seconds(h.GlobalTimeout)}, nil
		}
	}
	return spot.Hook{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
}

func seconds(n *int32) time.Duration { return time.Duration(aws.ToInt32(n)) * time.Second }

// hooksNamed is DescribeLifecycleHooks for hooks of certain names. What it says of a hook or a group that does not
// exist is not documented: users have met an empty list, and a ValidationError that says "not found". Both are an empty
// list here.
func (c *Cloud) hooksNamed(ctx context.Context, in *autoscaling.DescribeLifecycleHooksInput, opts ...func(*autoscaling.Options),
) (*autoscaling.DescribeLifecycleHooksOutput, error) {
	out, err := c.scale.DescribeLifecycleHooks(ctx, in, opts...)
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "ValidationError" && strings.Contains(api.ErrorMessage(), "not found") {
		return &autoscaling.DescribeLifecycleHooksOutput{}, nil
	}
	return out, err
}

// Heartbeat begins the hook's heartbeat timeout anew. AWS answers a ValidationError ("No active Lifecycle Action found
// with token …") once the action is completed or has timed out.
func (c *Cloud) Heartbeat(ctx context.Context, a spot.Action) error {
	_, err := attempt(ctx, c, "autoscaling:RecordLifecycleActionHeartbeat", "recording a heartbeat of "+action(a),
		"Auto Scaling group "+a.Group, c.scale.RecordLifecycleActionHeartbeat, &autoscaling.RecordLifecycleActionHeartbeatInput{
			AutoScalingGroupName: aws.String(a.Group),
			LifecycleHookName:    aws.String(a.Hook),
			LifecycleActionToken: unlessEmpty(a.Token),
			InstanceId:           unlessEmpty(a.Instance),
		})
	return err
}

// Complete tells the group to continue. The instance is terminated whatever the result; but ABANDON would cut its other
// hooks short.
func (c *Cloud) Complete(ctx context.Context, a spot.Action) error {
	_, err := attempt(ctx, c, "autoscaling:CompleteLifecycleAction", "completing "+action(a), "Auto Scaling group "+a.Group,
		c.scale.CompleteLifecycleAction, &autoscaling.CompleteLifecycleActionInput{
			AutoScalingGroupName:  aws.String(a.Group),
			LifecycleHookName:     aws.String(a.Hook),
			LifecycleActionToken:  unlessEmpty(a.Token),
			InstanceId:            unlessEmpty(a.Instance),
			LifecycleActionResult: aws.String("CONTINUE"),
		})
	return err
}

// action names a lifecycle action in an error.
func action(a spot.Action) string {
	return "lifecycle hook " + a.Hook + " of Auto Scaling group " + a.Group + " for instance " + a.Instance
}

// unlessEmpty leaves a parameter out that AWS wants filled or not at all.
func unlessEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
