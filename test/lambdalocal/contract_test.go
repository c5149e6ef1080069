package lambdalocal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var bootstrap, emulator string

// TestMain builds the function that the tests invoke, and AWS's emulator.
func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "lambdalocal")
	if err != nil {
		panic(err)
	}
	bootstrap, emulator = filepath.Join(folder, "bootstrap"), filepath.Join(folder, "aws-lambda-rie")
	build := exec.Command("go", "build", "-o", folder, "./testdata/bootstrap", "tool")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("still not so: " + what)
		}
	}
}

// service serves the function "fn".
func service(t *testing.T, fn Function) *Service {
	t.Helper()
	fn.Name, fn.Bootstrap = "fn", bootstrap
	short := Delays{Retries: [2]time.Duration{time.Millisecond, time.Millisecond}, ThrottleMin: time.Millisecond}
	s, err := New(Options{Functions: []Function{fn}, Delays: short})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func invoke(t *testing.T, s *Service, typ InvocationType, payload string) Result {
	t.Helper()
	res, err := s.Invoke(t.Context(), "fn", typ, []byte(payload))
	if err != nil {
		t.Errorf("%s: %v", payload, err)
	}
	return res
}

func drain(t *testing.T, s *Service) {
	t.Helper()
	if err := s.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestAWSEmulatorAnswersTheSame is the contract with the real thing, as far as the emulator goes.
func TestAWSEmulatorAnswersTheSame(t *testing.T) {
	s := service(t, Function{Timeout: 2 * time.Second, MemorySize: 256, Environment: map[string]string{"COLOUR": "blue"}})
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
	const exited = `"errorMessage":"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: exit status 3"`
	for _, step := range []struct {
		payload string
		fails   bool
		want    string // expression that both answers match
	}{
		{`{"an": "echo"}`, false, `^{"an":"echo"}$`},
		{`{"do":"error"}`, true, `^{"errorMessage":"it did not work","errorType":"errorString"}$`},
		{`{"do":"identify"}`, false, `"arn:aws:lambda:us-east-1:[0-9]{12}:function:fn","count":3,.*"seconds":2}`},
		{`{"do":"environment"}`, false, `"AWS_LAMBDA_FUNCTION_NAME=fn"`},
		{`{"do":"environment"}`, false, `"AWS_LAMBDA_FUNCTION_VERSION=\$LATEST"`},
		{`{"do":"environment"}`, false, `"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256"`},
		{`{"do":"environment"}`, false, `"AWS_REGION=us-east-1"`},
		{`{"do":"environment"}`, false, `"AWS_ACCESS_KEY_ID=testing"`},
		{`{"do":"environment"}`, false, `"COLOUR=blue"`},
		{`{"do":"exit"}`, true, exited},
		{`{"do":"exit"}`, true, `"errorType":"Runtime.ExitError"`},
		{`{"do":"identify"}`, false, `"count":1,`}, // by another process
		{`{"do":"sleep","ms":60000}`, true, `Task timed out after 2.00 seconds`},
		{`{"do":"identify"}`, false, `"count":1,`},
	} {
		res := invoke(t, s, RequestResponse, step.payload)
		if (res.FunctionError == "Unhandled") != step.fails {
			t.Errorf("%s: the function error is %q", step.payload, res.FunctionError)
		}
		want := regexp.MustCompile(step.want)
		if answer := theirs(step.payload); !want.MatchString(answer) || !want.Match(res.Payload) {
			t.Errorf("%s: want %s; the emulator: %s, the service: %s", step.payload, want, answer, res.Payload)
		}
	}
}

// TestEnvironments: each has one invocation at a time and stands still between two; a killed one is not used again.
func TestEnvironments(t *testing.T) {
	var log buffer
	s := service(t, Function{ReservedConcurrency: new(2), Timeout: time.Minute, Logs: &log})
	identify := func() (who struct{ PID, Count int }) {
		if err := json.Unmarshal(invoke(t, s, RequestResponse, `{"do":"identify"}`).Payload, &who); err != nil {
			t.Error(err)
		}
		return who
	}
	slept := make(chan Result, 2)
	sleep := func() { slept <- invoke(t, s, RequestResponse, `{"do":"sleep","ms":60000}`) }
	sleeping := func(n int) {
		t.Helper()
		eventually(t, "they sleep", func() bool { return strings.Count(log.String(), "\nsleeping\n") == n })
	}
	first := identify()
	go sleep()
	sleeping(1)
	second := identify()
	if first.Count != 1 || second.Count != 1 {
		t.Errorf("two invocations at once by %v and %v", first, second)
	}
	invoke(t, s, RequestResponse, `{"do":"tick"}`)
	time.Sleep(200 * time.Millisecond)
	if ticks := invoke(t, s, RequestResponse, `{"do":"ticks"}`).Payload; len(ticks) > 2 {
		t.Errorf("%s ms have passed in an environment between invocations", ticks)
	}
	if warm := identify(); warm.PID != second.PID || warm.Count != 4 {
		t.Errorf("the fourth invocation of %v by %v", second, warm)
	}
	go sleep()
	sleeping(2)
	var refused *Error
	if _, err := s.Invoke(t.Context(), "fn", "", nil); !errors.As(err, &refused) || refused.StatusCode != 429 {
		t.Errorf("a third invocation of two: %v", err)
	}
	s.KillAll()
	for range 2 {
		if res := <-slept; !strings.Contains(string(res.Payload), "signal: killed") || res.FunctionError == "" {
			t.Errorf("its host was lost: %s", res.Payload)
		}
	}
	third := identify()
	s.KillAll()
	fourth := identify()
	if third.Count != 1 || fourth.Count != 1 {
		t.Errorf("after the loss of all: %v, %v", third, fourth)
	}
	s.Close()
	for _, pid := range []int{first.PID, second.PID, third.PID, fourth.PID} {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	if _, err := s.Invoke(t.Context(), "fn", Event, nil); !errors.As(err, &refused) || refused.StatusCode != 500 {
		t.Errorf("the service is closed: %v", err)
	}
}

// TestLog: what a function prints stands between its START and END, in whole lines.
func TestLog(t *testing.T) {
	var log buffer
	s := service(t, Function{Logs: &log, MemorySize: 256})
	id := invoke(t, s, RequestResponse, `{"do":"print","text":"one\ntwo"}`).RequestID
	s.Close()
	want := regexp.MustCompile(`^START RequestId: ID Version: \$LATEST\none\ntwo\nEND RequestId: ID\n` +
		`REPORT RequestId: ID\tDuration: [0-9]+\.[0-9]{2} ms\tBilled Duration: [0-9]+ ms\tMemory Size: 256 MB\t` +
		`Max Memory Used: [1-9][0-9]* MB\tInit Duration: [0-9]+\.[0-9]{2} ms\t\n$`)
	if said := strings.ReplaceAll(log.String(), id, "ID"); !want.MatchString(said) {
		t.Errorf("got %q", said)
	}
}

// TestEvents: those that fail, or find no slot, are tried again, and each ends with a record.
func TestEvents(t *testing.T) {
	var log buffer
	records := make(chan Record, 3)
	keep := func(r Record) error {
		records <- r
		return errors.New("disk full")
	}
	s := service(t, Function{ReservedConcurrency: new(1), Timeout: time.Minute, Logs: &log,
		Async: AsyncConfig{MaximumRetryAttempts: new(1), OnSuccess: keep, OnFailure: keep}})
	for payload, want := range map[string]string{
		`{"do":"error"}`: `"condition":"RetriesExhausted","approximateInvokeCount":2},"requestPayload":PAYLOAD,` +
			`"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},` +
			`"responsePayload":{"errorMessage":"it did not work","errorType":"errorString"}}`,
		fmt.Sprintf(`{"do":"twice","path":%q}`, filepath.Join(t.TempDir(), "first")): `"condition":"Success",` +
			`"approximateInvokeCount":2},"requestPayload":PAYLOAD,` +
			`"responseContext":{"statusCode":200,"executedVersion":"$LATEST"},"responsePayload":"ID ID"}`,
	} {
		id := invoke(t, s, Event, payload).RequestID
		drain(t, s)
		r := <-records
		if _, err := time.Parse(time.RFC3339, r.Timestamp); err != nil {
			t.Error(err)
		}
		r.Timestamp = ""
		got := strings.ReplaceAll(string(encode(r)), id, "ID")
		want = `{"version":"1.0","timestamp":"","requestContext":{"requestId":"ID",` +
			`"functionArn":"arn:aws:lambda:us-east-1:123456789012:function:fn:$LATEST",` + want
		if want = strings.Replace(want, "PAYLOAD", payload, 1); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if !strings.Contains(log.String(), "DestinationDeliveryFailures RequestId: "+id+" Error: disk full\n") {
			t.Errorf("that a destination failed is not in the log: %s", log.String())
		}
	}

	invoke(t, s, Event, `{"do":"sleep","ms":300}`)
	eventually(t, "it sleeps", func() bool { return strings.Contains(log.String(), "\nsleeping\n") })
	s.KillAll()
	invoke(t, s, Event, `{"without":"a slot"}`)
	drain(t, s)
	tries := map[string]int{}
	for range 2 {
		r := <-records
		tries[string(r.ResponsePayload)] = r.RequestContext.ApproximateInvokeCount
	}
	if tries[`"slept"`] != 2 || tries[`{"without":"a slot"}`] != 1 {
		t.Errorf("the tries that count are %v", tries)
	}
}

// TestDelays between the tries of an event are those of the Developer Guide.
func TestDelays(t *testing.T) {
	for _, c := range []struct {
		tries     string // f fails, t is throttled, s succeeds; the last goes on
		retries   int
		age       int // in seconds, as those that follow
		at        []int
		condition Condition
		ended     int
	}{
		{"f", 2, 21600, []int{0, 60, 180}, RetriesExhausted, 180},
		{"f", 1, 21600, []int{0, 60}, RetriesExhausted, 60},
		{"ttttttttttts", 2, 21600, []int{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 811, 1111}, Success, 1111},
		{"ttfttff", 2, 21600, []int{0, 1, 3, 63, 64, 66, 186}, RetriesExhausted, 186},
		{"t", 2, 20, []int{0, 1, 3, 7, 15}, EventAgeExceeded, 20},
		{"f", 2, 90, []int{0, 60}, EventAgeExceeded, 90},
	} {
		synctest.Test(t, func(t *testing.T) {
			fn := &function{Function: Function{Async: AsyncConfig{
				MaximumRetryAttempts: &c.retries, MaximumEventAge: time.Duration(c.age) * time.Second}}}
			began := time.Now()
			seconds := func() int { return int(time.Since(began) / time.Second) }
			var at []int
			record, err := Delays{}.withDefaults().process(t.Context(), fn, invocation{}, func() (Result, error) {
				at = append(at, seconds())
				switch c.tries[min(len(at), len(c.tries))-1] {
				case 'f':
					return Result{FunctionError: "Unhandled"}, nil
				case 't':
					return Result{}, &Error{StatusCode: 429}
				}
				return Result{}, nil
			})
			got := record.RequestContext.Condition
			if err != nil || !slices.Equal(at, c.at) || got != c.condition || seconds() != c.ended {
				t.Errorf("%s: tried at %v and %s at %d, %v; want %+v", c.tries, at, got, seconds(), err, c)
			}
		})
	}
}
