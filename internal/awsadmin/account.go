// Package awsadmin is an AWS account as somebody sees it who onboards a cluster into it: who has which rights, which
// instances the cluster has, where its secrets are kept, and what of the function is deployed. The function needs none of
// it; internal/awscloud is its AWS.
package awsadmin

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Account is one region of an account, with the credentials of whoever runs this.
type Account struct {
	cfg     aws.Config
	iam     *iam.Client
	ec2     *ec2.Client
	secrets *secretsmanager.Client
	lambda  *lambda.Client
	events  *eventbridge.Client
	stacks  *cloudformation.Client
	buckets *s3.Client
	sts     *sts.Client
}

// New makes an Account of region, credentials and endpoints of cfg.
func New(cfg aws.Config) *Account {
	return &Account{
		cfg: cfg,
		iam: iam.NewFromConfig(cfg), ec2: ec2.NewFromConfig(cfg), secrets: secretsmanager.NewFromConfig(cfg),
		lambda: lambda.NewFromConfig(cfg), events: eventbridge.NewFromConfig(cfg),
		stacks: cloudformation.NewFromConfig(cfg), buckets: s3.NewFromConfig(cfg), sts: sts.NewFromConfig(cfg),
	}
}

// Region is the one that is asked.
func (a *Account) Region() string { return a.cfg.Region }

// Caller is whose credentials these are.
type Caller struct{ Partition, Account, ARN string }

// Caller asks STS. It needs no permission.
func (a *Account) Caller(ctx context.Context) (Caller, error) { return caller(ctx, a.sts) }

// KeyWorks asks STS with an access key. What IAM has just made takes seconds until it is accepted everywhere.
func (a *Account) KeyWorks(ctx context.Context, k NewKey) error {
	cfg := a.cfg.Copy()
	cfg.Credentials = credentials.NewStaticCredentialsProvider(k.ID, k.Secret, "")
	_, err := caller(ctx, sts.NewFromConfig(cfg))
	return err
}

func caller(ctx context.Context, c *sts.Client) (Caller, error) {
	out, err := c.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Caller{}, translate("asking STS who we are", "", err)
	}
	who := Caller{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn)}
	if parts := strings.Split(who.ARN, ":"); len(parts) > 1 {
		who.Partition = parts[1]
	}
	return who, nil
}
