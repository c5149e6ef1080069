package lambdalocal

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Record is the invocation record a destination gets ("Capturing records of
// Lambda asynchronous invocations", Developer Guide). The response is absent if
// the function never ran.
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

// The conditions of a record. An event for a function with a reserved
// concurrency of zero fails at once, without a retry.
const (
	Success                 Condition = "Success"
	RetriesExhausted        Condition = "RetriesExhausted"
	EventAgeExceeded        Condition = "EventAgeExceeded"
	ZeroReservedConcurrency Condition = "ZeroReservedConcurrency"
)

const millisecondFormat = "2006-01-02T15:04:05.000Z"

// Destination takes the record of an event that Lambda is done with. It may be
// called concurrently.
type Destination func(Record) error

// JSONLines is a destination that writes each record as one line.
func JSONLines(w io.Writer) Destination {
	var mu sync.Mutex
	return func(r Record) error {
		line, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encoding the record of %s: %w", r.RequestContext.RequestID, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if _, err := w.Write(append(line, '\n')); err != nil {
			return fmt.Errorf("writing the record of %s: %w", r.RequestContext.RequestID, err)
		}
		return nil
	}
}

func newRecord(fn *function, inv invocation, condition Condition, invoked int, last *Result) Record {
	r := Record{
		Version:   "1.0",
		Timestamp: time.Now().UTC().Format(millisecondFormat),
		RequestContext: RequestContext{
			RequestID:              inv.id,
			FunctionARN:            fn.arn + ":" + latest,
			Condition:              condition,
			ApproximateInvokeCount: invoked,
		},
		RequestPayload: inv.payload,
	}
	if last != nil {
		r.ResponseContext = &ResponseContext{StatusCode: http.StatusOK, ExecutedVersion: latest, FunctionError: last.FunctionError}
		r.ResponsePayload = asJSON(last.Payload)
	}
	return r
}

// asJSON makes a record of a response that is no JSON possible.
func asJSON(payload []byte) json.RawMessage {
	if json.Valid(payload) {
		return payload
	}
	text, err := json.Marshal(string(payload))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return text
}
