// Package awsadmin reads and changes an AWS account for the installer: IAM, EC2, Auto Scaling, Secrets Manager, Lambda,
// EventBridge, SQS, CloudFormation, S3, CloudWatch Logs and prices. The function does not use it; its own calls are in
// internal/aws.
package awsadmin

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Account is one region of an AWS account, seen with the operator's credentials.
type Account struct {
	cfg     aws.Config
	iam     *iam.Client
	ec2     *ec2.Client
	secrets *secretsmanager.Client
	lambda  *lambda.Client
	events  *eventbridge.Client
	stacks  *cloudformation.Client
	buckets *s3.Client
	logs    *cloudwatchlogs.Client
	scaling *autoscaling.Client
	queues  *sqs.Client
}

// New returns the Account for the region, credentials and endpoints of cfg.
func New(cfg aws.Config) *Account {
	if cfg.RetryMaxAttempts == 0 {
		cfg.RetryMaxAttempts = throttleTries
	}
	return &Account{
		cfg: cfg,
		iam: iam.NewFromConfig(cfg), ec2: ec2.NewFromConfig(cfg), secrets: secretsmanager.NewFromConfig(cfg),
		lambda: lambda.NewFromConfig(cfg), events: eventbridge.NewFromConfig(cfg),
		stacks: cloudformation.NewFromConfig(cfg), buckets: s3.NewFromConfig(cfg),
		logs: cloudwatchlogs.NewFromConfig(cfg), scaling: autoscaling.NewFromConfig(cfg), queues: sqs.NewFromConfig(cfg),
	}
}

func (a *Account) Region() string { return a.cfg.Region }

// Caller is the identity behind the credentials.
type Caller struct{ Partition, Account, ARN string }

// Caller returns the identity behind the credentials. It needs no permission.
func (a *Account) Caller(ctx context.Context) (Caller, error) { return caller(ctx, a.cfg) }

// KeyWorks reports whether AWS accepts an access key yet: a new one takes some seconds to work everywhere.
func (a *Account) KeyWorks(ctx context.Context, k NewKey) error {
	cfg := a.cfg.Copy()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(k.ID, k.Secret, "")
	_, err := caller(ctx, cfg)
	return err
}

func caller(ctx context.Context, cfg aws.Config) (Caller, error) {
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Caller{}, translate("", err)
	}
	who := Caller{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn)}
	if parts := strings.Split(who.ARN, ":"); len(parts) > 1 {
		who.Partition = parts[1]
	}
	return who, nil
}
