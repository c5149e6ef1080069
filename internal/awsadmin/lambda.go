package awsadmin

import (
	"cmp"
	"context"
	"path"
	"regexp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	eventtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

// Function is a Lambda function. Functions fills in only name, ARN and role.
type Function struct {
	Name, ARN       string
	Role            string // name
	State, Reason   string // Active, or why not
	Update, Problem string // status of the last update: Successful, or what went wrong
	Architecture    string
	CodeSHA256      string // in base64
	Environment     map[string]string
	Reserved        *int // concurrency
}

// Rule is a rule of the default bus.
type Rule struct {
	Name, ARN string
	Enabled   bool
	Pattern   string // JSON; empty for a schedule
	Targets   []Target
}

// Target is where a rule sends events.
type Target struct{ ID, ARN string }

// defaultBus receives the events of AWS services.
const defaultBus = "default"

// Functions lists the functions of the region.
func (a *Account) Functions(ctx context.Context) ([]Function, error) {
	return every(ctx, "", lambda.NewListFunctionsPaginator(a.lambda, &lambda.ListFunctionsInput{}),
		func(p *lambda.ListFunctionsOutput) []types.FunctionConfiguration { return p.Functions },
		func(c types.FunctionConfiguration) Function {
			return Function{Name: aws.ToString(c.FunctionName), ARN: aws.ToString(c.FunctionArn),
				Role: path.Base(aws.ToString(c.Role))}
		})
}

// Function reads a function; nil if there is none.
func (a *Account) Function(ctx context.Context, name string) (*Function, error) {
	out, err := a.lambda.GetFunction(ctx, &lambda.GetFunctionInput{FunctionName: &name})
	if err != nil {
		return nil, unlessNone(translate("function "+name, err))
	}
	c := out.Configuration
	f := &Function{Name: name, ARN: aws.ToString(c.FunctionArn), Role: path.Base(aws.ToString(c.Role)),
		State: string(c.State), Reason: aws.ToString(c.StateReason),
		Update: string(c.LastUpdateStatus), Problem: aws.ToString(c.LastUpdateStatusReason),
		CodeSHA256: aws.ToString(c.CodeSha256), Environment: cmp.Or(c.Environment, &types.EnvironmentResponse{}).Variables}
	if len(c.Architectures) > 0 {
		f.Architecture = string(c.Architectures[0])
	}
	if c := out.Concurrency; c != nil && c.ReservedConcurrentExecutions != nil {
		f.Reserved = aws.Int(int(*c.ReservedConcurrentExecutions))
	}
	return f, nil
}

// FunctionPolicy returns a function's resource-based policy, as JSON; empty if there is none.
func (a *Account) FunctionPolicy(ctx context.Context, name string) (string, error) {
	out, err := a.lambda.GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: &name})
	if err != nil {
		return "", unlessNone(translate("function "+name, err))
	}
	return aws.ToString(out.Policy), nil
}

// FailureDestination returns the ARN to which a function's failed events are sent; empty for none.
func (a *Account) FailureDestination(ctx context.Context, name string) (string, error) {
	in := &lambda.GetFunctionEventInvokeConfigInput{FunctionName: &name}
	out, err := a.lambda.GetFunctionEventInvokeConfig(ctx, in)
	if err != nil {
		return "", unlessNone(translate("function "+name, err))
	}
	to := cmp.Or(out.DestinationConfig, &types.DestinationConfig{})
	return aws.ToString(cmp.Or(to.OnFailure, &types.OnFailure{}).Destination), nil
}

// Concurrency returns the account's unreserved concurrency.
func (a *Account) Concurrency(ctx context.Context) (int, error) {
	out, err := a.lambda.GetAccountSettings(ctx, &lambda.GetAccountSettingsInput{})
	if err != nil {
		return 0, translate("", err)
	}
	return int(aws.ToInt32(cmp.Or(out.AccountLimit, &types.AccountLimit{}).UnreservedConcurrentExecutions)), nil
}

// Invoke invokes a function synchronously. payload is its result, or its error if it failed.
func (a *Account) Invoke(ctx context.Context, name string, event []byte) (payload []byte, failed bool, err error) {
	out, err := a.lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: &name, Payload: event,
		InvocationType: types.InvocationTypeRequestResponse})
	if err != nil {
		return nil, false, translate("function "+name, err)
	}
	return out.Payload, aws.ToString(out.FunctionError) != "", nil
}

// ruleARN matches the ARN of a rule of the default bus in a function's policy, without wildcards.
var ruleARN = regexp.MustCompile(`"arn:[^"*?]+:rule/([.\-_A-Za-z0-9]+)"`)

// RulesFor returns the rules that send events to a function, and those that its policy lets invoke it.
func (a *Account) RulesFor(ctx context.Context, f Function) (all []Rule, err error) {
	policy, err := a.FunctionPolicy(ctx, f.Name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, match := range ruleARN.FindAllStringSubmatch(policy, -1) {
		names = append(names, match[1])
	}
	return a.RulesTo(ctx, f.ARN, names...)
}

// RulesTo returns the rules that send events to a target, and those of certain names.
func (a *Account) RulesTo(ctx context.Context, arn string, names ...string) (all []Rule, err error) {
	in := &eventbridge.ListRuleNamesByTargetInput{TargetArn: &arn, EventBusName: aws.String(defaultBus)}
	for more := true; more; more = in.NextToken != nil {
		page, err := a.events.ListRuleNamesByTarget(ctx, in)
		if err != nil {
			return nil, translate(arn, err)
		}
		names, in.NextToken = append(names, page.RuleNames...), page.NextToken
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		rule, err := a.Rule(ctx, name)
		if err != nil {
			return nil, err
		}
		if rule != nil {
			all = append(all, *rule)
		}
	}
	return all, nil
}

// Rule reads a rule; nil if there is none.
func (a *Account) Rule(ctx context.Context, name string) (*Rule, error) {
	in := &eventbridge.DescribeRuleInput{Name: &name, EventBusName: aws.String(defaultBus)}
	out, err := a.events.DescribeRule(ctx, in)
	if err != nil {
		return nil, unlessNone(translate("rule "+name, err))
	}
	targets, err := a.targets(ctx, name)
	return &Rule{Name: name, ARN: aws.ToString(out.Arn), Enabled: out.State != "DISABLED",
		Pattern: aws.ToString(out.EventPattern), Targets: targets}, err
}

// RuleTags reads the tags of a rule.
func (a *Account) RuleTags(ctx context.Context, r Rule) (map[string]string, error) {
	out, err := a.events.ListTagsForResource(ctx, &eventbridge.ListTagsForResourceInput{ResourceARN: &r.ARN})
	if err != nil {
		return nil, unlessNone(translate("rule "+r.Name, err))
	}
	return mapOf(out.Tags, func(t eventtypes.Tag) (key, value *string) { return t.Key, t.Value }), nil
}

func (a *Account) targets(ctx context.Context, rule string) (all []Target, err error) {
	in := &eventbridge.ListTargetsByRuleInput{Rule: &rule, EventBusName: aws.String(defaultBus)}
	for {
		page, err := a.events.ListTargetsByRule(ctx, in)
		if err != nil {
			return nil, translate("rule "+rule, err)
		}
		for _, t := range page.Targets {
			all = append(all, Target{aws.ToString(t.Id), aws.ToString(t.Arn)})
		}
		if in.NextToken = page.NextToken; in.NextToken == nil {
			return all, nil
		}
	}
}
