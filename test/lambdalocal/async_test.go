package lambdalocal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// records keeps what the two destinations got.
type records struct {
	mu                 sync.Mutex
	successes, failure []Record
}

func (r *records) to(list *[]Record) Destination {
	return func(record Record) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		*list = append(*list, record)
		return nil
	}
}

func asyncService(t *testing.T, change func(*Options, *Function)) (*Service, *records) {
	t.Helper()
	r := &records{}
	return testService(t, func(o *Options, f *Function) {
		f.Async.OnSuccess = r.to(&r.successes)
		f.Async.OnFailure = r.to(&r.failure)
		if change != nil {
			change(o, f)
		}
	}), r
}

// line is the record as JSON, with its id and time replaced.
func line(t *testing.T, r Record) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(b), r.RequestContext.RequestID, "ID")
	return regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`).ReplaceAllString(text, "TIME")
}

func only(t *testing.T, what string, list, others []Record) Record {
	t.Helper()
	if len(list) != 1 || len(others) != 0 {
		t.Fatalf("not one %s record alone: %v and %v", what, list, others)
	}
	return list[0]
}

func TestEventSucceeds(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, nil)
	id := enqueue(t, s, `{"a":1}`)
	drain(t, s)
	record := only(t, "success", got.successes, got.failure)
	equal(t, "request id", record.RequestContext.RequestID, id)
	equal(t, "record", line(t, record), `{"version":"1.0","timestamp":"TIME",`+
		`"requestContext":{"requestId":"ID","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST","condition":"Success","approximateInvokeCount":1},`+
		`"requestPayload":{"a":1},"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"a":1}}`)
}

func TestEventRetriesExhausted(t *testing.T) {
	t.Parallel()
	for _, retries := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(retries), func(t *testing.T) {
			t.Parallel()
			s, got := asyncService(t, func(_ *Options, f *Function) { f.Async.MaximumRetryAttempts = new(retries) })
			path := filepath.Join(t.TempDir(), "tries")
			payload := fmt.Sprintf(`{"do":"flaky","failures":9,"path":%q}`, path)
			id := enqueue(t, s, payload)
			drain(t, s)
			equal(t, "record", line(t, only(t, "failure", got.failure, got.successes)), fmt.Sprintf(`{"version":"1.0","timestamp":"TIME",`+
				`"requestContext":{"requestId":"ID","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST","condition":"RetriesExhausted","approximateInvokeCount":%d},`+
				`"requestPayload":%s,"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},`+
				`"responsePayload":{"errorMessage":"not yet","errorType":"Some.Error"}}`, retries+1, payload))
			tries, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "request ids", string(tries), strings.Repeat(id+"\n", retries+1))
		})
	}
}

func TestEventSucceedsAtItsLastTry(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, nil)
	enqueue(t, s, fmt.Sprintf(`{"do":"flaky","failures":2,"path":%q}`, filepath.Join(t.TempDir(), "tries")))
	drain(t, s)
	record := only(t, "success", got.successes, got.failure)
	equal(t, "invocations", record.RequestContext.ApproximateInvokeCount, 3)
	equal(t, "response", string(record.ResponsePayload), `"at last"`)
}

func TestEventSurvivesTheLossOfItsEnvironment(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, nil)
	invoke(t, s, `1`)
	env := s.onlyEnvironment(t)
	enqueue(t, s, `{"do":"sleep","ms":200}`)
	eventually(t, "the event is being worked on", func() bool { return current(env) != nil })
	s.KillAll()
	drain(t, s)
	record := only(t, "success", got.successes, got.failure)
	equal(t, "invocations", record.RequestContext.ApproximateInvokeCount, 2)
	equal(t, "response", string(record.ResponsePayload), `"slept"`)
}

func TestThrottledEventsWait(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, func(_ *Options, f *Function) {
		f.ReservedConcurrency = new(1)
		f.Async.MaximumRetryAttempts = new(0)
	})
	for range 5 {
		enqueue(t, s, `{"do":"sleep","ms":30}`)
	}
	drain(t, s)
	equal(t, "successes", len(got.successes), 5)
	equal(t, "failures", len(got.failure), 0)
	equal(t, "environments", s.environmentCount(), 1)
}

func TestEventExpiresWhileThrottled(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, func(_ *Options, f *Function) {
		f.ReservedConcurrency = new(1)
		f.Async.MaximumEventAge = 50 * time.Millisecond
	})
	done := make(chan Result)
	go func() {
		r, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`{"do":"sleep","ms":400}`))
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	eventually(t, "the concurrency is used up", func() bool { return s.environmentCount() == 1 })
	enqueue(t, s, `{"a":1}`)
	drain(t, s)
	equal(t, "record", line(t, only(t, "failure", got.failure, got.successes)), `{"version":"1.0","timestamp":"TIME",`+
		`"requestContext":{"requestId":"ID","functionArn":"arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST","condition":"EventAgeExceeded","approximateInvokeCount":0},`+
		`"requestPayload":{"a":1}}`)
	equal(t, "the other invocation", string((<-done).Payload), `"slept"`)
}

func TestResponseThatIsNoJSONInARecord(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, nil)
	enqueue(t, s, `{"do":"text","text":"say \"hello\""}`)
	drain(t, s)
	equal(t, "response", string(only(t, "success", got.successes, got.failure).ResponsePayload), `"say \"hello\""`)
}

func TestJSONLines(t *testing.T) {
	t.Parallel()
	var out buffer
	s := testService(t, func(_ *Options, f *Function) { f.Async.OnSuccess = JSONLines(&out) })
	want := map[string]string{}
	for i := range 3 {
		payload := fmt.Sprintf(`{"n":%d}`, i)
		want[enqueue(t, s, payload)] = payload
	}
	drain(t, s)
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) != 4 || lines[3] != "" {
		t.Fatalf("not three lines: %q", lines)
	}
	for _, text := range lines[:3] {
		var r Record
		decode(t, []byte(text), &r)
		equal(t, "payload of "+r.RequestContext.RequestID, string(r.RequestPayload), want[r.RequestContext.RequestID])
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestFailedDeliveryIsInTheLog(t *testing.T) {
	t.Parallel()
	var log buffer
	s := testService(t, func(_ *Options, f *Function) {
		f.Logs = &log
		f.Async.OnSuccess = JSONLines(brokenWriter{})
	})
	id := enqueue(t, s, `1`)
	drain(t, s)
	if want := "DestinationDeliveryFailures RequestId: " + id + " Error: writing the record of " + id + ": disk full\n"; !strings.Contains(log.String(), want) {
		t.Errorf("%q is not in %q", want, log.String())
	}
}

func TestDrainGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("nothing to wait for: %v", err)
	}
	enqueue(t, s, `{"do":"sleep","ms":60000}`)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 asynchronous events") {
		t.Errorf("got %v", err)
	}
}

func TestCloseForgetsQueuedEvents(t *testing.T) {
	t.Parallel()
	s, got := asyncService(t, func(o *Options, _ *Function) { o.Delays.Retries[0] = time.Hour })
	enqueue(t, s, `{"do":"error"}`)
	invoke(t, s, `1`)
	s.Close()
	drain(t, s)
	equal(t, "records", len(got.successes)+len(got.failure), 0)
}

// Functions that share a log, and environments of one function, do not mix their
// lines.
func TestLogLinesStayWhole(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer // the service alone must keep writers apart
	s := testService(t, func(o *Options, f *Function) {
		f.Logs = &log
		other := *f
		other.Name = "other"
		o.Functions = []Function{other}
	})
	text := strings.Repeat("z", 3000)
	for _, name := range []string{"fn", "other"} {
		for range 5 {
			if _, err := s.Invoke(t.Context(), name, Event, []byte(`{"do":"print","text":"`+text+`\n"}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	drain(t, s)
	s.Close()
	known := regexp.MustCompile(`^(initialising |to stdout|to stderr|z+|(START|END|REPORT) RequestId: [0-9a-f-]{36}\b.*|)$`)
	counts := map[string]int{}
	for _, l := range strings.Split(log.String(), "\n") {
		if !known.MatchString(l) {
			t.Errorf("line %q", l)
		}
		word, _, _ := strings.Cut(l, " ")
		counts[word]++
	}
	for _, word := range []string{"START", "END", "REPORT", text} {
		equal(t, "lines of "+word[:3], counts[word], 10)
	}
}
