package template

import (
	"encoding/json"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/castai/kops-spot/internal/app"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/fakes/events/pattern"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

// acted returns the results that send an email: the function acted, or should have.
func acted() (results []string) {
	for _, r := range spot.Results {
		if r.Email {
			results = append(results, string(r.Result))
		}
	}
	return results
}

// results are all results of the function.
func results(t *testing.T) []string {
	t.Helper()
	var schema struct {
		Defs struct{ Result struct{ Enum []string } } `json:"$defs"`
	}
	b, err := os.ReadFile(filepath.Join(Root(), "docs", "outcome.schema.json"))
	if err == nil {
		err = json.Unmarshal(b, &schema)
	}
	if err != nil || len(schema.Defs.Result.Enum) == 0 {
		t.Fatalf("docs/outcome.schema.json has no results: %v", err)
	}
	return append(schema.Defs.Result.Enum, string(app.Ready), string(app.NotReady))
}

// record is Lambda's invocation record for an event with this result.
func record(t *testing.T, result string) []byte {
	t.Helper()
	response, err := json.Marshal(map[string]any{"version": 1, "result": result, "cluster": cluster})
	must(t, err)
	b, err := json.Marshal(fakelambda.Record{Version: "1.0", Timestamp: "2026-01-01T00:00:00.000Z",
		RequestPayload: json.RawMessage(`{"source":"aws.ec2","detail":{}}`), ResponsePayload: response})
	must(t, err)
	return b
}

// TestEmailFilter: emails are sent only for these results, by the rules of event patterns and by moto's SNS, which has
// its own filter.
func TestEmailFilter(t *testing.T) {
	s := stack(t, everything)
	people := s.Resources["OutcomesToPeople"].Properties
	if people["Protocol"] != "email" || people["Endpoint"] != "people@example.com" ||
		people["FilterPolicyScope"] != "MessageBody" {
		t.Errorf("the people's subscription is %v", people)
	}
	filter, err := json.Marshal(people["FilterPolicy"])
	must(t, err)
	p, err := pattern.Parse(filter)
	must(t, err)
	all := results(t)
	var emailed []string
	for _, result := range all {
		matches, err := p.Matches(record(t, result))
		must(t, err)
		if matches {
			emailed = append(emailed, result)
		}
	}
	want := slices.Sorted(slices.Values(acted()))
	if slices.Sort(emailed); !slices.Equal(emailed, want) {
		t.Errorf("emails are sent for %q, want %q", emailed, want)
	}
	if got := throughMoto(t, string(filter), all); !slices.Equal(got, want) {
		t.Errorf("SNS delivers %q, want %q", got, want)
	}
}

// throughMoto publishes a record of each result to a topic and returns those that a queue with the filter receives.
func throughMoto(t *testing.T, filter string, all []string) []string {
	t.Helper()
	const region = "sa-east-1"
	queues := sqs.NewFromConfig(settingsFor(region))
	name := "people"
	q, err := queues.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	must(t, err)
	sns := func(action string, form url.Values) {
		must(t, query(t.Context(), "sns", region, action, form, nil))
	}
	topic := strings.ReplaceAll(arn("sns", name), Region, region)
	sns("CreateTopic", url.Values{"Name": {name}})
	sns("Subscribe", url.Values{"TopicArn": {topic}, "Protocol": {"sqs"},
		"Endpoint":               {strings.ReplaceAll(arn("sqs", name), Region, region)},
		"Attributes.entry.1.key": {"RawMessageDelivery"}, "Attributes.entry.1.value": {"true"},
		"Attributes.entry.2.key": {"FilterPolicyScope"}, "Attributes.entry.2.value": {"MessageBody"},
		"Attributes.entry.3.key": {"FilterPolicy"}, "Attributes.entry.3.value": {filter}})
	for _, result := range all {
		sns("Publish", url.Values{"TopicArn": {topic}, "Message": {string(record(t, result))}})
	}
	got := map[string]bool{}
	for {
		out, err := queues.ReceiveMessage(t.Context(),
			&sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, MaxNumberOfMessages: 10})
		must(t, err)
		if len(out.Messages) == 0 {
			return slices.Sorted(maps.Keys(got))
		}
		for _, m := range out.Messages {
			var r struct{ ResponsePayload struct{ Result string } }
			must(t, json.Unmarshal([]byte(*m.Body), &r))
			got[r.ResponsePayload.Result] = true
		}
	}
}

// TestQueueGetsAllOutcomes: also through the topic, and unchanged.
func TestQueueGetsAllOutcomes(t *testing.T) {
	queue := stack(t, everything).Resources["OutcomesToQueue"].Properties
	if queue["Protocol"] != "sqs" || queue["RawMessageDelivery"] != true || queue["FilterPolicy"] != nil ||
		queue["TopicArn"] != arn("sns", "cast-kops-prod-example-com-7405b0253a21-outcomes") ||
		queue["Endpoint"] != arn("sqs", "cast_kops-prod-example-com-7405b0253a21-outcomes") {
		t.Errorf("the queue's subscription is %v", queue)
	}
	for id, r := range stack(t, byDefault).Resources {
		if strings.HasPrefix(r.Type, "AWS::SNS::") {
			t.Errorf("without email, there is %s", id)
		}
	}
}
