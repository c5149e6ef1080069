package awsadmin

import (
	"context"
	"path"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// Rule reads a rule of the default bus; nil if there is none.
func (a *Account) Rule(ctx context.Context, name string) (*Rule, error) {
	out, err := a.events.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: &name, EventBusName: aws.String(defaultBus)})
	if err != nil {
		return nil, unlessNone(translate("looking for rule "+name, "rule "+name, err))
	}
	r, err := a.rule(ctx, name)
	if err != nil {
		return nil, err
	}
	r.ARN, r.Enabled, r.Pattern = aws.ToString(out.Arn), out.State != "DISABLED", aws.ToString(out.EventPattern)
	return &r, nil
}

// Function reads a function; nil if there is none.
func (a *Account) Function(ctx context.Context, name string) (*Function, error) {
	out, err := a.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
	if err != nil {
		return nil, unlessNone(translate("looking for function "+name, "function "+name, err))
	}
	c := out.Configuration
	s := &Function{Name: name, ARN: aws.ToString(c.FunctionArn), Role: path.Base(aws.ToString(c.Role)),
		State: string(c.State), Reason: aws.ToString(c.StateReason),
		Update: string(c.LastUpdateStatus), Problem: aws.ToString(c.LastUpdateStatusReason)}
	if c.Environment != nil {
		s.Environment = c.Environment.Variables
	}
	if len(c.Architectures) > 0 {
		s.Architecture = string(c.Architectures[0])
	}
	if out.Concurrency != nil && out.Concurrency.ReservedConcurrentExecutions != nil {
		s.Reserved = aws.Int(int(*out.Concurrency.ReservedConcurrentExecutions))
	}
	return s, nil
}

// FunctionPolicy is who may invoke a function, as JSON; empty if nobody has been allowed to.
func (a *Account) FunctionPolicy(ctx context.Context, name string) (string, error) {
	out, err := a.lambda.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &name})
	if err != nil {
		return "", unlessNone(translate("reading who may invoke function "+name, "function "+name, err))
	}
	return aws.ToString(out.Policy), nil
}

// Destinations are where a function's outcomes and failures go, as ARNs; empty if nowhere.
func (a *Account) Destinations(ctx context.Context, name string) (success, failure string, err error) {
	out, err := a.lambda.GetFunctionEventInvokeConfig(ctx, &lambda.GetFunctionEventInvokeConfigInput{FunctionName: &name})
	if err != nil {
		return "", "", unlessNone(translate("reading where the outcomes of function "+name+" go", "function "+name, err))
	}
	if d := out.DestinationConfig; d != nil {
		if d.OnSuccess != nil {
			success = aws.ToString(d.OnSuccess.Destination)
		}
		if d.OnFailure != nil {
			failure = aws.ToString(d.OnFailure.Destination)
		}
	}
	return success, failure, nil
}

// Concurrency is how many invocations the account allows at once to functions for which none are reserved.
func (a *Account) Concurrency(ctx context.Context) (int, error) {
	out, err := a.lambda.GetAccountSettings(ctx, &lambda.GetAccountSettingsInput{})
	if err != nil {
		return 0, translate("reading how many invocations the account allows at once", "", err)
	}
	if out.AccountLimit == nil {
		return 0, nil
	}
	return int(aws.ToInt32(out.AccountLimit.UnreservedConcurrentExecutions)), nil
}

// Invoke invokes a function and waits for it. said is what it has returned, or where it has failed its error.
func (a *Account) Invoke(ctx context.Context, name string, event []byte) (said []byte, failed bool, err error) {
	out, err := a.lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: event, InvocationType: types.InvocationTypeRequestResponse})
	if err != nil {
		return nil, false, translate("invoking function "+name, "function "+name, err)
	}
	return out.Payload, aws.ToString(out.FunctionError) != "", nil
}
