package lambdalocal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// The waits of the real service, on a clock of the test's own.
func TestEventTimes(t *testing.T) {
	t.Parallel()
	const s = time.Second
	failed := func(int) (Result, error) {
		return Result{FunctionError: "Unhandled", Payload: []byte(`{"errorType":"E"}`)}, nil
	}
	succeeded := func(int) (Result, error) { return Result{Payload: []byte(`1`)}, nil }
	throttled := func(int) (Result, error) { return Result{}, errThrottled(ReasonReservedConcurrency) }
	broken := func(int) (Result, error) { return Result{}, errService("broken") }
	nth := func(first func(int) (Result, error), n int, then func(int) (Result, error)) func(int) (Result, error) {
		return func(i int) (Result, error) {
			if i < n {
				return first(i)
			}
			return then(i)
		}
	}
	growing := []time.Duration{0, 1 * s, 3 * s, 7 * s, 15 * s, 31 * s, 63 * s, 127 * s, 255 * s, 511 * s, 811 * s, 1111 * s}
	for name, c := range map[string]struct {
		change    func(*Function)
		attempt   func(int) (Result, error)
		at        []time.Duration // of the attempts
		condition Condition
		ended     time.Duration
		invoked   int
		response  string
	}{
		"retries after one minute and two": {attempt: failed,
			at: []time.Duration{0, 60 * s, 180 * s}, condition: RetriesExhausted, ended: 180 * s, invoked: 3, response: `{"errorType":"E"}`},
		"the event's own number of retries": {change: func(f *Function) { f.Async.MaximumRetryAttempts = new(1) }, attempt: failed,
			at: []time.Duration{0, 60 * s}, condition: RetriesExhausted, ended: 60 * s, invoked: 2, response: `{"errorType":"E"}`},
		"throttles grow to five minutes": {attempt: nth(throttled, 11, succeeded),
			at: growing, condition: Success, ended: 1111 * s, invoked: 1, response: `1`},
		"service errors likewise": {attempt: nth(broken, 3, succeeded),
			at: growing[:4], condition: Success, ended: 7 * s, invoked: 1, response: `1`},
		"throttles are no retries, and begin anew": {attempt: nth(throttled, 2, nth(failed, 3, nth(throttled, 5, failed))),
			at: []time.Duration{0, 1 * s, 3 * s, 63 * s, 64 * s, 66 * s, 186 * s}, condition: RetriesExhausted, ended: 186 * s, invoked: 3, response: `{"errorType":"E"}`},
		"throttled until the age is reached": {change: func(f *Function) { f.Async.MaximumEventAge = 20 * s }, attempt: throttled,
			at: growing[:5], condition: EventAgeExceeded, ended: 20 * s},
		"too old for the retry": {change: func(f *Function) { f.Async.MaximumEventAge = 90 * s }, attempt: failed,
			at: []time.Duration{0, 60 * s}, condition: EventAgeExceeded, ended: 90 * s, invoked: 2, response: `{"errorType":"E"}`},
		"six hours without a word": {attempt: throttled, condition: EventAgeExceeded, ended: 6 * time.Hour},
		"no concurrency at all":    {change: func(f *Function) { f.ReservedConcurrency = new(0) }, attempt: throttled, at: []time.Duration{}, condition: ZeroReservedConcurrency},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fn := &function{Function: Function{Name: "fn"}.withDefaults()}
				if c.change != nil {
					c.change(&fn.Function)
				}
				began := time.Now()
				var at []time.Duration
				record, err := Options{}.withDefaults().Delays.process(t.Context(), fn, invocation{payload: []byte(`{}`)}, func() (Result, error) {
					at = append(at, time.Since(began))
					return c.attempt(len(at) - 1)
				})
				if err != nil {
					t.Fatal(err)
				}
				if c.at != nil && !slices.Equal(at, c.at) {
					t.Errorf("attempts at %v, want %v", at, c.at)
				}
				equal(t, "condition", record.RequestContext.Condition, c.condition)
				equal(t, "end", time.Since(began), c.ended)
				equal(t, "invocations", record.RequestContext.ApproximateInvokeCount, c.invoked)
				equal(t, "response", string(record.ResponsePayload), c.response)
				equal(t, "response context", record.ResponseContext != nil, c.response != "")
			})
		})
	}
}

func TestEventEndsWithTheService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fn := &function{Function: Function{Name: "fn"}.withDefaults()}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		_, err := Options{}.withDefaults().Delays.process(ctx, fn, invocation{payload: []byte(`{}`)}, func() (Result, error) {
			return Result{FunctionError: "Unhandled"}, nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		equal(t, "end", fmt.Sprint(time.Since(began)), "5s")
	})
}

func TestEndOfTheServiceIsNoFailureOfTheFunction(t *testing.T) {
	t.Parallel()
	fn := &function{Function: Function{Name: "fn", Async: AsyncConfig{MaximumRetryAttempts: new(0)}}.withDefaults()}
	ctx, cancel := context.WithCancel(t.Context())
	record, err := Delays{}.process(ctx, fn, invocation{payload: []byte(`{}`)}, func() (Result, error) {
		cancel()
		return Result{FunctionError: "Unhandled"}, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v and %+v", err, record)
	}
}
