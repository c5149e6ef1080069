package template

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// unknownToMoto are the types of resources that moto leaves out of a stack without a word. They are looked at here.
var unknownToMoto = []string{"AWS::Lambda::EventInvokeConfig", "AWS::SQS::QueuePolicy", "AWS::SNS::Subscription", "AWS::CloudWatch::Alarm"}

// TestNoResourceIsOfAnUnknownKind: each is looked at in this file or in deployed_test.go.
func TestNoResourceIsOfAnUnknownKind(t *testing.T) {
	known := slices.Concat(unknownToMoto, slices.Collect(maps.Keys(nameProperties)), []string{"AWS::Lambda::Permission"})
	for id, r := range stack(t, everything).Resources {
		if !slices.Contains(known, r.Type) {
			t.Errorf("nobody looks at %s, a %s", id, r.Type)
		}
	}
}

func arn(service, name string) string {
	return strings.Join([]string{"arn", partition, service, Region, Account, name}, ":")
}

// TestHowEventsAreHandled: after how many tries and how much time Lambda gives an event up, and who gets its record.
func TestHowEventsAreHandled(t *testing.T) {
	for set, want := range map[string]struct {
		tries, age string
		onSuccess  string
	}{
		byDefault:  {"1", "3600", arn("sqs", "cast_kops-prod-example-com-7405b025-outcomes")},
		everything: {"1", "3600", arn("sns", "cast-kops-prod-example-com-7405b025-outcomes")},
		nothing:    {"0", "120", arn("sqs", "cast_kops-prod-example-com-7405b025-outcomes")},
	} {
		got := stack(t, set).Resources["AsynchronousInvocation"].Properties
		if want := map[string]any{"FunctionName": "cast-kops-prod-example-com-7405b025", "Qualifier": "$LATEST", "MaximumRetryAttempts": want.tries,
			"MaximumEventAgeInSeconds": want.age, "DestinationConfig": map[string]any{
				"OnSuccess": map[string]any{"Destination": want.onSuccess},
				"OnFailure": map[string]any{"Destination": arn("sqs", "cast_kops-prod-example-com-7405b025-failures")}}}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: it is %v, want %v", set, got, want)
		}
	}
}

// TestTheFunctionsPropertiesThatMotoForgets are its processor and where its log goes.
func TestTheFunctionsPropertiesThatMotoForgets(t *testing.T) {
	for set, processor := range map[string]string{byDefault: "arm64", everything: "arm64", nothing: "x86_64"} {
		f := stack(t, set).Resources["SpotHandlerFunction"].Properties
		if got := f["Architectures"]; !reflect.DeepEqual(got, []any{processor}) {
			t.Errorf("%s: it runs on %v, want %s", set, got, processor)
		}
		if got := f["LoggingConfig"]; !reflect.DeepEqual(got, map[string]any{"LogGroup": "/aws/lambda/cast-kops-prod-example-com-7405b025"}) {
			t.Errorf("%s: it logs to %v", set, got)
		}
	}
}

// TestWhoMayWriteToTheQueues: the rules to that of the undelivered, the topic to that of the outcomes, nobody else.
func TestWhoMayWriteToTheQueues(t *testing.T) {
	s := stack(t, everything)
	for id, want := range map[string]struct{ queue, service, operator, source string }{
		"UndeliveredQueuePolicy": {"undelivered", "events", "ArnLike", arn("events", "rule/cast-kops-prod-example-com-7405b025.*")},
		"OutcomeQueuePolicy":     {"outcomes", "sns", "ArnEquals", arn("sns", "cast-kops-prod-example-com-7405b025-outcomes")},
	} {
		policy := s.Resources[id].Properties
		queue := "cast_kops-prod-example-com-7405b025-" + want.queue
		if got := policy["Queues"]; !reflect.DeepEqual(got, []any{"https://sqs." + Region + ".amazonaws.com/" + Account + "/" + queue}) {
			t.Errorf("%s is of %v", id, got)
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
		if queues := r.Properties["Queues"]; r.Type == "AWS::SQS::QueuePolicy" && !strings.HasSuffix(queues.([]any)[0].(string), "-undelivered") {
			t.Errorf("without people to be told somebody may write to %v", queues)
		}
	}
}

// TestEveryRulesEventsMayBeKept where they could not be delivered: the queue's policy lets each rule write, and no other
// cluster's.
func TestEveryRulesEventsMayBeKept(t *testing.T) {
	for id, r := range stack(t, byDefault).Resources {
		if r.Type != "AWS::Events::Rule" {
			continue
		}
		if name := r.Properties["Name"].(string); !strings.HasPrefix(name, "cast-kops-prod-example-com-7405b025.") {
			t.Errorf("the queue of the undelivered does not take from %s, called %s", id, name)
		}
	}
}
