package lambdalocal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// InvocationType says whether the caller waits for the function.
type InvocationType string

// The invocation types of AWS's Invoke; the empty one is RequestResponse.
const (
	RequestResponse InvocationType = "RequestResponse"
	Event           InvocationType = "Event"
	DryRun          InvocationType = "DryRun"
)

// The payload limits of Invoke (API reference).
const (
	syncPayloadLimit  = 6 << 20
	asyncPayloadLimit = 1 << 20
)

// Result is Invoke's answer. Event and DryRun give a status code and a request
// id alone.
type Result struct {
	StatusCode      int // 200, 202 for Event, 204 for DryRun
	RequestID       string
	ExecutedVersion string
	FunctionError   string // "Unhandled" for every error, as Lambda answers for provided runtimes
	Payload         []byte
	LogTail         []byte // the last 4 KB of the invocation's log
	Report          Report
}

// Report holds the numbers of the REPORT line.
type Report struct {
	Duration      time.Duration
	InitDuration  time.Duration // zero if the environment was warm
	MaxMemoryUsed int           // in MB
}

// invocation is one attempt at running a function.
type invocation struct {
	id, traceID, arn string
	payload          []byte
	deadline         time.Time
	answered         chan answer
}

// answer is what the runtime posted: a response, or the function's error.
type answer struct {
	payload   []byte
	errorType string // empty for a response
}

// Invoke does what the Invoke API does for a function's name, partial ARN or
// ARN. A refusal is an *Error. When ctx ends first the function runs on, as it
// does when a caller of AWS hangs up.
func (s *Service) Invoke(ctx context.Context, name string, typ InvocationType, payload []byte) (Result, error) {
	return s.invoke(ctx, request{name: name, typ: typ, payload: payload})
}

// request is an Invoke request without its HTTP.
type request struct {
	name, qualifier string
	typ             InvocationType
	traceID         string
	payload         []byte
}

func (s *Service) invoke(ctx context.Context, r request) (Result, error) {
	r.typ = cmp.Or(r.typ, RequestResponse)
	limit, err := payloadLimit(r.typ)
	if err != nil {
		return Result{}, err
	}
	fn, arn, err := s.lookUp(r.name, r.qualifier)
	if err != nil {
		return Result{}, err
	}
	if len(r.payload) > limit {
		return Result{}, errTooLarge(len(r.payload), limit, r.typ)
	}
	if len(r.payload) == 0 {
		r.payload = []byte("{}")
	}
	if !json.Valid(r.payload) {
		return Result{}, errMalformed()
	}
	inv := invocation{id: newRequestID(), arn: arn, payload: r.payload, traceID: cmp.Or(r.traceID, newTraceID(time.Now()))}
	switch r.typ {
	case DryRun:
		return Result{StatusCode: http.StatusNoContent, RequestID: inv.id}, nil
	case Event:
		if err := s.enqueue(fn, inv); err != nil {
			return Result{}, err
		}
		return Result{StatusCode: http.StatusAccepted, RequestID: inv.id}, nil
	default:
		return s.attempt(ctx, fn, inv)
	}
}

func payloadLimit(typ InvocationType) (int, error) {
	switch typ {
	case RequestResponse, DryRun:
		return syncPayloadLimit, nil
	case Event:
		return asyncPayloadLimit, nil
	}
	return 0, errValidation("invocationType", string(typ), "one of [Event, RequestResponse, DryRun]")
}

// attempt runs the function once, if its concurrency allows.
func (s *Service) attempt(ctx context.Context, fn *function, inv invocation) (Result, error) {
	if err := s.admit(fn); err != nil {
		return Result{}, err
	}
	type outcome struct {
		result Result
		err    error
	}
	done := make(chan outcome, 1)
	inv.answered = make(chan answer, 1)
	go func() {
		defer s.running.Done()
		result, err := s.execute(fn, &inv)
		// Before the caller hears of it: its next invocation must find the
		// concurrency free.
		s.release(fn)
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting for function %s: %w", fn.Name, ctx.Err())
	}
}
