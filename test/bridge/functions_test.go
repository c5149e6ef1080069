package bridge

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/test/lambdalocal"
)

func (w *world) invoke(payload string) *lambda.InvokeOutput {
	w.Helper()
	return must[*lambda.InvokeOutput](w)(w.lambda.Invoke(w.Context(), &lambda.InvokeInput{FunctionName: aws.String("fn"), Payload: []byte(payload)}))
}

// later is an asynchronous invocation, of which the settled record is returned from a queue.
func (w *world) later(payload, queue string) lambdalocal.Record {
	w.Helper()
	out := must[*lambda.InvokeOutput](w)(w.lambda.Invoke(w.Context(), &lambda.InvokeInput{
		FunctionName: aws.String("fn"), Payload: []byte(payload), InvocationType: lambdatypes.InvocationTypeEvent}))
	if out.StatusCode != 202 {
		w.Errorf("status %d, want 202", out.StatusCode)
	}
	messages := w.messages(queue)
	if len(messages) != 1 {
		w.Fatalf("%d records, want 1", len(messages))
	}
	return decode[lambdalocal.Record](w, *messages[0].Body)
}

// variables are those that the function sees.
func (w *world) variables() []string {
	w.Helper()
	return decode[[]string](w, string(w.invoke(`{"do": "environment"}`).Payload))
}

func TestInvokeIsForTheLocalLambdaService(t *testing.T) {
	w := newWorld(t, nil)
	fn := w.function(nil)
	for _, name := range []string{"fn", fn, testAccount + ":function:fn"} {
		out, err := w.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(`{"an": "echo"}`), LogType: lambdatypes.LogTypeTail})
		if err != nil || string(out.Payload) != `{"an": "echo"}` || out.LogResult == nil || out.FunctionError != nil {
			t.Errorf("%s: got %+v, %v", name, out, err)
		}
	}
	if out := w.invoke(`{"do": "error"}`); aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), "it did not work") {
		t.Errorf("got %s, %s", aws.ToString(out.FunctionError), out.Payload)
	}
}

func TestInvokeKnowsTheFunctionsThatMotoHolds(t *testing.T) {
	w := newWorld(t, nil)
	_, err := w.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("fn")})
	if none := (*lambdatypes.ResourceNotFoundException)(nil); !errors.As(err, &none) || !strings.Contains(none.ErrorMessage(), w.arn("lambda", "function:fn")) {
		t.Errorf("got %v", err)
	}
	w.function(nil)
	w.invoke(`{}`)
	must[*lambda.DeleteFunctionOutput](t)(w.lambda.DeleteFunction(t.Context(), &lambda.DeleteFunctionInput{FunctionName: aws.String("fn")}))
	if _, err := w.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("fn")}); err == nil {
		t.Error("a deleted function is invoked")
	}
}

func TestAFunctionWithoutAProgramIsAnError(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Functions = nil })
	w.function(nil)
	_, err := w.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("fn")}, func(o *lambda.Options) { o.Retryer = aws.NopRetryer{} })
	if refused := smithy.APIError(nil); !errors.As(err, &refused) || !strings.Contains(refused.ErrorMessage(), "name one in Options.Functions") {
		t.Errorf("got %v", err)
	}
}

func TestTheFunctionHasMotosSettings(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Functions[0].Environment = map[string]string{"OURS": "given", "BOTH": "given"} })
	w.function(map[string]string{"THEIRS": "moto", "BOTH": "moto"})
	before := w.variables()
	for _, want := range []string{"THEIRS=moto", "OURS=given", "BOTH=given", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "AWS_REGION=" + w.region} {
		if !slices.Contains(before, want) {
			t.Errorf("no %s in %q", want, before)
		}
	}
	must[*lambda.UpdateFunctionConfigurationOutput](t)(w.lambda.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String("fn"), Timeout: aws.Int32(1), Environment: &lambdatypes.Environment{Variables: map[string]string{"THEIRS": "changed"}}}))
	if after := w.variables(); !slices.Contains(after, "THEIRS=changed") || !slices.Contains(after, "BOTH=given") {
		t.Errorf("after the change: %q", after)
	}
	if out := w.invoke(`{"do": "sleep", "ms": 60000}`); !strings.Contains(string(out.Payload), "timed out after 1.00 seconds") {
		t.Errorf("got %s, want moto's timeout", out.Payload)
	}
	must[*lambda.PutFunctionConcurrencyOutput](t)(w.lambda.PutFunctionConcurrency(t.Context(), &lambda.PutFunctionConcurrencyInput{
		FunctionName: aws.String("fn"), ReservedConcurrentExecutions: aws.Int32(0)}))
	_, err := w.lambda.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("fn")}, func(o *lambda.Options) { o.Retryer = aws.NopRetryer{} })
	if throttled := (*lambdatypes.TooManyRequestsException)(nil); !errors.As(err, &throttled) {
		t.Errorf("got %v, want moto's reserved concurrency", err)
	}
}

func TestAWarmFunctionStaysWhileItsSettingsDo(t *testing.T) {
	w := newWorld(t, nil)
	w.function(nil)
	first, second := string(w.invoke(`{"do": "identify"}`).Payload), string(w.invoke(`{"do": "identify"}`).Payload)
	pid := func(s string) float64 { return decode[map[string]any](t, s)["pid"].(float64) }
	if pid(first) != pid(second) {
		t.Errorf("two processes: %s, %s", first, second)
	}
}

func TestAnEventUnderWayOutlivesAChangeOfSettings(t *testing.T) {
	w := newWorld(t, nil)
	w.function(nil)
	w.destinations(w.closedQueue("done"), w.closedQueue("failed"), 0)
	must[*lambda.InvokeOutput](t)(w.lambda.Invoke(t.Context(), &lambda.InvokeInput{
		FunctionName: aws.String("fn"), Payload: []byte(`{"do": "sleep", "ms": 500}`), InvocationType: lambdatypes.InvocationTypeEvent}))
	must[*lambda.UpdateFunctionConfigurationOutput](t)(w.lambda.UpdateFunctionConfiguration(t.Context(), &lambda.UpdateFunctionConfigurationInput{
		FunctionName: aws.String("fn"), Timeout: aws.Int32(30)}))
	w.invoke(`{}`)
	if done, failed := w.messages("done"), w.messages("failed"); len(done) != 1 || len(failed) != 0 {
		t.Errorf("%d succeeded, %d failed, want 1 and 0", len(done), len(failed))
	}
}

func TestWhatAFunctionMakesOfAnEventGoesToItsDestinations(t *testing.T) {
	var mu sync.Mutex
	var heard []lambdalocal.Condition
	hear := func(r lambdalocal.Record) error {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, r.RequestContext.Condition)
		return nil
	}
	w := newWorld(t, func(o *Options) {
		o.Functions[0].Async.OnSuccess, o.Functions[0].Async.OnFailure = hear, hear
	})
	w.function(nil)
	w.destinations(w.closedQueue("done"), w.closedQueue("failed"), 1)

	if r := w.later(`{"an": "echo"}`, "done"); r.RequestContext.Condition != lambdalocal.Success || string(r.ResponsePayload) != `{"an":"echo"}` {
		t.Errorf("got %+v", r)
	}
	r := w.later(`{"do": "error"}`, "failed")
	if c := r.RequestContext; c.Condition != lambdalocal.RetriesExhausted || c.ApproximateInvokeCount != 2 {
		t.Errorf("got %+v, want the one retry that moto holds", r)
	}
	if n := len(w.messages("done")) + len(w.messages("failed")); n != 0 {
		t.Errorf("%d more records", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []lambdalocal.Condition{lambdalocal.Success, lambdalocal.RetriesExhausted}; !slices.Equal(heard, want) {
		t.Errorf("who was named in the options heard of %v, want %v", heard, want)
	}
}

func TestAnEventsAgeIsMotos(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Lambda.Delays.Retries[0] = time.Hour })
	w.function(nil)
	failed := w.closedQueue("failed")
	// Moto takes less than the minute that AWS demands.
	must[*lambda.PutFunctionEventInvokeConfigOutput](t)(w.lambda.PutFunctionEventInvokeConfig(t.Context(), &lambda.PutFunctionEventInvokeConfigInput{
		FunctionName: aws.String("fn"), MaximumEventAgeInSeconds: aws.Int32(1),
		DestinationConfig: &lambdatypes.DestinationConfig{OnFailure: &lambdatypes.OnFailure{Destination: &failed}}}))
	if r := w.later(`{"do": "error"}`, "failed"); r.RequestContext.Condition != lambdalocal.EventAgeExceeded || r.RequestContext.ApproximateInvokeCount != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestAMissingDestinationShowsInTheFunctionsLog(t *testing.T) {
	var log lockedBuffer
	w := newWorld(t, func(o *Options) { o.Functions[0].Logs = &log })
	w.function(nil)
	w.destinations(w.arn("sqs", "nowhere"), w.arn("sns", "topic"), 0)
	for do, says := range map[string]string{"nothing": "no such queue", "error": "nothing else can be written to"} {
		must[*lambda.InvokeOutput](t)(w.lambda.Invoke(t.Context(), &lambda.InvokeInput{
			FunctionName: aws.String("fn"), Payload: []byte(`{"do": "` + do + `"}`), InvocationType: lambdatypes.InvocationTypeEvent}))
		w.drain()
		if got := log.String(); !strings.Contains(got, "DestinationDeliveryFailures") || !strings.Contains(got, says) {
			t.Errorf("%s: no %q in the log:\n%s", do, says, got)
		}
	}
}

func TestTheFunctionsLogIsInItsLogGroup(t *testing.T) {
	var log lockedBuffer
	w := newWorld(t, func(o *Options) { o.Functions[0].Logs = &log })
	w.function(nil)
	w.invoke(`{"do": "print", "text": "{\"event\": \"the first\"}\n\nno newline"}`)
	w.invoke(`{"do": "nothing"}`)
	w.drain()
	find := func(pattern *string) []string {
		out := must[*cloudwatchlogs.FilterLogEventsOutput](t)(w.logs.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{
			LogGroupName: aws.String("/aws/lambda/fn"), FilterPattern: pattern, StartTime: aws.Int64(time.Now().Add(-time.Hour).UnixMilli())}))
		var lines []string
		for _, e := range out.Events {
			lines = append(lines, *e.Message)
		}
		return lines
	}
	lines := find(nil)
	if want := strings.FieldsFunc(log.String(), func(r rune) bool { return r == '\n' }); !slices.Equal(lines, want) {
		t.Errorf("the group has\n%q\nwant the log\n%q", lines, want)
	}
	if got := find(aws.String(`"the first"`)); len(got) != 1 || got[0] != `{"event": "the first"}` {
		t.Errorf("found %q", got)
	}
	if all := strings.Join(lines, "\n"); strings.Count(all, "START RequestId") != 2 || strings.Count(all, "REPORT RequestId") != 2 {
		t.Errorf("got %q", lines)
	}
}

// lockedBuffer is a log that is written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	fn := lambdalocal.Function{Name: "fn", Bootstrap: shared.bootstrap}
	for _, c := range []struct {
		options Options
		says    string
	}{
		{Options{}, "not moto's URL"},
		{Options{Moto: shared.moto, Functions: []lambdalocal.Function{fn, fn}}, "configured twice"},
		{Options{Moto: shared.moto, Lambda: lambdalocal.Options{Functions: []lambdalocal.Function{fn}}}, "Options.Functions"},
	} {
		if _, err := Start(t.Context(), c.options); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want an error with %q", err, c.says)
		}
	}
}
