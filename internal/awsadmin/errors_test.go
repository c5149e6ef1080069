package awsadmin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// denied is a stub of AWS that denies every call, in the form of each protocol.
type denied struct{}

func (denied) Do(r *http.Request) (*http.Response, error) {
	kind, text := "text/xml", `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`
	if strings.Contains(r.Host, "s3") || strings.Contains(r.URL.Host, "s3") {
		text = `<Error><Code>AccessDenied</Code><Message>no</Message></Error>`
	}
	if strings.Contains(r.URL.Host, "ec2") {
		text = `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`
	}
	if r.Header.Get("X-Amz-Target") != "" || strings.Contains(r.URL.Host, "lambda") {
		kind, text = "application/x-amz-json-1.1", `{"__type": "AccessDeniedException", "Message": "no"}`
	}
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"Content-Type": {kind},
		"X-Amzn-Errortype": {"AccessDeniedException"}},
		Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// TestDenied: the error names the missing action as IAM policies do, which may differ from the SDK.
func TestDenied(t *testing.T) {
	a := New(aws.Config{Region: "eu-west-1", HTTPClient: denied{}, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")})
	do := func(c Call) func(context.Context) error {
		return func(ctx context.Context) error { return a.Do(ctx, c) }
	}
	for _, c := range []struct {
		want string
		call func(context.Context) error
	}{
		{"iam:ListUsers", func(ctx context.Context) error { _, err := a.UserNames(ctx); return err }},
		{"iam:CreateRole on role r", do(CreateRole("r", "d", "{}", nil))},
		{"ec2:DescribeSubnets", func(ctx context.Context) error { _, err := a.Subnets(ctx, "vpc"); return err }},
		{"secretsmanager:DescribeSecret on secret s", func(ctx context.Context) error {
			_, err := a.Secret(ctx, "s")
			return err
		}},
		{"lambda:ListFunctions", func(ctx context.Context) error { _, err := a.Functions(ctx); return err }},
		{"lambda:InvokeFunction on function f", func(ctx context.Context) error {
			_, _, err := a.Invoke(ctx, "f", nil)
			return err
		}},
		{"events:DescribeRule on rule r", func(ctx context.Context) error { _, err := a.Rule(ctx, "r"); return err }},
		{"cloudformation:DescribeStacks on stack s", func(ctx context.Context) error {
			_, err := a.Stack(ctx, "s")
			return err
		}},
		{"s3:ListBucket on bucket b", func(ctx context.Context) error { _, err := a.Objects(ctx, "b", "1", ""); return err }},
		{"s3:ListBucket on bucket b", func(ctx context.Context) error { _, err := a.Bucket(ctx, "b", "1", "", ""); return err }},
		{"s3:PutBucketPublicAccessBlock on bucket b", do(BlockPublicAccess("b", "1"))},
		{"sts:GetCallerIdentity", func(ctx context.Context) error { _, err := a.Caller(ctx); return err }},
	} {
		err := c.call(t.Context())
		if !errors.Is(err, ErrDenied) || !strings.HasSuffix(err.Error(), ": allow "+c.want) {
			t.Errorf("want the advice to allow %s: %v", c.want, err)
		}
	}
}
