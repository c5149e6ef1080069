package aws

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/castai/kops-spot/internal/spot"
)

// attemptLimit bounds one attempt, including credentials and connection. Most calls take less than a second.
const attemptLimit = 5 * time.Second

// Cloud implements spot.Cloud, and the AWS calls for authentication and the self-check. It is safe for concurrent use.
type Cloud struct {
	ec2        *ec2.Client
	scale      *autoscaling.Client
	secrets    *secretsmanager.Client
	parameters *ssm.Client
	sts        *sts.Client
	limit      time.Duration // of one attempt
}

var _ spot.Cloud = (*Cloud)(nil)

// New returns a Cloud with the region, credentials and endpoints of cfg. It ignores the retry settings.
func New(cfg aws.Config) *Cloud {
	return &Cloud{
		ec2: ec2.NewFromConfig(cfg, func(o *ec2.Options) { o.Retryer, o.HTTPClient = aws.NopRetryer{}, plainBody{o.HTTPClient} }),
		scale: autoscaling.NewFromConfig(cfg, func(o *autoscaling.Options) {
			o.Retryer, o.HTTPClient = aws.NopRetryer{}, plainBody{o.HTTPClient}
		}),
		secrets: secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) {
			o.Retryer, o.HTTPClient = aws.NopRetryer{}, plainBody{o.HTTPClient}
		}),
		parameters: ssm.NewFromConfig(cfg, func(o *ssm.Options) { o.Retryer, o.HTTPClient = aws.NopRetryer{}, plainBody{o.HTTPClient} }),
		sts:        sts.NewFromConfig(cfg, func(o *sts.Options) { o.Retryer, o.HTTPClient = aws.NopRetryer{}, plainBody{o.HTTPClient} }),
		limit:      attemptLimit,
	}
}

// Operations lists the IAM actions that each method needs.
func Operations() map[string][]string {
	return map[string][]string{
		"Instance": {"ec2:DescribeInstances"},
		"Membership": {
			"autoscaling:DescribeAutoScalingInstances",
			"autoscaling:DescribeAutoScalingGroups",
			"autoscaling:DescribeLifecycleHooks",
		},
		"Tag":    {"ec2:CreateTags"},
		"Detach": {"autoscaling:DetachInstances"},

		"Launches":  {"autoscaling:DescribeScalingActivities"},
		"Hook":      {"autoscaling:DescribeLifecycleHooks"},
		"Heartbeat": {"autoscaling:RecordLifecycleActionHeartbeat"},
		"Complete":  {"autoscaling:CompleteLifecycleAction"},

		"Readable":    {"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingGroups"},
		"InstancesOf": {"ec2:DescribeInstances"},

		"Secret":    {"secretsmanager:GetSecretValue"},
		"Parameter": {"ssm:GetParameter"},
		"CallerARN": {"sts:GetCallerIdentity"}, // needs no permission
	}
}

// attempt makes one call of the IAM action op within the limit. doing and on describe, in an error, the request and the
// resource that a permission is needed for.
func attempt[In, Out, Opt any](ctx context.Context, c *Cloud, op, doing, on string,
	call func(context.Context, In, ...func(Opt)) (Out, error), in In) (Out, error) {
	bounded, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	out, err := call(bounded, in)
	if err == nil {
		return out, nil
	}
	var none Out
	switch {
	case ctx.Err() != nil:
		return none, fmt.Errorf("%s: %w", doing, ctx.Err())
	case bounded.Err() != nil: // not context.DeadlineExceeded: the caller's deadline has not passed
		return none, fmt.Errorf("%s: no response within %s", doing, c.limit)
	}
	return none, translate(op, doing, on, err)
}
