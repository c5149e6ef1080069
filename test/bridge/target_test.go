package bridge

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// TestTheJournalSaysWhyARuleDidNotDeliver: moto would have delivered most of these.
func TestTheJournalSaysWhyARuleDidNotDeliver(t *testing.T) {
	for _, c := range []struct {
		name  string
		rule  func(*world)
		says  string
		tried bool
	}{
		{"disabled", func(w *world) {
			q := w.queue("q")
			w.rule("mine", wanted, types.Target{Arn: &q})
			must[*eventbridge.DisableRuleOutput](w)(w.events.DisableRule(w.Context(), &eventbridge.DisableRuleInput{Name: aws.String("mine")}))
		}, "the rule is disabled", false},
		{"pattern", func(w *world) {
			q := w.queue("q")
			w.rule("mine", `{"source": ["tests"]}`, types.Target{Arn: &q})
		}, "the pattern does not match", false},
		{"misspelt operator, put past the bridge", func(w *world) {
			q := w.queue("q")
			must[*eventbridge.PutRuleOutput](w)(newAccount(Options{Moto: shared.moto}).events(w.region).PutRule(w.Context(), &eventbridge.PutRuleInput{
				Name: aws.String("mine"), EventPattern: aws.String(`{"source": [{"prefx": "t"}]}`)}))
			w.targets("mine", types.Target{Arn: &q})
		}, `source: unknown operator "prefx"`, false},
		{"no target", func(w *world) { w.rule("mine", wanted) }, "the rule has no target", false},
		{"no function", func(w *world) {
			w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("lambda", "function:fn"))})
		}, "there is no such function", true},
		{"no version of the function", func(w *world) {
			fn := w.function(nil) + ":7"
			w.rule("mine", wanted, types.Target{Arn: &fn})
		}, "there is no such function", true},
		{"no permission", func(w *world) {
			fn := w.function(nil)
			w.rule("mine", wanted, types.Target{Arn: &fn})
		}, "the function's policy does not allow events.amazonaws.com to lambda:InvokeFunction", true},
		{"permission for another rule", func(w *world) {
			fn := w.function(nil)
			w.rule("mine", wanted, types.Target{Arn: &fn})
			w.allow(w.arn("events", "rule/minef"))
		}, "no statement does", true},
		{"no queue", func(w *world) {
			w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("sqs", "q"))})
		}, "there is no such queue", true},
		{"no permission for the queue", func(w *world) {
			q := w.closedQueue("q")
			w.rule("mine", wanted, types.Target{Arn: &q})
		}, "the queue's policy does not allow events.amazonaws.com to sqs:SendMessage", true},
		{"another kind of target", func(w *world) {
			w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("sns", "topic"))})
		}, "Lambda functions and SQS queues only", true},
		{"input that is no JSON", func(w *world) {
			q := w.queue("q")
			w.rule("mine", wanted, types.Target{Arn: &q, Input: aws.String("text")})
		}, "the target's input is no JSON", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			c.rule(w)
			id := w.put(`{}`)
			got := w.fate(id)
			if got.Delivered || got.DeadLetter != "" || got.RequestID != "" || !strings.Contains(got.Reason, c.says) {
				t.Errorf("got %+v, want the reason %q", got, c.says)
			}
			if (got.Target == "target-1") != c.tried || (got.Attempts == 1) != c.tried || got.Rule != w.arn("events", "rule/mine") {
				t.Errorf("got %+v, want it tried: %v", got, c.tried)
			}
		})
	}
}

func TestAnEventForABusThatDoesNotExistIsDropped(t *testing.T) {
	w := newWorld(t, nil)
	out := must[*eventbridge.PutEventsOutput](t)(w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
		{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(`{}`), EventBusName: aws.String("nowhere")}}}))
	if got := w.fate(aws.ToString(out.Entries[0].EventId)); got.Reason != "there is no event bus nowhere" || got.Delivered {
		t.Errorf("got %+v", got)
	}
}

func TestABusOfTheAccountsOwnHasItsOwnRules(t *testing.T) {
	w := newWorld(t, nil)
	q := w.queue("q")
	bus := must[*eventbridge.CreateEventBusOutput](t)(w.events.CreateEventBus(t.Context(), &eventbridge.CreateEventBusInput{Name: aws.String("own")}))
	rule := must[*eventbridge.PutRuleOutput](t)(w.events.PutRule(t.Context(), &eventbridge.PutRuleInput{
		Name: aws.String("mine"), EventBusName: aws.String("own"), EventPattern: aws.String(wanted)}))
	must[*eventbridge.PutTargetsOutput](t)(w.events.PutTargets(t.Context(), &eventbridge.PutTargetsInput{
		Rule: aws.String("mine"), EventBusName: aws.String("own"), Targets: []types.Target{{Id: aws.String("target-1"), Arn: &q}}}))
	w.rule("default", wanted, types.Target{Arn: &q})
	for _, name := range []string{"own", *bus.EventBusArn} {
		out := must[*eventbridge.PutEventsOutput](t)(w.events.PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []types.PutEventsRequestEntry{
			{Source: aws.String("test"), DetailType: aws.String("Test"), Detail: aws.String(`{}`), EventBusName: &name}}}))
		if got := w.fate(aws.ToString(out.Entries[0].EventId)); !got.Delivered || got.Rule != *rule.RuleArn {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// deadLetter is the one message in the dead-letter queue, with its attributes.
func (w *world) deadLetter() (body string, attributes map[string]string) {
	w.Helper()
	messages := w.messages("dead")
	if len(messages) != 1 {
		w.Fatalf("%d messages in the dead-letter queue, want 1; the journal: %+v", len(messages), w.bridge.Deliveries())
	}
	attributes = map[string]string{}
	for name, value := range messages[0].MessageAttributes {
		attributes[name] = *value.StringValue
	}
	return *messages[0].Body, attributes
}

func TestAnEventWithoutPermissionGoesToTheDeadLetterQueueAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	fn, dead := w.function(nil), w.queue("dead")
	rule := w.rule("mine", wanted, types.Target{Arn: &fn, Input: aws.String(`{}`), DeadLetterConfig: &types.DeadLetterConfig{Arn: &dead}})
	id := w.put(`{"a": 1}`)
	got := w.fate(id)
	if got.Delivered || got.Attempts != 1 || got.DeadLetter != dead {
		t.Errorf("got %+v", got)
	}
	body, attributes := w.deadLetter()
	if e := decode[event](t, body); e.ID != id || string(e.Detail) != `{"a":1}` {
		t.Errorf("the dead-letter queue has %s", body)
	}
	want := map[string]string{"RULE_ARN": rule, "TARGET_ARN": fn, "ERROR_CODE": "NO_PERMISSIONS", "ERROR_MESSAGE": got.Reason, "RETRY_ATTEMPTS": "0"}
	if !maps.Equal(attributes, want) {
		t.Errorf("got %v, want %v", attributes, want)
	}
}

func TestADeadLetterQueueWithoutAPolicyGetsNothing(t *testing.T) {
	w := newWorld(t, nil)
	dead := w.closedQueue("dead")
	w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("lambda", "function:fn")), DeadLetterConfig: &types.DeadLetterConfig{Arn: &dead}})
	got := w.fate(w.put(`{}`))
	if got.DeadLetter != "" || !strings.Contains(got.Reason, "no such function; the dead-letter queue did not get it: the queue's policy does not allow") {
		t.Errorf("got %+v", got)
	}
	if n := len(w.messages("dead")); n != 0 {
		t.Errorf("%d messages are in the queue", n)
	}
}

// refusing has the local Lambda service refuse the first invocations.
func (w *world) refusing(times int32, refusal lambdalocal.Error) {
	invoke, n := w.bridge.invoke, atomic.Int32{}
	w.bridge.invoke = func(ctx context.Context, region, function string, payload []byte) (string, error) {
		if n.Add(1) <= times {
			return "", &refusal
		}
		return invoke(ctx, region, function, payload)
	}
}

func TestATargetThatIsThrottledIsTriedAgain(t *testing.T) {
	w := newWorld(t, nil)
	fn := w.function(nil)
	w.allow(w.rule("mine", wanted, types.Target{Arn: &fn}))
	w.refusing(2, lambdalocal.Error{StatusCode: 429, Code: "TooManyRequestsException"})
	if got := w.fate(w.put(`{}`)); !got.Delivered || got.Attempts != 3 || got.Reason != "" || got.RequestID == "" {
		t.Errorf("got %+v", got)
	}
}

func TestATargetsRetryPolicyEndsTheTries(t *testing.T) {
	for _, c := range []struct {
		name     string
		refusal  lambdalocal.Error
		attempts int
		want     map[string]string
	}{
		{"throttled", lambdalocal.Error{StatusCode: 429, Code: "TooManyRequestsException"}, 3,
			map[string]string{"ERROR_CODE": "THROTTLING", "RETRY_ATTEMPTS": "2", "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}},
		{"broken", lambdalocal.Error{StatusCode: 500, Code: "ServiceException"}, 3,
			map[string]string{"ERROR_CODE": "ERROR_FROM_TARGET", "RETRY_ATTEMPTS": "2", "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts"}},
		{"refused for good", lambdalocal.Error{StatusCode: 413, Code: "RequestTooLargeException"}, 1,
			map[string]string{"ERROR_CODE": "INVALID_PARAMETER", "RETRY_ATTEMPTS": "0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			fn, dead := w.function(nil), w.queue("dead")
			w.allow(w.rule("mine", wanted, types.Target{Arn: &fn, DeadLetterConfig: &types.DeadLetterConfig{Arn: &dead},
				RetryPolicy: &types.RetryPolicy{MaximumRetryAttempts: aws.Int32(2), MaximumEventAgeInSeconds: aws.Int32(3600)}}))
			w.refusing(100, c.refusal)
			if got := w.fate(w.put(`{}`)); got.Delivered || got.Attempts != c.attempts || got.DeadLetter != dead || !strings.HasPrefix(got.Reason, c.refusal.Code) {
				t.Errorf("got %+v", got)
			}
			_, got := w.deadLetter()
			for _, name := range []string{"RULE_ARN", "TARGET_ARN", "ERROR_MESSAGE"} {
				delete(got, name)
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestAFIFOQueueGetsItsMessageGroup(t *testing.T) {
	w := newWorld(t, nil)
	must[*sqs.CreateQueueOutput](t)(w.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("q.fifo"), Attributes: map[string]string{
		"FifoQueue": "true", "ContentBasedDeduplication": "true",
		"Policy": fmt.Sprintf(`{"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": %q}]}`, w.arn("sqs", "q.fifo"))}}))
	w.rule("mine", wanted, types.Target{Arn: aws.String(w.arn("sqs", "q.fifo")), SqsParameters: &types.SqsParameters{MessageGroupId: aws.String("group")}})
	if got := w.fate(w.put(`{}`)); !got.Delivered {
		t.Fatalf("got %+v", got)
	}
	out := must[*sqs.ReceiveMessageOutput](t)(w.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: w.queueURL("q.fifo"),
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameMessageGroupId}}))
	if len(out.Messages) != 1 || out.Messages[0].Attributes["MessageGroupId"] != "group" {
		t.Errorf("got %+v", out.Messages)
	}
}

func TestMotoThatIsGoneIsAnError(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Moto = "http://127.0.0.1:1" })
	if err := w.bridge.Deliver(t.Context(), []byte(w.warning("x"))); err == nil || !strings.Contains(err.Error(), "listing the rules") {
		t.Errorf("Deliver: got %v", err)
	}
	if _, err := w.events.ListRules(t.Context(), &eventbridge.ListRulesInput{}); err == nil || !strings.Contains(err.Error(), "moto did not answer") {
		t.Errorf("ListRules: got %v", err)
	}
	w.put(`{}`)
	if err := w.bridge.Drain(t.Context()); err == nil || !strings.Contains(err.Error(), "listing the rules") {
		t.Errorf("Drain: got %v", err)
	}
	if err := w.bridge.Close(); err == nil {
		t.Error("Close says nothing of it")
	}
	w.bridge = must[*Bridge](t)(Start(t.Context(), Options{Moto: shared.moto})) // for the end of the test
}
