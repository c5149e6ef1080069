package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/uuid"
)

// InvocationType says whether the caller waits for the function.
type InvocationType string

// The supported invocation types.
const (
	RequestResponse InvocationType = "RequestResponse"
	Event           InvocationType = "Event"
)

const latest = "$LATEST"

// Result is the response of Invoke. For Event, it has only a request ID.
type Result struct {
	RequestID     string
	FunctionError string // "Unhandled" for every error, as Lambda answers for provided runtimes
	Payload       []byte
	Report        Report
}

// Report has the values of the REPORT line.
type Report struct {
	Duration      time.Duration
	InitDuration  time.Duration // zero if the environment was warm
	MaxMemoryUsed int           // in MB
}

// Error is an error of the Invoke API: the function did not run. An error of the function is a Result with
// FunctionError set.
type Error struct {
	StatusCode int
	Code       string // AWS's name of the exception
	Message    string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

var (
	errClosed    = &Error{500, "ServiceException", "the service is closed"}
	errThrottled = &Error{429, "TooManyRequestsException", "Rate Exceeded."}
)

// invocation is one attempt at running a function.
type invocation struct {
	id, arn  string
	payload  []byte
	deadline time.Time
	answered chan answer
}

// answer is the runtime's response or error.
type answer struct {
	payload []byte
	failed  bool
}

// Invoke is the Invoke API for a function's name or ARN. Its own errors are of type *Error. The function keeps running
// when ctx ends, as it does when a caller of AWS disconnects.
func (s *Service) Invoke(ctx context.Context, function string, typ InvocationType, payload []byte) (Result, error) {
	fn := s.functions[NameOf(function)]
	if fn == nil {
		return Result{}, &Error{404, "ResourceNotFoundException", "Function not found: " + function}
	}
	inv := invocation{id: string(uuid.NewUUID()), arn: fn.arn, payload: payload}
	if typ != Event {
		return s.attempt(ctx, fn, inv)
	}
	if err := s.enqueue(fn, inv); err != nil {
		return Result{}, err
	}
	return Result{RequestID: inv.id}, nil
}

// NameOf returns the name in a function name, partial ARN or ARN, with or without a qualifier.
func NameOf(function string) string {
	if _, after, found := strings.Cut(function, "function:"); found {
		function = after
	}
	name, _, _ := strings.Cut(function, ":")
	return name
}

// ServeHTTP serves AWS's Invoke API. It does not check signatures.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, found := strings.CutPrefix(r.URL.Path, "/2015-03-31/functions/")
	name, ends := strings.CutSuffix(name, "/invocations")
	payload, err := io.ReadAll(r.Body)
	if !found || !ends || err != nil {
		http.Error(w, "only Invoke is served here", http.StatusBadRequest)
		return
	}
	typ := InvocationType(r.Header.Get("X-Amz-Invocation-Type"))
	result, err := s.Invoke(r.Context(), name, typ, payload)
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		var refusal *Error
		if !errors.As(err, &refusal) {
			refusal = &Error{500, "ServiceException", err.Error()}
		}
		w.Header().Set("X-Amzn-ErrorType", refusal.Code)
		w.WriteHeader(refusal.StatusCode)
		w.Write(encode(map[string]string{"message": refusal.Message,
			"Message": refusal.Message})) // the key depends on the exception
		return
	}
	w.Header().Set("X-Amzn-RequestId", result.RequestID)
	if result.FunctionError != "" {
		w.Header().Set("X-Amz-Function-Error", result.FunctionError)
	}
	if typ == Event {
		w.WriteHeader(http.StatusAccepted)
	}
	w.Write(result.Payload)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// attempt runs the function once.
func (s *Service) attempt(ctx context.Context, fn *function, inv invocation) (Result, error) {
	if err := s.admit(); err != nil {
		return Result{}, err
	}
	type outcome struct {
		result Result
		err    error
	}
	done := make(chan outcome, 1)
	inv.answered = make(chan answer, 1)
	go func() {
		result, err := s.execute(fn, &inv)
		s.leave()
		done <- outcome{result, err}
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("waiting for function %s: %w", fn.Name, ctx.Err())
	}
}

// execute runs an accepted invocation in a warm or new environment. Like Lambda, it freezes the environment afterwards
// until the next one: background work stops, and open connections may break.
func (s *Service) execute(fn *function, inv *invocation) (Result, error) {
	began := time.Now()
	var report Report
	var fail *failure
	e := s.reuse(fn)
	if e == nil {
		var err error
		if e, err = s.start(fn); err != nil {
			return Result{}, fmt.Errorf("starting an environment of %s: %w", fn.Name, err)
		}
		fail = e.await(began.Add(fn.Timeout), fn.Timeout)
		report.InitDuration = time.Since(began)
		began = time.Now()
	} else {
		e.signal(syscall.SIGCONT)
	}
	e.output.platform(fmt.Sprintf("START RequestId: %s Version: %s\n", inv.id, latest))
	inv.deadline = began.Add(fn.Timeout)
	if fail == nil {
		fail = e.serve(inv, fn.Timeout)
	}
	report.Duration, report.MaxMemoryUsed = time.Since(began), e.peakMemory()
	if fail == nil {
		e.signal(syscall.SIGSTOP)
	} else {
		s.discard(e)
	}
	e.output.platform(report.text(inv.id, fn.MemorySize, fail))
	if fail == nil {
		s.park(fn, e)
	}

	result := Result{RequestID: inv.id, Report: report}
	select {
	case a := <-inv.answered: // it counts even if the process failed afterwards
		result.Payload = a.payload
		if a.failed {
			result.FunctionError = "Unhandled"
		}
	default:
		result.FunctionError = "Unhandled"
		result.Payload = encode(map[string]string{"errorType": fail.errorType,
			"errorMessage": fmt.Sprintf("RequestId: %s Error: %s", inv.id, fail.message)})
	}
	return result, nil
}
