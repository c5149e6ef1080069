// Package aws implements spot.Cloud with EC2 and EC2 Auto Scaling.
//
// A method makes one attempt, bounded in time: the SDK's retries are disabled because the handler retries by its own
// deadline. Errors are translated to spot.ErrNotFound, or to spot.ErrPermanent with what to do. All others are
// retryable.
package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	events "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/castai/kops-spot/internal/spot"
)

// attemptLimit bounds one attempt, including credentials and connection. Most calls take less than a second.
const attemptLimit = 5 * time.Second

// ErrNoResponse means that an attempt ended without a response: often, there is no route to the service.
var ErrNoResponse = errors.New("no response")

// Cloud implements spot.Cloud, and the AWS calls for authentication and the self-check. It is safe for concurrent use.
type Cloud struct {
	ec2        *ec2.Client
	scale      *autoscaling.Client
	secrets    *secretsmanager.Client
	parameters *ssm.Client
	sts        *sts.Client
	events     *events.Client
	limit      time.Duration // of one attempt
}

var (
	_ spot.Cloud     = (*Cloud)(nil)
	_ spot.Publisher = (*Cloud)(nil)
)

// New returns a Cloud with the region, credentials and endpoints of cfg. It ignores the retry settings.
func New(cfg aws.Config) *Cloud {
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	cfg = PlainBodies(cfg)
	return &Cloud{
		ec2: ec2.NewFromConfig(cfg), scale: autoscaling.NewFromConfig(cfg), sts: sts.NewFromConfig(cfg),
		secrets: secretsmanager.NewFromConfig(cfg), parameters: ssm.NewFromConfig(cfg), events: events.NewFromConfig(cfg), limit: attemptLimit,
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
		"Group":        {"autoscaling:DescribeAutoScalingGroups"},
		"DetachedFrom": {"ec2:DescribeInstances"},
		"Tag":          {"ec2:CreateTags"},
		"Detach":       {"autoscaling:DetachInstances"},

		"Hook":      {"autoscaling:DescribeLifecycleHooks"},
		"Heartbeat": {"autoscaling:RecordLifecycleActionHeartbeat"},
		"Complete":  {"autoscaling:CompleteLifecycleAction"},

		"Readable":    {"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingGroups"},
		"InstancesOf": {"ec2:DescribeInstances"},

		"Publish": {"events:PutEvents"},

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
		return none, fmt.Errorf("%s: %w within %s", doing, ErrNoResponse, c.limit)
	}
	return none, translate(op, doing, on, err)
}

// PlainBodies returns cfg with an HTTP client that reads every response completely: see plainBody.
func PlainBodies(cfg aws.Config) aws.Config {
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = awshttp.NewBuildableClient()
	}
	cfg.HTTPClient = plainBody{cfg.HTTPClient}
	return cfg
}

// plainBody hides the WriteTo method of a request's body. The SDK (smithy-go 1.28.8) closes the body when it has the
// response headers, and WriteTo of a closed body returns io.EOF. If net/http has not reached the end of the body yet,
// it treats this as a failed write and closes the connection in the middle of the response.
type plainBody struct{ client aws.HTTPClient }

func (c plainBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.client.Do(r)
}
