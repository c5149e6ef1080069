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
var unknownToMoto = []string{"AWS::Lambda::EventInvokeConfig", "AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy",
	"AWS::CloudWatch::Alarm", "AWS::Events::Connection", "AWS::Events::ApiDestination"}

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

// TestEventInvokeConfig: the retries, the maximum event age and the destination.
func TestEventInvokeConfig(t *testing.T) {
	got := stack(t, byDefault).Resources["AsynchronousInvocation"].Properties
	if want := map[string]any{"FunctionName": "cast-kops-prod-example-com-7405b0253a21", "Qualifier": "$LATEST",
		"MaximumRetryAttempts": "2", "MaximumEventAgeInSeconds": "3600", "DestinationConfig": map[string]any{
			"OnFailure": map[string]any{"Destination": arn("sqs",
				"cast_kops-prod-example-com-7405b0253a21-failures")}}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("it is %v, want %v", got, want)
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

// TestResourcePolicies: only the cluster's rules may send undelivered events and notifications, and only its alarms may
// notify.
func TestResourcePolicies(t *testing.T) {
	type sender struct{ service, source string }
	rules := sender{"events", arn("events", "rule/cast-kops-prod-example-com-7405b0253a21.*")}
	queue, topic := arn("sqs", "cast_kops-prod-example-com-7405b0253a21-undelivered"), arn("sns", "cast-kops-prod-example-com-7405b0253a21-notifications")
	for id, want := range map[string]struct {
		action, resource, on string
		senders              []sender
	}{
		"UndeliveredQueuePolicy": {"sqs:SendMessage", queue, "Queues", []sender{rules}},
		"NotificationTopicPolicy": {"sns:Publish", topic, "Topics", []sender{rules,
			{"cloudwatch", arn("cloudwatch", "alarm:cast-kops-prod-example-com-7405b0253a21.*")}}},
	} {
		policy := stack(t, byDefault).Resources[id].Properties
		on := want.resource
		if want.on == "Queues" { // queues are named by URL
			on = "https://sqs." + Region + ".amazonaws.com/" + Account + "/" + on[strings.LastIndex(on, ":")+1:]
		}
		if !reflect.DeepEqual(policy[want.on], []any{on}) {
			t.Errorf("%s is for %v, want %s", id, policy[want.on], on)
		}
		var statements []any
		for _, s := range want.senders {
			statements = append(statements, map[string]any{"Effect": "Allow", "Action": want.action, "Resource": want.resource,
				"Principal": map[string]any{"Service": s.service + ".amazonaws.com"},
				"Condition": map[string]any{"ArnLike": map[string]any{"aws:SourceArn": s.source}}})
		}
		got := policy["PolicyDocument"].(map[string]any)["Statement"].([]any)
		for _, s := range got {
			delete(s.(map[string]any), "Sid")
		}
		if !reflect.DeepEqual(got, statements) {
			t.Errorf("%s says %v, want %v", id, got, statements)
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
