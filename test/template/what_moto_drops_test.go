package template

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// unknownToMoto are the resource types that moto silently ignores. The tests in this file cover them.
var unknownToMoto = []string{"AWS::Lambda::EventInvokeConfig", "AWS::SQS::QueuePolicy", "AWS::SNS::Subscription",
	"AWS::CloudWatch::Alarm"}

// TestEveryResourceTypeIsCovered by this file or deployed_test.go.
func TestEveryResourceTypeIsCovered(t *testing.T) {
	known := slices.Concat(unknownToMoto, slices.Collect(maps.Keys(nameProperties)),
		[]string{"AWS::Lambda::Permission"})
	for id, r := range stack(t, everything).Resources {
		if !slices.Contains(known, r.Type) {
			t.Errorf("no test covers %s, a %s", id, r.Type)
		}
	}
}

func arn(service, name string) string {
	return strings.Join([]string{"arn", partition, service, Region, Account, name}, ":")
}

// TestEventInvokeConfig: the retries, the maximum event age and the destinations.
func TestEventInvokeConfig(t *testing.T) {
	for set, want := range map[string]struct {
		tries, age string
		onSuccess  string
	}{
		byDefault:  {"2", "3600", arn("sqs", "cast_kops-prod-example-com-7405b0253a21-outcomes")},
		everything: {"2", "3600", arn("sns", "cast-kops-prod-example-com-7405b0253a21-outcomes")},
	} {
		got := stack(t, set).Resources["AsynchronousInvocation"].Properties
		if want := map[string]any{"FunctionName": "cast-kops-prod-example-com-7405b0253a21", "Qualifier": "$LATEST",
			"MaximumRetryAttempts":     want.tries,
			"MaximumEventAgeInSeconds": want.age, "DestinationConfig": map[string]any{
				"OnSuccess": map[string]any{"Destination": want.onSuccess},
				"OnFailure": map[string]any{"Destination": arn("sqs",
					"cast_kops-prod-example-com-7405b0253a21-failures")}}}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: it is %v, want %v", set, got, want)
		}
	}
}

// TestFunctionPropertiesIgnoredByMoto: the architecture and the log group.
func TestFunctionPropertiesIgnoredByMoto(t *testing.T) {
	for set, processor := range map[string]string{byDefault: "arm64", everything: "arm64", nothing: "x86_64"} {
		f := stack(t, set).Resources["SpotHandlerFunction"].Properties
		if got := f["Architectures"]; !reflect.DeepEqual(got, []any{processor}) {
			t.Errorf("%s: it runs on %v, want %s", set, got, processor)
		}
		if got := f["LoggingConfig"]; !reflect.DeepEqual(got,
			map[string]any{"LogGroup": "/aws/lambda/cast-kops-prod-example-com-7405b0253a21"}) {
			t.Errorf("%s: it logs to %v", set, got)
		}
	}
}

// TestQueuePolicies: the rules may send undelivered events, the topic outcomes. Nobody else may send.
func TestQueuePolicies(t *testing.T) {
	s := stack(t, everything)
	for id, want := range map[string]struct{ queue, service, operator, source string }{
		"UndeliveredQueuePolicy": {"undelivered", "events", "ArnLike",
			arn("events", "rule/cast-kops-prod-example-com-7405b0253a21.*")},
		"OutcomeQueuePolicy": {"outcomes", "sns", "ArnEquals",
			arn("sns", "cast-kops-prod-example-com-7405b0253a21-outcomes")},
	} {
		policy := s.Resources[id].Properties
		queue := "cast_kops-prod-example-com-7405b0253a21-" + want.queue
		if got := policy["Queues"]; !reflect.DeepEqual(got,
			[]any{"https://sqs." + Region + ".amazonaws.com/" + Account + "/" + queue}) {
			t.Errorf("%s is for %v", id, got)
		}
		statements := policy["PolicyDocument"].(map[string]any)["Statement"].([]any)
		statement := statements[0].(map[string]any)
		delete(statement, "Sid")
		if want := map[string]any{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn("sqs", queue),
			"Principal": map[string]any{"Service": want.service + ".amazonaws.com"},
			"Condition": map[string]any{want.operator: map[string]any{"aws:SourceArn": want.source}}}; len(statements) != 1 || !reflect.DeepEqual(statement, want) {
			t.Errorf("%s says %v, want %v", id, statements, want)
		}
	}
	for _, r := range stack(t, byDefault).Resources { // without a topic
		if queues := r.Properties["Queues"]; r.Type == "AWS::SQS::QueuePolicy" &&
			!strings.HasSuffix(queues.([]any)[0].(string), "-undelivered") {
			t.Errorf("without email, a policy allows sending to %v", queues)
		}
	}
}

// TestEveryRuleMaySendUndeliveredEvents: the queue's policy allows each rule of the cluster, and no other cluster's.
func TestEveryRuleMaySendUndeliveredEvents(t *testing.T) {
	for id, r := range stack(t, byDefault).Resources {
		if r.Type != "AWS::Events::Rule" {
			continue
		}
		if name := r.Properties["Name"].(string); !strings.HasPrefix(name, "cast-kops-prod-example-com-7405b0253a21.") {
			t.Errorf("the queue of the undelivered does not accept messages from %s, named %s", id, name)
		}
	}
}
