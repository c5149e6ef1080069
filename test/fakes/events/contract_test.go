package events

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/castai/kops-spot/test/fakes/events/pattern"
	"github.com/castai/kops-spot/test/testenv"
)

// TestBridgeDeliversLikeMoto compares the bridge with an independent implementation, so that both do not share a
// mistake. Known deviations of moto are listed, and must exist.
func TestBridgeDeliversLikeMoto(t *testing.T) {
	const detail = `{"state": "terminated", "count": 5, "price": 300.0, "spot": true, "nothing": null, "in": {"risk": 8}}`
	patterns := []string{
		`{"source": ["test"]}`, `{"source": ["other"]}`, `{"source": ["other", "test"]}`, `{"source": ["Test"]}`,
		`{"source": ["test"], "detail-type": ["Test"], "detail": {"state": ["terminated"]}}`,
		`{"source": ["test"], "detail": {"state": ["running"]}}`,
		`{"source": ["other"], "detail": {"state": ["terminated"]}}`,
		`{"account": ["` + account + `"]}`, `{"account": ["210987654321"]}`,
		`{"detail": {"in": {"risk": [8]}}}`, `{"detail": {"in": {"risk": [9]}}}`, `{"detail": {"other": ["x"]}}`,
		`{"detail": {"count": [5]}}`, `{"detail": {"count": ["5"]}}`, `{"detail": {"spot": [true]}}`,
		`{"detail": {"spot": [false]}}`,
		`{"detail": {"nothing": [null]}}`, `{"detail": {"state": [null]}}`,
	}
	deviations := []string{
		`{"detail": {"price": [300]}}`, // another notation
		`{"detail": {"spot": [1]}}`,    // true is 1
	}
	moto, err := testenv.StartMoto(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer moto.Stop()
	to := at(Options{Moto: moto.URL, Region: "eu-west-1"})
	ctx, name, events, queues := t.Context(), aws.String("q"), eventbridge.NewFromConfig(to), sqs.NewFromConfig(to)
	q := must[*sqs.CreateQueueOutput](t)(queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: name})).QueueUrl
	target := types.Target{Id: name, Arn: aws.String("arn:aws:sqs:eu-west-1:" + account + ":q")}
	sent := entry{Source: "test", DetailType: "Test", Detail: detail}
	for i, text := range append(patterns, deviations...) { // the same rule, which keeps its target
		must[*eventbridge.PutRuleOutput](t)(events.PutRule(ctx,
			&eventbridge.PutRuleInput{Name: name, EventPattern: &text}))
		if i == 0 {
			must[*eventbridge.PutTargetsOutput](t)(events.PutTargets(ctx, &eventbridge.PutTargetsInput{
				Rule: name, Targets: []types.Target{target}}))
		}
		must[*eventbridge.PutEventsOutput](t)(events.PutEvents(ctx, &eventbridge.PutEventsInput{
			Entries: []types.PutEventsRequestEntry{{Source: &sent.Source, DetailType: &sent.DetailType,
				Detail: &sent.Detail}}}))
		out := must[*sqs.ReceiveMessageOutput](t)(queues.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q}))
		ours := encode(sent.event("eu-west-1"))
		why, err := unwanted(types.Rule{EventPattern: &text}, ours)
		if err != nil {
			t.Fatal(err)
		}
		if there, deviates := len(out.Messages) == 1, i >= len(patterns); (why == "") == there == deviates {
			t.Errorf("%s: the bridge: %q, moto delivered: %v, a known deviation: %v", text, why, there, deviates)
		}
		for _, m := range out.Messages {
			if theirs := *m.Body; !sameForm(t, theirs, string(ours)) {
				t.Errorf("the bridge delivers %s, moto %s", ours, theirs)
			}
			must[*sqs.DeleteMessageOutput](t)(queues.DeleteMessage(ctx,
				&sqs.DeleteMessageInput{QueueUrl: q, ReceiptHandle: m.ReceiptHandle}))
		}
	}
}

// sameForm compares events without their IDs, times and the account, which moto leaves out.
func sameForm(t *testing.T, a, b string) bool {
	both := []map[string]any{nil, nil}
	for i, text := range []string{a, b} {
		if err := json.Unmarshal([]byte(text), &both[i]); err != nil {
			t.Fatal(err)
		}
		both[i]["id"], both[i]["time"], both[i]["account"] = "", "", ""
	}
	return string(encode(both[0])) == string(encode(both[1]))
}

// TestInputTransformer has the examples of the EventBridge API Reference (InputTransformer). moto replaces variables
// without regard to JSON.
func TestInputTransformer(t *testing.T) {
	event := []byte(`{"detail": {"instance": "i-1", "status": "a b\n<c>", "in": {"n": [1, true]}}}`)
	paths := map[string]string{"instance": "$.detail.instance", "status": "$.detail.status", "in": "$.detail.in", "none": "$.detail.none.at"}
	for template, want := range map[string]string{
		`"<instance> is in state <status>"`:                                              "\"i-1 is in state a b\n<c>\"",
		`{"myInstance": <instance>,"myStatus": "<instance> is in state \"<instance>\""}`: `{"myInstance": "i-1","myStatus": "i-1 is in state \"i-1\""}`,
		`{"key": "<instance>/<none>"}`:                                                   `{"key": "i-1/"}`,
		`{"in": <in>, "s": <status>, "other": "<other>"}`:                                `{"in": {"n":[1,true]}, "s": "a b\n<c>", "other": "<other>"}`,
	} {
		got, err := inputOf(types.Target{InputTransformer: &types.InputTransformer{InputTemplate: &template, InputPathsMap: paths}}, event)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", template, got, err, want)
		}
	}
	if got, err := inputOf(types.Target{InputPath: aws.String("$.detail.in")}, event); err != nil || got != `{"n":[1,true]}` {
		t.Errorf("an input path: %s, %v", got, err)
	}
	for _, target := range []types.Target{{}, {InputPath: aws.String("$.detail.none")},
		{InputTransformer: &types.InputTransformer{InputTemplate: aws.String(`"<in>"`), InputPathsMap: paths}},
		{InputTransformer: &types.InputTransformer{InputTemplate: aws.String(`<none>`), InputPathsMap: paths}}} {
		if got, err := inputOf(target, event); err == nil {
			t.Errorf("%+v: got %s", target, got)
		}
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestUnsupportedPatterns are errors. For moto, most of these match anything.
func TestUnsupportedPatterns(t *testing.T) {
	for _, p := range []string{``, `{}`, `["source"]`, `{"source": "aws.ec2"}`, `{"source": []}`, `{"source": [["a"]]}`,
		`{"source": [{"prefix": "a"}]}`, `{"detail": {"a": [{"exists": false}]}}`, `{"source": ["a"]} {}`} {
		if _, err := pattern.Parse([]byte(p)); err == nil {
			t.Errorf("%s is accepted", p)
		}
	}
	p, err := pattern.Parse([]byte(`{"resources": ["a"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Matches([]byte(`{"resources": ["a"]}`)); err == nil {
		t.Error("a pattern can match in an array")
	}
}

// TestRuleNeedsPermission in the form that AddPermission creates. moto does not check it.
func TestRuleNeedsPermission(t *testing.T) {
	const rule = "arn:aws:events:eu-west-1:123456789012:rule/r"
	statement := func(s string) string { return `{"Statement": [` + s + `]}` }
	const ours = `{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Principal": {"Service": "events.amazonaws.com"},
		"Condition": {"ArnLike": {"AWS:SourceArn": "` + rule + `"}}}`
	for policy, want := range map[string]bool{
		statement(ours): true,
		statement(strings.Replace(ours, `rule/r"`, `rule/rr"`, 1)):         false,
		statement(strings.Replace(ours, "events.amazonaws", "sns.aws", 1)): false,
		statement(strings.Replace(ours, "InvokeF", "GetF", 1)):             false,
		statement(strings.Replace(ours, `}}}`, `}, "Bool": {}}}`, 1)):      false,
		"": false,
	} {
		if got := permits(policy, rule); got != want {
			t.Errorf("%s: %v", policy, got)
		}
	}
}
