package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// account is the AWS account that moto plays.
type account struct {
	id   string
	url  string
	http *http.Client
}

func newAccount(o Options) account {
	return account{id: o.Account, url: o.Moto, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}}
}

// in is the configuration of a client for one region. Nothing is tried again: what fails on loopback fails for good.
func (a account) in(region string) aws.Config {
	return aws.Config{
		Region:       region,
		BaseEndpoint: aws.String(a.url),
		HTTPClient:   a.http,
		Credentials:  credentials.NewStaticCredentialsProvider("testing", "testing", ""),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

func (a account) events(region string) *eventbridge.Client {
	return eventbridge.NewFromConfig(a.in(region))
}

func (a account) lambda(region string) *lambda.Client { return lambda.NewFromConfig(a.in(region)) }

func (a account) logs(region string) *cloudwatchlogs.Client {
	return cloudwatchlogs.NewFromConfig(a.in(region))
}

// queue is an SQS queue, known by its ARN.
type queue struct {
	arn    string
	url    string
	client *sqs.Client
}

var errNoQueue = errors.New("there is no such queue")

// queue finds a queue. That there is none is errNoQueue.
func (a account) queue(ctx context.Context, at string) (queue, error) {
	parsed, err := arn.Parse(at)
	if err != nil || parsed.Service != "sqs" {
		return queue{}, fmt.Errorf("%s is not the ARN of an SQS queue, and nothing else can be written to here", at)
	}
	q := queue{arn: at, client: sqs.NewFromConfig(a.in(parsed.Region))}
	out, err := q.client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &parsed.Resource, QueueOwnerAWSAccountId: &parsed.AccountID})
	var none *types.QueueDoesNotExist
	if errors.As(err, &none) {
		return queue{}, fmt.Errorf("%s: %w", at, errNoQueue)
	}
	if err != nil {
		return queue{}, fmt.Errorf("finding queue %s: %w", at, err)
	}
	q.url = *out.QueueUrl
	return q, nil
}

// policy is the queue's resource policy; empty if it has none.
func (q queue) policy(ctx context.Context) (string, error) {
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &q.url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNamePolicy}})
	if err != nil {
		return "", fmt.Errorf("reading the policy of queue %s: %w", q.arn, err)
	}
	return out.Attributes[string(types.QueueAttributeNamePolicy)], nil
}

// send writes a message. group is for FIFO queues alone.
func (q queue) send(ctx context.Context, body []byte, group string, attributes map[string]string) error {
	in := &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: aws.String(string(body)), MessageAttributes: map[string]types.MessageAttributeValue{}}
	if group != "" {
		in.MessageGroupId = &group
	}
	for name, value := range attributes {
		in.MessageAttributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
	}
	if _, err := q.client.SendMessage(ctx, in); err != nil {
		return fmt.Errorf("writing to queue %s: %w", q.arn, err)
	}
	return nil
}
