package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Record is the invocation record a destination gets ("Capturing records of Lambda asynchronous invocations", Developer
// Guide).
type Record struct {
	Version         string          `json:"version"`
	Timestamp       string          `json:"timestamp"`
	RequestContext  RequestContext  `json:"requestContext"`
	RequestPayload  json.RawMessage `json:"requestPayload"`
	ResponseContext ResponseContext `json:"responseContext"`
	ResponsePayload json.RawMessage `json:"responsePayload"`
}

// RequestContext describes the event and why Lambda has finished it.
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

// Condition is the reason why Lambda has finished an event.
type Condition string

// The conditions of a record.
const (
	Success          Condition = "Success"
	RetriesExhausted Condition = "RetriesExhausted"
)

// Destination receives the record of a finished event. It may be called concurrently.
type Destination func(Record) error

// enqueue accepts an event and processes it in the background.
func (s *Service) enqueue(fn *function, inv invocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.pending.Add(1)
	s.running.Go(func() {
		defer s.pending.Add(-1)
		record, err := s.process(fn, inv)
		if s.lifetime.Err() != nil {
			return // the service and its queue are closed
		}
		if err != nil {
			s.log(fn, fmt.Appendf(nil, "the event of RequestId: %s is lost: %v\n", inv.id, err))
			return
		}
		s.deliver(fn, record)
	})
	return nil
}

// process invokes the function until it succeeds or the retries are exhausted. The error is that of an attempt that did
// not run. Throttled attempts do not count.
func (s *Service) process(fn *function, inv invocation) (Record, error) {
	backoff := time.Second
	for invoked := 1; ; invoked++ {
		result, err := s.attempt(s.lifetime, fn, inv)
		for errors.Is(err, errThrottled) {
			if err := sleep(s.lifetime, backoff); err != nil {
				return Record{}, err
			}
			backoff = min(2*backoff, maxBackoff)
			result, err = s.attempt(s.lifetime, fn, inv)
		}
		switch {
		case err != nil:
			return Record{}, err
		case result.FunctionError == "":
			return newRecord(fn, inv, Success, invoked, result), nil
		case invoked > *fn.Async.MaximumRetryAttempts:
			return newRecord(fn, inv, RetriesExhausted, invoked, result), nil
		}
		if err := sleep(s.lifetime, s.options.RetryDelays[invoked-1]); err != nil {
			return Record{}, err
		}
	}
}

// maxBackoff is the longest delay of a throttled event.
const maxBackoff = 5 * time.Minute

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver sends the record to its destination. The function's log shows a failure; on AWS, it is the metric
// DestinationDeliveryFailures.
func (s *Service) deliver(fn *function, r Record) {
	to := fn.Async.OnFailure
	if r.RequestContext.Condition == Success {
		to = fn.Async.OnSuccess
	}
	if to == nil {
		return
	}
	if err := to(r); err != nil {
		s.log(fn, fmt.Appendf(nil, "DestinationDeliveryFailures RequestId: %s Error: %v\n", r.RequestContext.RequestID,
			err))
	}
}

func newRecord(fn *function, inv invocation, condition Condition, invoked int, last Result) Record {
	return Record{
		Version:   "1.0",
		Timestamp: time.Now().UTC().Format("2006-01-02T15:04:05.000Z"),
		RequestContext: RequestContext{
			RequestID:              inv.id,
			FunctionARN:            fn.arn + ":" + latest,
			Condition:              condition,
			ApproximateInvokeCount: invoked,
		},
		RequestPayload:  inv.payload,
		ResponseContext: ResponseContext{StatusCode: 200, ExecutedVersion: latest, FunctionError: last.FunctionError},
		ResponsePayload: last.Payload,
	}
}
