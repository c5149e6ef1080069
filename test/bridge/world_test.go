package bridge

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/castai/kops-spot/test/lambdalocal"
)

const testAccount = "123456789012"

// world is one test's bridge, in a region of its own, and AWS's clients at it.
type world struct {
	*testing.T
	region string
	bridge *Bridge
	events *eventbridge.Client
	lambda *lambda.Client
	sqs    *sqs.Client
	logs   *cloudwatchlogs.Client
}

// newWorld starts a bridge with a program for the function "fn". change may be nil.
func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, region: <-shared.regions}
	options := Options{Moto: shared.moto, Region: w.region, RetryDelay: time.Millisecond,
		Lambda: lambdalocal.Options{Delays: lambdalocal.Delays{
			Retries: [2]time.Duration{time.Millisecond, time.Millisecond}, ThrottleMin: time.Millisecond, ThrottleMax: time.Millisecond}},
		Functions: []lambdalocal.Function{{Name: "fn", Bootstrap: shared.bootstrap}}}
	if change != nil {
		change(&options)
	}
	var err error
	if w.bridge, err = Start(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.bridge.Close(); err != nil {
			t.Error(err)
		}
		if err := clean(context.WithoutCancel(t.Context()), w.region); err != nil {
			t.Error(err)
		}
		shared.regions <- w.region
	})
	cfg := account{url: w.bridge.URL, http: newAccount(options).http}.in(w.region)
	w.events, w.lambda = eventbridge.NewFromConfig(cfg), lambda.NewFromConfig(cfg)
	w.sqs, w.logs = sqs.NewFromConfig(cfg), cloudwatchlogs.NewFromConfig(cfg)
	return w
}

// must is for what the test does not test.
func must[T any](t testing.TB) func(T, error) T {
	t.Helper()
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (w *world) arn(service, resource string) string {
	return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, w.region, testAccount, resource)
}

// function makes the function "fn" in moto, without a permission for anybody, and returns its ARN.
func (w *world) function(environment map[string]string) string {
	w.Helper()
	var code bytes.Buffer
	z := zip.NewWriter(&code)
	if _, err := z.Create("bootstrap"); err != nil {
		w.Fatal(err)
	}
	if err := z.Close(); err != nil {
		w.Fatal(err)
	}
	out := must[*lambda.CreateFunctionOutput](w)(w.lambda.CreateFunction(w.Context(), &lambda.CreateFunctionInput{
		FunctionName: aws.String("fn"), Runtime: lambdatypes.RuntimeProvidedal2023, Handler: aws.String("bootstrap"),
		Role: aws.String("arn:aws:iam::" + testAccount + ":role/fn"), Code: &lambdatypes.FunctionCode{ZipFile: code.Bytes()},
		Timeout: aws.Int32(20), MemorySize: aws.Int32(256), Environment: &lambdatypes.Environment{Variables: environment}}))
	return *out.FunctionArn
}

// allow lets the source, a rule's ARN or a pattern of ARNs, invoke the function "fn".
func (w *world) allow(source string) {
	w.Helper()
	must[*lambda.AddPermissionOutput](w)(w.lambda.AddPermission(w.Context(), &lambda.AddPermissionInput{
		FunctionName: aws.String("fn"), StatementId: aws.String("s" + newID()), Action: aws.String("lambda:InvokeFunction"),
		Principal: aws.String("events.amazonaws.com"), SourceArn: &source}))
}

// rule makes a rule with targets, and returns its ARN.
func (w *world) rule(name, eventPattern string, targets ...types.Target) string {
	w.Helper()
	out := must[*eventbridge.PutRuleOutput](w)(w.events.PutRule(w.Context(), &eventbridge.PutRuleInput{Name: &name, EventPattern: &eventPattern}))
	w.targets(name, targets...)
	return *out.RuleArn
}

func (w *world) targets(rule string, targets ...types.Target) {
	w.Helper()
	if len(targets) == 0 {
		return
	}
	for i := range targets {
		targets[i].Id = aws.String(fmt.Sprint("target-", i+1))
	}
	must[*eventbridge.PutTargetsOutput](w)(w.events.PutTargets(w.Context(), &eventbridge.PutTargetsInput{Rule: &rule, Targets: targets}))
}

// queue makes a queue, to which the whole of EventBridge may write, and returns its ARN.
func (w *world) queue(name string) string {
	w.Helper()
	arn := w.closedQueue(name)
	policy := fmt.Sprintf(`{"Statement": {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": %q}}`, arn)
	must[*sqs.SetQueueAttributesOutput](w)(w.sqs.SetQueueAttributes(w.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: w.queueURL(name), Attributes: map[string]string{"Policy": policy}}))
	return arn
}

// closedQueue makes a queue without a policy.
func (w *world) closedQueue(name string) string {
	w.Helper()
	must[*sqs.CreateQueueOutput](w)(w.sqs.CreateQueue(w.Context(), &sqs.CreateQueueInput{QueueName: &name}))
	return w.arn("sqs", name)
}

func (w *world) queueURL(name string) *string {
	w.Helper()
	return must[*sqs.GetQueueUrlOutput](w)(w.sqs.GetQueueUrl(w.Context(), &sqs.GetQueueUrlInput{QueueName: &name})).QueueUrl
}

// messages takes what is in a queue, after the bridge has nothing left to do.
func (w *world) messages(name string) []sqstypes.Message {
	w.Helper()
	w.drain()
	var all []sqstypes.Message
	for {
		out := must[*sqs.ReceiveMessageOutput](w)(w.sqs.ReceiveMessage(w.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: w.queueURL(name), MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}}))
		if len(out.Messages) == 0 {
			return all
		}
		all = append(all, out.Messages...)
	}
}

func (w *world) drain() {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	if err := w.bridge.Drain(ctx); err != nil {
		w.Fatal(err)
	}
}

// destinations has the records of the function "fn" written to queues of moto.
func (w *world) destinations(onSuccess, onFailure string, retries int32) {
	w.Helper()
	to := &lambdatypes.DestinationConfig{OnSuccess: &lambdatypes.OnSuccess{Destination: &onSuccess}, OnFailure: &lambdatypes.OnFailure{Destination: &onFailure}}
	must[*lambda.PutFunctionEventInvokeConfigOutput](w)(w.lambda.PutFunctionEventInvokeConfig(w.Context(), &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: aws.String("fn"), MaximumRetryAttempts: &retries, DestinationConfig: to}))
}

// put sends one event through PutEvents, and returns its id.
func (w *world) put(detail string) string {
	w.Helper()
	out := must[*eventbridge.PutEventsOutput](w)(w.events.PutEvents(w.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: &detail}}}))
	if out.FailedEntryCount != 0 || len(out.Entries) != 1 || out.Entries[0].EventId == nil {
		w.Fatalf("got %+v", out)
	}
	return *out.Entries[0].EventId
}

// fate is the one entry of the journal about an event, when it is settled.
func (w *world) fate(eventID string) Delivery {
	w.Helper()
	w.drain()
	var found []Delivery
	for _, d := range w.bridge.Deliveries() {
		if d.EventID == eventID {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		w.Fatalf("%d entries in the journal about event %s, want 1: %+v", len(found), eventID, found)
	}
	return found[0]
}

func decode[T any](t testing.TB, document string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(document), &v); err != nil {
		t.Fatalf("decoding %s: %v", document, err)
	}
	return v
}
