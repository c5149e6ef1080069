package rehearse

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	id      = "8a4bb6e1-6a53-4ac2-b9c5-52e3c0a40c42"
	cluster = "prod.example.com"
)

// answer is a response of AWS: a body, or an error if it has a code.
type answer struct{ code, body string }

// fakeAWS returns the answers of each operation in turn, then repeats the last one.
type fakeAWS struct {
	answers  map[string][]answer
	requests map[string][]map[string]any // by operation
}

func (w *fakeAWS) Do(r *http.Request) (*http.Response, error) {
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	w.requests[op] = append(w.requests[op], in)
	all := w.answers[op]
	if len(all) == 0 {
		return nil, fmt.Errorf("unexpected request %s", op)
	}
	a, status := all[min(len(w.requests[op]), len(all))-1], http.StatusOK
	if a.code != "" {
		status, a.body = http.StatusBadRequest, fmt.Sprintf(`{"__type": %q, "message": "denied"}`, a.code)
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		Body: io.NopCloser(bytes.NewBufferString(a.body)), Request: r}, nil
}

func newClient(answers map[string][]answer) (*Client, *fakeAWS) {
	w := &fakeAWS{answers: answers, requests: map[string][]map[string]any{}}
	return New(aws.Config{Region: "us-east-1", HTTPClient: w, Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: credentials.NewStaticCredentialsProvider("AKIDFAKE", "fake", "")}), w
}

func TestSend(t *testing.T) {
	s, w := newClient(map[string][]answer{"PutEvents": {{body: `{"FailedEntryCount": 0, "Entries": [{"EventId": "` + id + `"}]}`}}})
	got, err := s.Send(t.Context(), spot.Interruption{Kind: spot.SpotStop, Instance: "i-0a1b2c3d", Account: "123456789012", Region: "us-east-1"}, "default")
	if err != nil || got != id {
		t.Fatalf("got %q, %v", got, err)
	}
	want := map[string]any{"EventBusName": "default", "Source": "kops-spot.rehearsal", "DetailType": "EC2 Spot Instance Interruption Warning",
		"Resources": []any{"arn:aws:ec2:us-east-1:123456789012:instance/i-0a1b2c3d"}, "Detail": `{"instance-id":"i-0a1b2c3d","instance-action":"stop"}`}
	if entries := w.requests["PutEvents"][0]["Entries"]; !reflect.DeepEqual(entries, []any{want}) {
		t.Errorf("sent %v, want %v without a time", entries, want)
	}
	at := spot.Interruption{Kind: spot.SpotStop, Instance: "i-0a1b2c3d", Time: time.Unix(1700000000, 0)}
	if _, err := s.Send(t.Context(), at, "default"); err != nil || fmt.Sprint(w.requests["PutEvents"][1]["Entries"].([]any)[0].(map[string]any)["Time"]) != "1.7e+09" {
		t.Errorf("%v, sent %v, want the given time", err, w.requests["PutEvents"][1])
	}
}

func TestSendErrors(t *testing.T) {
	for name, c := range map[string]struct {
		kind   spot.Kind
		answer answer
		says   string
	}{
		"a kind that cannot be rehearsed": {spot.ScheduledChange, answer{}, "cannot rehearse the kind"},
		"no access to the bus":            {spot.SpotStop, answer{code: "AccessDeniedException"}, "sending the rehearsal to the event bus mine: "},
		"a rejected entry": {spot.SpotStop, answer{body: `{"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure", "ErrorMessage": "later"}]}`},
			"sending the rehearsal to the event bus mine: InternalFailure: later"},
		"no entries": {spot.SpotStop, answer{body: `{"FailedEntryCount": 0, "Entries": []}`}, "returned 0 entries for one event"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newClient(map[string][]answer{"PutEvents": {c.answer}})
			if got, err := s.Send(t.Context(), spot.Interruption{Kind: c.kind, Instance: "i-0a1b2c3d"}, "mine"); err == nil || got != "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q, %v; want an error with %q", got, err, c.says)
			}
		})
	}
}

// page returns a page of the log. next is the token of the next page.
func page(next string, lines ...string) answer {
	type event struct {
		EventID string `json:"eventId"`
		Message string `json:"message"`
	}
	out := struct {
		Events    []event `json:"events"`
		NextToken string  `json:"nextToken,omitempty"`
	}{NextToken: next}
	for _, l := range lines {
		out.Events = append(out.Events, event{l, l})
	}
	body, _ := json.Marshal(out) // cannot fail
	return answer{body: string(body)}
}

const (
	step    = `{"level":"INFO","msg":"cordoned node","event":"` + id + `","at":1.5}`
	evicted = `{"level":"INFO","msg":"evicted pod","event":"` + id + `","at":2,"pod":"shop/web"}`
	failed  = `{"level":"ERROR","msg":"handling failed","event":"` + id + `","error":"the cluster is closed"}`
	another = `{"level":"ERROR","msg":"handling failed","event":"another","error":"after ` + id + `"}`
	ended   = `{"level":"INFO","msg":"outcome","outcome":{"version":1,"result":"drained","event":{"id":"` + id + `"}}}`
	others  = `{"level":"INFO","msg":"outcome","outcome":{"version":1,"result":"expired","event":{"id":"another"}}}`
)

func TestFromLog(t *testing.T) {
	missing := answer{code: "ResourceNotFoundException"}
	for name, c := range map[string]struct {
		looks []answer
		steps []string
		says  string // of the error; empty: drained
		after time.Duration
	}{
		"immediately":                         {looks: []answer{page("", step, ended)}, steps: []string{"1.50 s: cordoned node"}},
		"each step once":                      {looks: []answer{page("", step), page("", step, evicted), page("", step, evicted, ended)}, steps: []string{"1.50 s: cordoned node", "2.00 s: evicted pod shop/web"}, after: 4 * time.Second},
		"on a later page":                     {looks: []answer{page("more", step), page("", ended)}, steps: []string{"1.50 s: cordoned node"}},
		"a log group that does not exist yet": {looks: []answer{missing, page("", ended)}, after: 2 * time.Second},
		"a line that is not JSON":             {looks: []answer{page("", "REPORT "+id, ended)}},
		"other events":                        {looks: []answer{page("", another, others), page("", ended)}, after: 2 * time.Second},
		"the function failed":                 {looks: []answer{page("", step), page("", failed)}, steps: []string{"1.50 s: cordoned node"}, says: "the function failed: the cluster is closed", after: 2 * time.Second},
		"no access to the log":                {looks: []answer{{code: "AccessDeniedException"}}, says: "reading the log group /l: "},
		"no lines":                            {looks: []answer{page("")}, says: "no outcome of the rehearsal was found in the log group /l", after: time.Minute},
		"no log group":                        {looks: []answer{missing}, says: "no outcome of the rehearsal was found in the log group /l", after: time.Minute},
		"only other events":                   {looks: []answer{page("", others)}, says: "no outcome of the rehearsal was found", after: time.Minute},
		"in the last moment":                  {looks: append(slices.Repeat([]answer{page("")}, 29), page("", ended)), after: 58 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, w := newClient(map[string][]answer{"FilterLogEvents": c.looks})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				since, began := time.Unix(1700000000, 0), time.Now()
				var steps []string
				out, err := s.FromLog(ctx, "/l", id, since, func(what string) { steps = append(steps, what) })
				switch {
				case c.says == "" && (err != nil || out.Result != spot.Drained),
					c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
					t.Errorf("got %v, %v; want %q", out.Result, err, c.says)
				}
				if !slices.Equal(steps, c.steps) {
					t.Errorf("steps %q, want %q", steps, c.steps)
				}
				if took := time.Since(began); took != c.after {
					t.Errorf("took %s, want %s", took, c.after)
				}
				in := w.requests["FilterLogEvents"][0]
				if in["logGroupName"] != "/l" || in["filterPattern"] != `"`+id+`"` || in["startTime"] != 1700000000e3 {
					t.Errorf("requested %v", in)
				}
			})
		})
	}
}

// TestFromLogInterrupted: an interruption by the user is not a missing outcome.
func TestFromLogInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newClient(map[string][]answer{"FilterLogEvents": {page("")}})
		stopped := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stopped)
		_, err := s.FromLog(ctx, "/l", id, time.Now(), nil)
		if !errors.Is(err, stopped) || errors.Is(err, ErrNoOutcome) || !strings.Contains(err.Error(), "the rehearsal continues") {
			t.Errorf("got %v", err)
		}
	})
}

func TestHasLog(t *testing.T) {
	for _, c := range []struct {
		answer answer
		there  bool
		says   string
	}{
		{answer: page(""), there: true},
		{answer: answer{code: "ResourceNotFoundException"}},
		{answer: answer{code: "AccessDeniedException"}, says: "reading the log group /l: "},
	} {
		s, _ := newClient(map[string][]answer{"FilterLogEvents": {c.answer}})
		there, err := s.HasLog(t.Context(), "/l")
		if there != c.there || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: got %v, %v", c, there, err)
		}
	}
}
