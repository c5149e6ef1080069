package samproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/test/template"
)

// receiver is the connection and the API destination of a stack, which moto's CloudFormation does not know; empty if the
// stack has none.
type receiver struct {
	connection  eventbridge.CreateConnectionInput
	destination eventbridge.CreateApiDestinationInput
}

func receiverOf(s *template.Stack) (r receiver) {
	for _, one := range s.Resources {
		switch one.Type {
		case "AWS::Events::Connection":
			convert(one.Properties, &r.connection)
		case "AWS::Events::ApiDestination":
			convert(one.Properties, &r.destination)
		}
	}
	return r
}

// convert converts between CloudFormation and the API, which have the same names.
func convert(from, to any) {
	text, err := json.Marshal(scalars(from))
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		panic(err)
	}
}

// scalars returns v with the numbers and booleans that CloudFormation accepts as strings.
func scalars(v any) any {
	object, _ := v.(map[string]any)
	for name, value := range object {
		if name == "IsValueSecret" || name == "InvocationRateLimitPerSecond" {
			object[name] = json.RawMessage(fmt.Sprint(value))
		} else {
			scalars(value)
		}
	}
	list, _ := v.([]any)
	for _, one := range list {
		scalars(one)
	}
	return v
}

// put creates or updates both.
func (r receiver) put(ctx context.Context, client *eventbridge.Client) error {
	c, d := r.connection, r.destination
	if c.Name == nil {
		return nil
	}
	var missing *types.ResourceNotFoundException
	is, err := client.DescribeConnection(ctx, &eventbridge.DescribeConnectionInput{Name: c.Name})
	switch {
	case errors.As(err, &missing):
		made, err := client.CreateConnection(ctx, &c)
		if err != nil {
			return err
		}
		d.ConnectionArn = made.ConnectionArn
	case err != nil:
		return err
	default:
		d.ConnectionArn = is.ConnectionArn
		in := eventbridge.UpdateConnectionInput{Name: c.Name, AuthorizationType: c.AuthorizationType,
			AuthParameters: &types.UpdateConnectionAuthRequestParameters{}}
		convert(c.AuthParameters, in.AuthParameters)
		if _, err := client.UpdateConnection(ctx, &in); err != nil {
			return err
		}
	}
	_, err = client.DescribeApiDestination(ctx, &eventbridge.DescribeApiDestinationInput{Name: d.Name})
	switch {
	case errors.As(err, &missing):
		_, err = client.CreateApiDestination(ctx, &d)
	case err == nil:
		_, err = client.UpdateApiDestination(ctx, &eventbridge.UpdateApiDestinationInput{Name: d.Name, ConnectionArn: d.ConnectionArn,
			HttpMethod: d.HttpMethod, InvocationEndpoint: d.InvocationEndpoint, InvocationRateLimitPerSecond: d.InvocationRateLimitPerSecond})
	}
	return err
}

// delete deletes what the stack no longer has.
func (r receiver) delete(ctx context.Context, client *eventbridge.Client, after receiver) (err error) {
	gone := func(before, after *string) bool { return before != nil && aws.ToString(before) != aws.ToString(after) }
	if gone(r.destination.Name, after.destination.Name) {
		_, err = client.DeleteApiDestination(ctx, &eventbridge.DeleteApiDestinationInput{Name: r.destination.Name})
	}
	if err == nil && gone(r.connection.Name, after.connection.Name) {
		_, err = client.DeleteConnection(ctx, &eventbridge.DeleteConnectionInput{Name: r.connection.Name})
	}
	return err
}
