package lambda

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out waiting until " + what)
		}
	}
}

// TestContract compares the service with AWS's emulator and, where that has no such feature, with the Developer Guide.
func TestContract(t *testing.T) {
	folder := t.TempDir()
	build := exec.Command("go", "build", "-o", folder, "./testdata/bootstrap", "tool")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	bootstrap := filepath.Join(folder, "bootstrap")
	var log Log
	records := make(chan Record, 1)
	keep := func(r Record) error {
		records <- r
		return errors.New("disk full")
	}
	s, err := New(Options{RetryDelays: [2]time.Duration{1, 1}, Functions: []Function{{Name: "fn", Bootstrap: bootstrap,
		Timeout: 2 * time.Second, MemorySize: 256, Environment: map[string]string{"COLOUR": "blue"}, Logs: &log,
		Async: AsyncConfig{MaximumRetryAttempts: new(1), OnSuccess: keep, OnFailure: keep}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	invoke := func(typ InvocationType, payload string) Result {
		res, err := s.Invoke(t.Context(), "fn", typ, []byte(payload))
		if err != nil {
			t.Errorf("%s: %v", payload, err)
		}
		return res
	}
	t.Run("emulator", func(t *testing.T) {
		testEmulator(t, bootstrap, filepath.Join(folder, "aws-lambda-rie"), invoke)
	})

	t.Run("log", func(t *testing.T) {
		before := len(log.String())
		id := invoke(RequestResponse, `{"do":"exit"}`).RequestID
		want := regexp.MustCompile(`^START RequestId: ID Version: \$LATEST\nno newline\nEND RequestId: ID\n` +
			`REPORT RequestId: ID\tDuration: [0-9]+\.[0-9]{2} ms\tBilled Duration: [0-9]+ ms\tMemory Size: 256 MB\t` +
			`Max Memory Used: [0-9]+ MB\t\nRequestId: ID Error: Runtime exited with error: exit status 3\n$`)
		if said := strings.ReplaceAll(log.String()[before:], id, "ID"); !want.MatchString(said) {
			t.Errorf("got %q", said)
		}
	})

	// Events end with the record in the Developer Guide.
	for payload, want := range map[string]string{
		`{"do":"error"}`: `"condition":"RetriesExhausted","approximateInvokeCount":2},"requestPayload":{"do":"error"},` +
			`"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},` +
			`"responsePayload":{"errorMessage":"it did not work","errorType":"errorString"}}`,
		`{"an":"echo"}`: `"condition":"Success","approximateInvokeCount":1},"requestPayload":{"an":"echo"},` +
			`"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":{"an":"echo"}}`,
	} {
		id := invoke(Event, payload).RequestID
		r := <-records
		if _, err := time.Parse(time.RFC3339, r.Timestamp); err != nil {
			t.Error(err)
		}
		r.Timestamp = ""
		want = `{"version":"1.0","timestamp":"","requestContext":{"requestId":"` + id + `",` +
			`"functionArn":"arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST",` + want
		if got := string(encode(r)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if err := s.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "DestinationDeliveryFailures RequestId: "+id+" Error: disk full\n") {
			t.Errorf("the log does not show the failed destination: %s", log.String())
		}
	}

	t.Run("throttling", func(t *testing.T) { testThrottling(t, bootstrap) })

	// An environment handles one invocation at a time and is frozen in between. A killed one is not used again.
	identify := func() (who struct{ PID, Count, Ticks int }) {
		if err := json.Unmarshal(invoke(RequestResponse, `{"do":"identify"}`).Payload, &who); err != nil {
			t.Error(err)
		}
		return who
	}
	first := identify()
	time.Sleep(300 * time.Millisecond)
	if again := identify(); again.PID != first.PID || again.Count != first.Count+1 || again.Ticks > first.Ticks+100 {
		t.Errorf("after 300 ms between two invocations %+v is %+v", first, again)
	}
	slept := make(chan Result)
	before := log.String()
	go func() { slept <- invoke(RequestResponse, `{"do":"sleep"}`) }()
	eventually(t, "it sleeps", func() bool { return strings.Contains(log.String()[len(before):], "\nsleeping\n") })
	second := identify()
	s.KillAll()
	if res := <-slept; !strings.Contains(string(res.Payload), "signal: killed") || res.FunctionError == "" {
		t.Errorf("the killed invocation returned %s", res.Payload)
	}
	third := identify()
	if second.Count != 1 || third.Count != 1 || third.PID == second.PID {
		t.Errorf("during another invocation: %+v, after the loss of both: %+v", second, third)
	}
	s.Close()
	for _, pid := range []int{first.PID, second.PID, third.PID} {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d still exists", pid)
		}
	}
}

// testThrottling: the queue accepts an event beyond the limit and tries it again after 1 s, and then after 2 s. These
// attempts do not count.
func testThrottling(t *testing.T, bootstrap string) {
	var log Log
	records := make(chan Record, 2)
	keep := func(r Record) error {
		records <- r
		return nil
	}
	s, err := New(Options{Concurrency: 1, Functions: []Function{{Name: "fn", Bootstrap: bootstrap, Logs: &log,
		Timeout: 1900 * time.Millisecond,
		Async:   AsyncConfig{MaximumRetryAttempts: new(0), OnSuccess: keep, OnFailure: keep}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Invoke(t.Context(), "fn", Event, []byte(`{"do":"sleep"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it sleeps", func() bool { return strings.Contains(log.String(), "sleeping\n") })
	sent := time.Now()
	if _, err := s.Invoke(t.Context(), "fn", Event, []byte(`{"an":"echo"}`)); err != nil {
		t.Errorf("the queue refused an event: %v", err)
	}
	var refusal *Error
	if _, err := s.Invoke(t.Context(), "fn", RequestResponse, nil); !errors.As(err, &refusal) ||
		refusal.StatusCode != 429 || refusal.Code != "TooManyRequestsException" {
		t.Errorf("a synchronous invocation beyond the limit: %v", err)
	}
	if r := <-records; r.ResponseContext.FunctionError == "" {
		t.Errorf("the first to end is %+v", r)
	}
	r := <-records
	if r.RequestContext.Condition != Success || r.RequestContext.ApproximateInvokeCount != 1 {
		t.Errorf("the throttled event: %+v", r.RequestContext)
	}
	if after := time.Since(sent); after < 3*time.Second {
		t.Errorf("the throttled event was handled after %s", after)
	}
	if _, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`{"an":"echo"}`)); err != nil {
		t.Errorf("no slot is free at the end: %v", err)
	}
}

// testEmulator invokes the function in AWS's emulator and in the service.
func testEmulator(t *testing.T, bootstrap, emulator string, invoke func(InvocationType, string) Result) {
	addresses := make([]string, 2)
	for i := range addresses {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addresses[i] = free.Addr().String()
		free.Close()
	}
	cmd := exec.Command(emulator, "--log-level", "panic", "--runtime-interface-emulator-address", addresses[0],
		"--runtime-api-address", addresses[1], bootstrap)
	cmd.Env = []string{"AWS_LAMBDA_FUNCTION_NAME=fn", "AWS_LAMBDA_FUNCTION_TIMEOUT=2", "COLOUR=blue",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=testing"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
	}()
	theirs := func(payload string) (answer string) {
		url := "http://" + addresses[0] + "/2015-03-31/functions/function/invocations"
		eventually(t, "the emulator answers", func() bool {
			res, err := http.Post(url, "application/json", strings.NewReader(payload))
			if err != nil {
				return false
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			answer = string(body)
			return err == nil
		})
		return answer
	}
	for _, step := range []struct {
		payload string
		fails   bool
		want    []string // expressions that match both responses
	}{
		{`{"an": "echo"}`, false, []string{`^{"an":"echo"}$`}},
		{`{"do":"error"}`, true, []string{`^{"errorMessage":"it did not work","errorType":"errorString"}$`}},
		{`{"do":"identify"}`, false, []string{`"arn:aws:lambda:us-east-1:[0-9]{12}:function:fn","count":3,.*"seconds":2`}},
		{`{"do":"environment"}`, false, []string{`"AWS_LAMBDA_FUNCTION_NAME=fn"`,
			`"AWS_LAMBDA_FUNCTION_VERSION=\$LATEST"`,
			`"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256"`, `"AWS_REGION=us-east-1"`, `"AWS_ACCESS_KEY_ID=testing"`,
			`"COLOUR=blue"`}},
		{`{"do":"exit"}`, true, []string{`"errorType":"Runtime.ExitError"`,
			`"errorMessage":"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: exit status 3"`}},
		{`{"do":"identify"}`, false, []string{`"count":1,`}}, // in another process
		{`{"do":"sleep"}`, true, []string{`Task timed out after 2.00 seconds`}},
		{`{"do":"identify"}`, false, []string{`"count":1,`}},
	} {
		res, answer := invoke(RequestResponse, step.payload), theirs(step.payload)
		if (res.FunctionError == "Unhandled") != step.fails {
			t.Errorf("%s: the function error is %q", step.payload, res.FunctionError)
		}
		for _, want := range step.want {
			if want := regexp.MustCompile(want); !want.MatchString(answer) || !want.Match(res.Payload) {
				t.Errorf("%s: want %s; the emulator: %s, the service: %s", step.payload, want, answer, res.Payload)
			}
		}
	}
}
