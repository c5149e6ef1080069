package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// responseLimit is how long EventBridge waits for the response of an API destination ("API destinations as targets",
// EventBridge User Guide).
const responseLimit = 5 * time.Second

// errFinal is an error that EventBridge does not retry.
var errFinal = errors.New("not retried")

// post sends an event to an API destination, retries, and at last sends it to the dead-letter queue.
func (b *Bridge) post(ctx context.Context, rule string, t types.Target, body []byte) (input string, err error) {
	if input, err = inputOf(t, body); err != nil {
		return "", err
	}
	attempts, pause, began := 0, 50*time.Millisecond, time.Now()
	for {
		attempts++
		if err = b.request(ctx, t, input); err == nil {
			return input, nil
		}
		if errors.Is(err, errFinal) || time.Since(began)+pause > b.options.RetryLimit {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return input, ctx.Err()
		}
		pause *= 2
	}
	err = fmt.Errorf("posting to %s, %d attempts: %w", *t.Arn, attempts, err)
	return input, errors.Join(err, b.deadLetter(ctx, rule, t, body, err))
}

// request makes one request with the connection's header and body parameters. moto has their values in its description
// of the connection, where EventBridge has none.
func (b *Bridge) request(ctx context.Context, t types.Target, input string) error {
	client, name := eventbridge.NewFromConfig(b.moto), strings.Split(*t.Arn, "/")
	if b.options.Internet == nil || len(name) != 3 || t.RoleArn == nil {
		return fmt.Errorf("%w: the bridge needs a client for %s, and the target a role", errFinal, *t.Arn)
	}
	d, err := client.DescribeApiDestination(ctx, &eventbridge.DescribeApiDestinationInput{Name: &name[1]})
	if err != nil {
		return fmt.Errorf("%w: %w", errFinal, err)
	}
	auth, err := b.authorization(ctx, strings.Split(*d.ConnectionArn, "/")[1])
	if err != nil {
		return fmt.Errorf("%w: %w", errFinal, err)
	}
	object := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(input), &object); err != nil {
		return fmt.Errorf("%w: the input is no JSON object: %w", errFinal, err)
	}
	for _, p := range auth.InvocationHTTPParameters.BodyParameters {
		object[p.Key] = encode(p.Value)
	}
	ctx, cancel := context.WithTimeout(ctx, min(responseLimit, b.options.RetryLimit))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, string(d.HttpMethod), *d.InvocationEndpoint, bytes.NewReader(encode(object)))
	if err != nil {
		return fmt.Errorf("%w: %w", errFinal, err)
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	r.Header.Set(auth.APIKeyAuthParameters.APIKeyName, auth.APIKeyAuthParameters.APIKeyValue)
	response, err := b.options.Internet.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	switch code := response.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusConflict, code == http.StatusTooManyRequests, code >= http.StatusInternalServerError:
		return errors.New(response.Status)
	}
	return fmt.Errorf("%w: %s", errFinal, response.Status)
}

// authorization is a connection's, with its secrets.
type authorization struct {
	APIKeyAuthParameters     struct{ APIKeyName, APIKeyValue string }
	InvocationHTTPParameters struct{ BodyParameters []struct{ Key, Value string } }
}

func (b *Bridge) authorization(ctx context.Context, connection string) (a authorization, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.options.Moto, bytes.NewReader(encode(map[string]string{"Name": connection})))
	if err != nil {
		return a, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AWSEvents.DescribeConnection")
	r.Header.Set("Authorization", b.signature("events"))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	var out struct{ AuthParameters authorization }
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil {
		return a, err
	}
	if out.AuthParameters.APIKeyAuthParameters.APIKeyName == "" {
		return a, fmt.Errorf("the connection %s has no header", connection)
	}
	return out.AuthParameters, nil
}

// signature is one that moto accepts: it reads only the region and the service.
func (b *Bridge) signature(service string) string {
	return "AWS4-HMAC-SHA256 Credential=testing/20260101/" + b.options.Region + "/" + service + "/aws4_request, SignedHeaders=host, Signature=0"
}

// deadLetter sends an event to a target's dead-letter queue, with the attributes of "Using dead-letter queues" in the
// EventBridge User Guide.
func (b *Bridge) deadLetter(ctx context.Context, rule string, t types.Target, body []byte, why error) error {
	if t.DeadLetterConfig == nil {
		return nil
	}
	arn, client := strings.Split(*t.DeadLetterConfig.Arn, ":"), sqs.NewFromConfig(b.moto)
	at, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &arn[len(arn)-1]})
	if err != nil {
		return err
	}
	attributes := map[string]sqstypes.MessageAttributeValue{}
	for name, value := range map[string]string{"RULE_ARN": rule, "TARGET_ARN": *t.Arn, "ERROR_MESSAGE": why.Error()} {
		attributes[name] = sqstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
	}
	_, err = client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: at.QueueUrl, MessageBody: aws.String(string(body)), MessageAttributes: attributes})
	return err
}
