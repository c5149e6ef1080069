package awsadmin

import (
	"context"
	"path"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// Function is a function as Lambda runs it. Of those that are listed, only name, ARN and role are known.
type Function struct {
	Name, ARN       string
	Role            string // by name
	State, Reason   string // Active, or why not
	Update, Problem string // Successful, or why the last change did not take effect
	Architecture    string
	Environment     map[string]string
	Reserved        *int // concurrency
}

// Rule is a rule of the default bus as EventBridge follows it. Of those of a function, only name and targets are known.
type Rule struct {
	Name, ARN string
	Enabled   bool
	Pattern   string // JSON; empty if it has a schedule
	Targets   []Target
}

// Target is where a rule sends events.
type Target struct{ ID, ARN string }

// defaultBus is where AWS' own events are.
const defaultBus = "default"

// Functions are all functions of the region.
func (a *Account) Functions(ctx context.Context) (all []Function, err error) {
	all, err = every(ctx, lambda.NewListFunctionsPaginator(a.lambda, &lambda.ListFunctionsInput{}),
		func(p *lambda.ListFunctionsOutput) []types.FunctionConfiguration { return p.Functions },
		func(c types.FunctionConfiguration) Function {
			return Function{Name: aws.ToString(c.FunctionName), ARN: aws.ToString(c.FunctionArn),
				Role: path.Base(aws.ToString(c.Role))}
		})
	return all, translate("listing the region's functions", "", err)
}

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
	r := Rule{Name: name}
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
