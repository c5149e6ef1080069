package lambdalocal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Delays space out the attempts at one asynchronous event.
type Delays struct {
	// Retries follow the first and the second function error: one minute, then two ("Error handling for asynchronous
	// invocation", Developer Guide).
	Retries [2]time.Duration

	// After a throttle or a service error the wait doubles from ThrottleMin to ThrottleMax: from 1 s to 5 min (same
	// page).
	ThrottleMin, ThrottleMax time.Duration
}

func (d Delays) withDefaults() Delays {
	return Delays{
		Retries:     [2]time.Duration{cmp.Or(d.Retries[0], time.Minute), cmp.Or(d.Retries[1], 2*time.Minute)},
		ThrottleMin: cmp.Or(d.ThrottleMin, time.Second),
		ThrottleMax: cmp.Or(d.ThrottleMax, 5*time.Minute),
	}
}

// Record is the invocation record a destination gets ("Capturing records of Lambda asynchronous invocations",
// Developer Guide). The response is absent if the function never ran.
type Record struct {
	Version         string           `json:"version"`
	Timestamp       string           `json:"timestamp"`
	RequestContext  RequestContext   `json:"requestContext"`
	RequestPayload  json.RawMessage  `json:"requestPayload"`
	ResponseContext *ResponseContext `json:"responseContext,omitempty"`
	ResponsePayload json.RawMessage  `json:"responsePayload,omitempty"`
}

// RequestContext says what became of the event.
type RequestContext struct {
	RequestID              string    `json:"requestId"`
	FunctionARN            string    `json:"functionArn"`
	Condition              Condition `json:"condition"`
	ApproximateInvokeCount int       `json:"approximateInvokeCount"`
}

// ResponseContext describes the last attempt.
type ResponseContext struct {
	StatusCode      int    `json:"statusCode"`
	ExecutedVersion string `json:"executedVersion"`
	FunctionError   string `json:"functionError,omitempty"`
}

// Condition is why Lambda is done with an event.
type Condition string

// The conditions of a record.
const (
	Success          Condition = "Success"
	RetriesExhausted Condition = "RetriesExhausted"
	EventAgeExceeded Condition = "EventAgeExceeded"
)

// Destination takes the record of an event that Lambda is done with. It may be called concurrently.
type Destination func(Record) error

// enqueue accepts an event and sees it through on its own.
func (s *Service) enqueue(fn *function, inv invocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.pending.Add(1)
	s.running.Go(func() {
		defer s.pending.Add(-1)
		record, err := s.options.Delays.process(s.lifetime, fn, inv, func() (Result, error) {
			return s.attempt(s.lifetime, fn, inv)
		})
		if err != nil {
			return // the service ends, and its queue with it
		}
		s.deliver(fn, record)
	})
	return nil
}

// process tries an event until it succeeds, has failed often enough or is too old. Only function errors count against
// the retries; throttles and service errors put the event back in the queue, and only its age ends that. It expires at
// its age, not before, even if no attempt could come in time. The error is the end of ctx.
func (d Delays) process(
	ctx context.Context, fn *function, inv invocation, attempt func() (Result, error),
) (Record, error) {
	expires := time.Now().Add(fn.Async.MaximumEventAge)
	invoked, refused := 0, d.ThrottleMin
	var last *Result
	for {
		result, err := attempt()
		var wait time.Duration
		switch {
		case err == nil && result.FunctionError == "":
			return newRecord(fn, inv, Success, invoked+1, &result), nil
		case ctx.Err() != nil:
			return Record{}, ctx.Err() // not the function's failure: its environment was killed
		case err != nil:
			wait, refused = refused, min(2*refused, d.ThrottleMax) // 1, 2, 4 … 256, 300 s
		default:
			invoked++
			refused = d.ThrottleMin
			last = &result
			if invoked > *fn.Async.MaximumRetryAttempts {
				return newRecord(fn, inv, RetriesExhausted, invoked, last), nil
			}
			wait = d.Retries[invoked-1]
		}
		if err := sleep(ctx, min(wait, time.Until(expires))); err != nil {
			return Record{}, err
		}
		if !time.Now().Before(expires) {
			return newRecord(fn, inv, EventAgeExceeded, invoked, last), nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver hands the record to its destination. A failed delivery shows in the function's log; AWS shows it as the
// metric DestinationDeliveryFailures.
func (s *Service) deliver(fn *function, r Record) {
	to := fn.Async.OnFailure
	if r.RequestContext.Condition == Success {
		to = fn.Async.OnSuccess
	}
	if to == nil {
		return
	}
	if err := to(r); err != nil {
		s.log(fn, fmt.Appendf(nil, "DestinationDeliveryFailures RequestId: %s Error: %v\n", r.RequestContext.RequestID, err))
	}
}

func newRecord(fn *function, inv invocation, condition Condition, invoked int, last *Result) Record {
	r := Record{
		Version:   "1.0",
		Timestamp: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		RequestContext: RequestContext{
			RequestID:              inv.id,
			FunctionARN:            fn.arn + ":" + latest,
			Condition:              condition,
			ApproximateInvokeCount: invoked,
		},
		RequestPayload: inv.payload,
	}
	if last != nil {
		r.ResponseContext = &ResponseContext{StatusCode: 200, ExecutedVersion: latest, FunctionError: last.FunctionError}
		r.ResponsePayload = last.Payload
	}
	return r
}
