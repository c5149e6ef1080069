package template

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	iamservice "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/castai/kops-spot/iam"
)

// TestDeployedStack checks the resources that moto created. what_moto_drops_test.go checks those that moto ignores.
func TestDeployedStack(t *testing.T) {
	for set, region := range map[string]string{byDefault: Region, everything: "us-east-1", nothing: "us-west-2"} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			if set == nothing {
				makeRole(t, "kops-spot")
			}
			deploy(t, set, region)
			d := deployed{t, region, stack(t, set)}
			d.function()
			d.rules()
			d.roles()
			d.queues()
			d.log()
			d.topics()
			d.dashboard()
		})
	}
}

// deployed compares the resources in moto with the template resolved for the same region.
type deployed struct {
	*testing.T
	region string
	want   *Stack
}

// of returns the resources of a type, in the order of their IDs.
func (d deployed) of(kind string) (all []map[string]any) {
	for _, id := range slices.Sorted(maps.Keys(d.want.Resources)) {
		if r := d.want.Resources[id]; r.Type == kind {
			all = append(all, r.Properties)
		}
	}
	return all
}

// names returns the names of the resources of a type.
func (d deployed) names(kind string) []string {
	names := []string{}
	for _, properties := range d.of(kind) {
		names = append(names, properties[nameProperties[kind].property].(string))
	}
	slices.Sort(names)
	return names
}

func (d deployed) is(what string, got, want any) {
	d.Helper()
	if !reflect.DeepEqual(got, want) {
		d.Errorf("%s is %v, want %v", what, got, want)
	}
}

func (d deployed) no(err error) {
	d.Helper()
	must(d, err)
}

func (d deployed) functionARN() string {
	return "arn:aws:lambda:" + d.region + ":" + Account + ":function:" + iam.FunctionName(cluster)
}

func (d deployed) function() {
	client := lambda.NewFromConfig(settingsFor(d.region))
	name := aws.String(iam.FunctionName(cluster))
	f, err := client.GetFunction(d.Context(), &lambda.GetFunctionInput{FunctionName: name})
	d.no(err)
	want, c := d.of("AWS::Lambda::Function")[0], f.Configuration
	d.is("the runtime", string(c.Runtime), want["Runtime"])
	d.is("the handler", aws.ToString(c.Handler), "bootstrap")
	d.is("the role", aws.ToString(c.Role), want["Role"])
	d.is("the timeout", int(aws.ToInt32(c.Timeout)), number(d, want["Timeout"]))
	d.is("the memory", int(aws.ToInt32(c.MemorySize)), number(d, want["MemorySize"]))
	variables := map[string]any{}
	for k, v := range c.Environment.Variables {
		variables[k] = v
	}
	d.is("the environment", variables, want["Environment"].(map[string]any)["Variables"])
	if vpc, ok := want["VpcConfig"].(map[string]any); ok {
		d.is("the subnets", texts(c.VpcConfig.SubnetIds), vpc["SubnetIds"])
		d.is("the security groups", texts(c.VpcConfig.SecurityGroupIds), vpc["SecurityGroupIds"])
	}
	reserved, err := client.GetFunctionConcurrency(d.Context(), &lambda.GetFunctionConcurrencyInput{FunctionName: name})
	d.no(err)
	if want["ReservedConcurrentExecutions"] == nil {
		d.is("the reserved concurrency", reserved.ReservedConcurrentExecutions, (*int32)(nil))
	} else {
		d.is("the reserved concurrency", int(aws.ToInt32(reserved.ReservedConcurrentExecutions)),
			number(d, want["ReservedConcurrentExecutions"]))
	}
	d.permissions(client, name)
}

// permissions: each rule may invoke the function, and nobody else may.
func (d deployed) permissions(client *lambda.Client, name *string) {
	out, err := client.GetPolicy(d.Context(), &lambda.GetPolicyInput{FunctionName: name})
	d.no(err)
	var policy struct {
		Statement []struct {
			Effect, Action string
			Principal      struct{ Service string }
			Condition      map[string]map[string]string
		}
	}
	d.no(json.Unmarshal([]byte(aws.ToString(out.Policy)), &policy))
	var sources []string
	for _, s := range policy.Statement {
		d.is("a permission", []string{s.Effect, s.Action, s.Principal.Service},
			[]string{"Allow", "lambda:InvokeFunction", "events.amazonaws.com"})
		for _, source := range s.Condition["ArnLike"] {
			_, rule, _ := strings.Cut(source, ":rule/")
			sources = append(sources, rule)
		}
	}
	slices.Sort(sources)
	d.is("who may invoke the function", sources, slices.DeleteFunc(d.names("AWS::Events::Rule"), isForPeople))
}

func (d deployed) rules() {
	client := eventbridge.NewFromConfig(settingsFor(d.region))
	list, err := client.ListRules(d.Context(), &eventbridge.ListRulesInput{})
	d.no(err)
	d.is("the number of rules", len(list.Rules), len(d.of("AWS::Events::Rule")))
	for _, want := range d.of("AWS::Events::Rule") {
		name := want["Name"].(string)
		r, err := client.DescribeRule(d.Context(), &eventbridge.DescribeRuleInput{Name: &name})
		d.no(err)
		state := cmp.Or(want["State"], any("ENABLED"))
		d.is("the state of "+name, string(r.State), state)
		if want["ScheduleExpression"] != nil {
			d.is("the schedule of "+name, aws.ToString(r.ScheduleExpression), want["ScheduleExpression"])
		} else {
			var pattern any
			d.no(json.Unmarshal([]byte(aws.ToString(r.EventPattern)), &pattern))
			d.is("the pattern of "+name, pattern, want["EventPattern"])
		}
		targets, err := client.ListTargetsByRule(d.Context(), &eventbridge.ListTargetsByRuleInput{Rule: &name})
		d.no(err)
		d.is("the number of targets of "+name, len(targets.Targets), len(want["Targets"].([]any)))
		target := targets.Targets[0] // people_test.go has the second one
		if isForPeople(name) {
			d.is("the target of "+name, aws.ToString(target.Arn), "arn:aws:sns:"+d.region+":"+Account+":"+iam.FunctionName(cluster)+"-notifications")
		} else {
			d.is("the target of "+name, aws.ToString(target.Arn), d.functionARN())
		}
		if target.Input != nil || target.InputPath != nil || (target.InputTransformer != nil) != isForPeople(name) {
			d.Errorf("%s does not pass the whole event to the function, or does so to people", name)
		}
		d.is("the dead-letter queue of "+name, aws.ToString(target.DeadLetterConfig.Arn),
			"arn:aws:sqs:"+d.region+":"+Account+":cast_kops-"+iam.Name(cluster)+"-undelivered")
		d.is("how long "+name+" tries", int(aws.ToInt32(target.RetryPolicy.MaximumEventAgeInSeconds)),
			ruleAges[name[strings.LastIndex(name, ".")+1:]])
	}
}

// ruleAges are the maximum event ages of the rules in seconds. docs/stack.md has the reasons.
var ruleAges = map[string]int{"spot-warning": 120, "rebalance": 900, "lifecycle": 3600, "health": 86400,
	"state-change": 3600, "launch-failed": 3600,
	"rehearsal": 120, "self-check": 120, "started": 3600, "finished": 3600}

// isForPeople reports whether a rule sends notifications.
func isForPeople(rule string) bool {
	return strings.HasSuffix(rule, ".started") || strings.HasSuffix(rule, ".finished")
}

// roles checks only the names: role_test.go compares the permissions, because moto does not return the documents as
// JSON.
func (d deployed) roles() {
	client := iamservice.NewFromConfig(settingsFor(d.region))
	for _, want := range d.of("AWS::IAM::Role") {
		name := want["RoleName"].(string)
		out, err := client.ListRolePolicies(d.Context(), &iamservice.ListRolePoliciesInput{RoleName: &name})
		d.no(err)
		var names []string
		for _, policy := range want["Policies"].([]any) {
			names = append(names, policy.(map[string]any)["PolicyName"].(string))
		}
		d.is("the policies of "+name, out.PolicyNames, names)
	}
}

func (d deployed) queues() {
	client := sqs.NewFromConfig(settingsFor(d.region))
	list, err := client.ListQueues(d.Context(), &sqs.ListQueuesInput{})
	d.no(err)
	names := []string{}
	for _, at := range list.QueueUrls {
		name := at[strings.LastIndex(at, "/")+1:]
		names = append(names, name)
		out, err := client.GetQueueAttributes(d.Context(),
			&sqs.GetQueueAttributesInput{QueueUrl: &at,
				AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll}})
		d.no(err)
		d.is("whether "+name+" is encrypted", out.Attributes["SqsManagedSseEnabled"], "true")
		d.is("how long "+name+" keeps", out.Attributes["MessageRetentionPeriod"], "1209600")
		tags, err := client.ListQueueTags(d.Context(), &sqs.ListQueueTagsInput{QueueUrl: &at})
		d.no(err)
		d.is("the tags of "+name, tags.Tags, iam.Tags(cluster))
	}
	slices.Sort(names)
	d.is("the queues", names, d.names("AWS::SQS::Queue"))
}

func (d deployed) log() {
	out, err := cloudwatchlogs.NewFromConfig(settingsFor(d.region)).DescribeLogGroups(d.Context(),
		&cloudwatchlogs.DescribeLogGroupsInput{})
	d.no(err)
	d.is("the number of log groups", len(out.LogGroups), 1)
	d.is("the log group", aws.ToString(out.LogGroups[0].LogGroupName), iam.LogGroup(cluster))
	d.is("how long the log is kept", int(aws.ToInt32(out.LogGroups[0].RetentionInDays)),
		number(d, d.of("AWS::Logs::LogGroup")[0]["RetentionInDays"]))
}

func (d deployed) topics() {
	var topics struct {
		ARNs []string `xml:"ListTopicsResult>Topics>member>TopicArn"`
	}
	d.no(query(d.Context(), "sns", d.region, "ListTopics", url.Values{}, &topics))
	names := []string{}
	for _, at := range topics.ARNs {
		names = append(names, at[strings.LastIndex(at, ":")+1:])
	}
	slices.Sort(names)
	d.is("the topics", names, d.names("AWS::SNS::Topic"))
}

func (d deployed) dashboard() {
	var dashboards struct {
		Names []string `xml:"ListDashboardsResult>DashboardEntries>member>DashboardName"`
	}
	d.no(query(d.Context(), "monitoring", d.region, "ListDashboards", url.Values{}, &dashboards))
	d.is("the dashboards", append([]string{}, dashboards.Names...), d.names("AWS::CloudWatch::Dashboard"))
}
