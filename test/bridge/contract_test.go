package bridge

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/test/bridge/pattern"
)

// onMoto is a world without its bridge: its clients are at moto itself.
func onMoto(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, nil)
	moto := newAccount(Options{Moto: shared.moto})
	w.events, w.lambda, w.sqs = moto.events(w.region), moto.lambda(w.region), sqs.NewFromConfig(moto.in(w.region))
	return w
}

// delivered puts one event and returns what moto itself wrote to the queue.
func (w *world) delivered(queue, detail string) []string {
	w.Helper()
	w.put(detail)
	var bodies []string
	for _, m := range w.messages(queue) {
		bodies = append(bodies, *m.Body)
	}
	return bodies
}

// TestTheMatcherAgreesWithMoto, which somebody else wrote: what holds in both is not one mistake made twice. Where moto
// is known to be further from AWS, it is on the list, and held to that.
func TestTheMatcherAgreesWithMoto(t *testing.T) {
	const detail = `{"state": "terminated", "count": 5, "price": 300.0, "spot": true, "nothing": null, "empty": "", "ip": "10.0.0.33",
		"path": "dir/lib/a*b.png", "tags": ["a", "b"], "none": [], "in": {"risk": 8}, "list": [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]}`
	deviations := map[string]string{
		"a number in another notation":             `{"detail": {"price": [300]}}`,
		"true is 1":                                `{"detail": {"spot": [1]}}`,
		"1 is true":                                `{"detail": {"count": [5], "$or": [{"spot": [1.0]}, {"state": ["x"]}]}}`,
		"objects in arrays are not looked into":    `{"detail": {"list": {"x": ["1"], "y": ["2"]}}}`,
		"an empty array exists":                    `{"detail": {"none": [{"exists": true}]}}`,
		"nothing is absent in an array of objects": `{"detail": {"list": [{"exists": false}]}}`,
	}
	patterns := []string{
		`{"source": ["test"]}`, `{"source": ["other"]}`, `{"source": ["other", "test"]}`, `{"source": ["Test"]}`,
		`{"source": ["test"], "detail-type": ["Test"], "detail": {"state": ["terminated"]}}`,
		`{"source": ["test"], "detail": {"state": ["running"]}}`,
		`{"account": ["` + testAccount + `"]}`, `{"account": ["210987654321"]}`, `{"resources": ["arn:b"]}`, `{"resources": ["arn:c"]}`,
		`{"resources": [{"prefix": "arn:"}]}`, `{"detail": {"in": {"risk": [8]}}}`, `{"detail": {"in": {"risk": [9]}}}`,
		`{"detail": {"other": ["x"]}}`,
		`{"detail": {"count": [5]}}`, `{"detail": {"count": ["5"]}}`, `{"detail": {"spot": [true]}}`, `{"detail": {"spot": [false]}}`,
		`{"detail": {"nothing": [null]}}`, `{"detail": {"empty": [null]}}`, `{"detail": {"empty": [""]}}`, `{"detail": {"tags": ["b"]}}`,
		`{"detail": {"state": [{"prefix": "term"}]}}`, `{"detail": {"state": [{"prefix": "run"}]}}`, `{"detail": {"count": [{"prefix": "5"}]}}`,
		`{"detail": {"state": [{"prefix": {"equals-ignore-case": "TERM"}}]}}`,
		`{"detail": {"path": [{"suffix": ".png"}]}}`, `{"detail": {"path": [{"suffix": ".gif"}]}}`,
		`{"detail": {"path": [{"suffix": {"equals-ignore-case": ".PNG"}}]}}`,
		`{"detail": {"state": [{"equals-ignore-case": "TERMINATED"}]}}`, `{"detail": {"state": [{"equals-ignore-case": "TERM"}]}}`,
		`{"detail": {"state": [{"anything-but": "running"}]}}`, `{"detail": {"state": [{"anything-but": ["running", "terminated"]}]}}`,
		`{"detail": {"other": [{"anything-but": "running"}]}}`, `{"detail": {"nothing": [{"anything-but": "running"}]}}`,
		`{"detail": {"count": [{"anything-but": [5, 6]}]}}`,
		`{"detail": {"state": [{"anything-but": {"prefix": "term"}}]}}`, `{"detail": {"state": [{"anything-but": {"prefix": ["run", "sto"]}}]}}`,
		`{"detail": {"state": [{"anything-but": {"suffix": "ated"}}]}}`,
		`{"detail": {"state": [{"anything-but": {"equals-ignore-case": "TERMINATED"}}]}}`,
		`{"detail": {"path": [{"anything-but": {"wildcard": "*/lib/*"}}]}}`, `{"detail": {"tags": [{"anything-but": ["a"]}]}}`,
		`{"detail": {"tags": [{"anything-but": ["a", "b"]}]}}`,
		`{"detail": {"state": [{"exists": true}]}}`, `{"detail": {"state": [{"exists": false}]}}`, `{"detail": {"other": [{"exists": true}]}}`,
		`{"detail": {"other": [{"exists": false}]}}`, `{"detail": {"in": [{"exists": true}]}}`, `{"detail": {"in": [{"exists": false}]}}`,
		`{"detail": {"other": {"x": [{"exists": false}]}}}`,
		`{"detail": {"count": [{"numeric": [">", 0, "<=", 5]}]}}`, `{"detail": {"count": [{"numeric": [">", 5]}]}}`,
		`{"detail": {"price": [{"numeric": ["=", 3e2]}]}}`, `{"detail": {"state": [{"numeric": ["=", 5]}]}}`,
		`{"detail": {"path": [{"wildcard": "dir/*.png"}]}}`, `{"detail": {"path": [{"wildcard": "*a\\*b*"}]}}`,
		`{"detail": {"path": [{"wildcard": "dir\\*"}]}}`,
		`{"detail": {"ip": [{"cidr": "10.0.0.0/24"}]}}`, `{"detail": {"ip": [{"cidr": "10.0.1.0/24"}]}}`,
		`{"detail": {"$or": [{"state": ["running"]}, {"count": [{"numeric": ["<", 10]}]}]}}`,
		`{"detail": {"$or": [{"state": ["running"]}, {"count": [6]}]}}`,
		`{"source": ["other"], "$or": [{"account": ["` + testAccount + `"]}, {"version": ["0"]}]}`,
	}
	w := onMoto(t)
	all := slices.Concat(patterns, slices.Sorted(maps.Values(deviations)))
	q := w.closedQueue("q")
	event := types.PutEventsRequestEntry{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(detail), Resources: []string{"arn:a", "arn:b"}}
	// Moto takes a third of a second to make the whole event, and a tenth of that for this.
	justTheID := &types.InputTransformer{InputPathsMap: map[string]string{"id": "$.id"}, InputTemplate: aws.String(`{"id": "<id>"}`)}
	ids := make([]string, len(all))
	for i, p := range all { // one rule, again and again, which keeps its target
		w.rule("rule", p)
		if i == 0 {
			w.targets("rule", types.Target{Arn: &q, InputTransformer: justTheID})
		}
		out := must[*eventbridge.PutEventsOutput](t)(w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{event}}))
		ids[i] = *out.Entries[0].EventId
	}
	delivered := map[string]bool{}
	for _, m := range w.messages("q") {
		delivered[decode[struct{ ID string }](t, *m.Body).ID] = true
	}
	e := w.bridge.newEvent(w.region)
	e.Source, e.DetailType, e.Detail, e.Resources = *event.Source, *event.DetailType, []byte(detail), event.Resources
	body := arrive(e, defaultBus).body

	for i, text := range all {
		p, err := pattern.Parse([]byte(text))
		if err != nil {
			t.Error(err)
			continue
		}
		ours, err := p.Matches(body)
		if err != nil {
			t.Fatal(err)
		}
		theirs := delivered[ids[i]]
		if deviates := i >= len(patterns); (ours == theirs) == deviates {
			t.Errorf("%s: ours says %v, moto's %v, a known deviation: %v", text, ours, theirs, deviates)
		}
	}
}

// TestWhatMotoDoesOtherwise are the reasons for the bridge. What of it comes to be as on AWS can go from here.
func TestWhatMotoDoesOtherwise(t *testing.T) {
	refusal := func(err error) string {
		var e smithy.APIError
		if !errors.As(err, &e) {
			return fmt.Sprint(err)
		}
		return e.ErrorCode()
	}
	for _, c := range []struct {
		name string
		does func(t *testing.T, w *world, queue string)
	}{
		{"a rule that is disabled delivers", func(t *testing.T, w *world, q string) {
			w.rule("mine", wanted, types.Target{Arn: &q})
			must[*eventbridge.DisableRuleOutput](t)(w.events.DisableRule(t.Context(), &eventbridge.DisableRuleInput{Name: aws.String("mine")}))
			if got := w.delivered("q", `{}`); len(got) != 1 {
				t.Errorf("got %q", got)
			}
		}},
		{"a queue without a policy gets events", func(t *testing.T, w *world, _ string) {
			q := w.closedQueue("closed")
			w.rule("mine", wanted, types.Target{Arn: &q})
			if got := w.delivered("closed", `{}`); len(got) != 1 {
				t.Errorf("got %q", got)
			}
		}},
		{"a target's constant input is not looked at", func(t *testing.T, w *world, q string) {
			w.rule("mine", wanted, types.Target{Arn: &q, Input: aws.String(`{"check": true}`)})
			if got := w.delivered("q", `{}`); len(got) != 1 || strings.Contains(got[0], "check") {
				t.Errorf("got %q", got)
			}
		}},
		{"a target's input path is not looked at", func(t *testing.T, w *world, q string) {
			w.rule("mine", wanted, types.Target{Arn: &q, InputPath: aws.String("$.detail")})
			if got := w.delivered("q", `{}`); len(got) != 1 || !strings.Contains(got[0], "detail") {
				t.Errorf("got %q", got)
			}
		}},
		{"a template's variable outside quotes is not quoted", func(t *testing.T, w *world, q string) {
			w.rule("mine", wanted, types.Target{Arn: &q, InputTransformer: &types.InputTransformer{
				InputPathsMap: map[string]string{"state": "$.detail.state"}, InputTemplate: aws.String(`{"state": <state>}`)}})
			_, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
				{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(`{"state": "running"}`)}}})
			if err == nil {
				t.Error("no error")
			}
		}},
		{"an unknown operator matches anything", func(t *testing.T, w *world, q string) {
			w.rule("mine", `{"source": [{"prefx": "x"}]}`, types.Target{Arn: &q})
			if got := w.delivered("q", `{}`); len(got) != 1 {
				t.Errorf("got %q", got)
			}
		}},
		{"an event of AWS's own may be put", func(t *testing.T, w *world, _ string) {
			out, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
				{Source: aws.String("aws.ec2"), DetailType: aws.String("Test"), Detail: aws.String(`{}`)}}})
			if err != nil || out.FailedEntryCount != 0 {
				t.Errorf("got %+v, %v", out, err)
			}
		}},
		{"a bus that does not exist is an error", func(t *testing.T, w *world, _ string) {
			_, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
				{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(`{}`), EventBusName: aws.String("nowhere")}}})
			if refusal(err) != "ResourceNotFoundException" {
				t.Errorf("got %v", err)
			}
		}},
		{"a function as a target breaks PutEvents", func(t *testing.T, w *world, _ string) {
			w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("lambda", "function:fn"))})
			_, err := w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
				{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(`{}`)}}})
			var status interface{ HTTPStatusCode() int }
			if !errors.As(err, &status) || status.HTTPStatusCode() != http.StatusInternalServerError {
				t.Errorf("got %v", err)
			}
		}},
		{"of a function's event settings the first stay", func(t *testing.T, w *world, q string) {
			w.function(nil)
			w.destinations(q, q, 0)
			w.destinations(q, q, 1)
			out, err := w.lambda.GetFunctionEventInvokeConfig(t.Context(), &lambda.GetFunctionEventInvokeConfigInput{FunctionName: aws.String("fn")})
			if err != nil || aws.ToInt32(out.MaximumRetryAttempts) != 0 {
				t.Errorf("got %+v, %v", out, err)
			}
		}},
		{"GetFunction does not tell of a concurrency of zero", func(t *testing.T, w *world, _ string) {
			w.function(nil)
			must[*lambda.PutFunctionConcurrencyOutput](t)(w.lambda.PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{
				FunctionName: aws.String("fn"), ReservedConcurrentExecutions: aws.Int32(0)}))
			out, err := w.lambda.GetFunction(t.Context(), &lambda.GetFunctionInput{FunctionName: aws.String("fn")})
			if err != nil || out.Concurrency != nil {
				t.Errorf("got %+v, %v", out, err)
			}
		}},
		{"a permission's statement id may come twice", func(t *testing.T, w *world, _ string) {
			w.function(nil)
			for range 2 {
				must[*lambda.AddPermissionOutput](t)(w.lambda.AddPermission(t.Context(), &lambda.AddPermissionInput{FunctionName: aws.String("fn"),
					StatementId: aws.String("same"), Action: aws.String("lambda:InvokeFunction"), Principal: aws.String("events.amazonaws.com")}))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := onMoto(t)
			c.does(t, w, w.queue("q"))
		})
	}
}
