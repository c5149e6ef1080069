package iamcloud

import (
	"context"
	"path"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// Function is a Lambda function, and who invokes it.
type Function struct {
	Name, ARN string
	Role      string // the name of its role
}

// Rule is an EventBridge rule.
type Rule struct {
	Name, Bus string
	Targets   []Target
}

// Target is where a rule sends events.
type Target struct{ ID, ARN string }

// Function reads a function; nil if there is none.
func (a *Account) Function(ctx context.Context, name string) (*Function, error) {
	is, err := a.FunctionState(ctx, name)
	if err != nil || is == nil {
		return nil, err
	}
	return &Function{Name: name, ARN: is.ARN, Role: path.Base(is.Role)}, nil
}

// Functions are all functions of the region.
func (a *Account) Functions(ctx context.Context) (all []Function, err error) {
	all, err = every(ctx, lambda.NewListFunctionsPaginator(a.lambda, &lambda.ListFunctionsInput{}),
		func(p *lambda.ListFunctionsOutput) []types.FunctionConfiguration { return p.Functions },
		func(c types.FunctionConfiguration) Function {
			return Function{aws.ToString(c.FunctionName), aws.ToString(c.FunctionArn), path.Base(aws.ToString(c.Role))}
		})
	return all, translate("listing the region's functions", "", err)
}

// defaultBus is where AWS' own events are.
const defaultBus = "default"

// RulesFor are the rules that send events to a function.
func (a *Account) RulesFor(ctx context.Context, functionARN string) (all []Rule, err error) {
	in := &eventbridge.ListRuleNamesByTargetInput{TargetArn: &functionARN, EventBusName: aws.String(defaultBus)}
	for {
		page, err := a.events.ListRuleNamesByTarget(ctx, in)
		if err != nil {
			return nil, translate("looking for the rules of "+functionARN, "", err)
		}
		for _, name := range page.RuleNames {
			rule, err := a.rule(ctx, name)
			if err != nil {
				return nil, err
			}
			all = append(all, rule)
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}

func (a *Account) rule(ctx context.Context, name string) (Rule, error) {
	r := Rule{Name: name, Bus: defaultBus}
	in := &eventbridge.ListTargetsByRuleInput{Rule: &name, EventBusName: aws.String(defaultBus)}
	for {
		page, err := a.events.ListTargetsByRule(ctx, in)
		if err != nil {
			return r, translate("reading the targets of rule "+name, "rule "+name, err)
		}
		for _, t := range page.Targets {
			r.Targets = append(r.Targets, Target{aws.ToString(t.Id), aws.ToString(t.Arn)})
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return r, nil
		}
	}
}
