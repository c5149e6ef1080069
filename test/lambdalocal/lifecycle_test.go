package lambdalocal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestWarmReuse(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	cold := invoke(t, s, `1`)
	first := identify(t, s)
	invoke(t, s, `{"do":"error"}`) // an error of the function does not cost the environment
	warm := invoke(t, s, `1`)
	second := identify(t, s)
	equal(t, "process", second.PID, first.PID)
	equal(t, "invocations", second.Count, first.Count+3)
	if cold.Report.InitDuration <= 0 || !strings.Contains(string(cold.LogTail), "\tInit Duration: ") {
		t.Errorf("cold: %+v\n%s", cold.Report, cold.LogTail)
	}
	if warm.Report.InitDuration != 0 || strings.Contains(string(warm.LogTail), "Init Duration") {
		t.Errorf("warm: %+v\n%s", warm.Report, warm.LogTail)
	}
	if warm.Report.MaxMemoryUsed < 1 || warm.Report.Duration <= 0 {
		t.Errorf("report: %+v", warm.Report)
	}
}

func TestConcurrentInvocationsGetEnvironmentsOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if _, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`{"do":"sleep","ms":300}`)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	equal(t, "environments", s.environmentCount(), 3)
	invoke(t, s, `1`)
	equal(t, "environments after one more invocation", s.environmentCount(), 3)
}

func TestFrozenBetweenInvocations(t *testing.T) {
	t.Parallel()
	// Before the service, so that it is removed after the process is gone.
	path := filepath.Join(t.TempDir(), "ticks")
	s := testService(t, nil)
	size := func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	invoke(t, s, fmt.Sprintf(`{"do":"background","path":%q}`, path))
	pid := s.onlyEnvironment(t).process.cmd.Process.Pid
	eventually(t, "the process is stopped", func() bool { return stateOf(t, pid) == "T" })
	before := size()
	time.Sleep(50 * time.Millisecond)
	equal(t, "size while frozen", size(), before)
	invoke(t, s, `{"do":"sleep","ms":50}`)
	if size() <= before {
		t.Error("the background work did not go on with the next invocation")
	}
}

func stateOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest[:1]
}

// A failed invocation tells its reason in the payload and in the log, and its
// environment is not used again.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		payload string
		want    string // payload, ID for the request id
		log     string // expression for what stands in the log after START
	}{
		"exit": {`{"do":"exit"}`, `{"errorMessage":"RequestId: ID Error: Runtime exited with error: exit status 3","errorType":"Runtime.ExitError"}`,
			"no newline\nEND RequestId: ID\nREPORT RequestId: ID\tDuration: .* MB\t(Init Duration: .* ms\t)?Status: error\tError Type: Runtime.ExitError\n" +
				"RequestId: ID Error: Runtime exited with error: exit status 3\nRuntime.ExitError\n$"},
		"exit 0": {`{"do":"exit-0"}`, `{"errorMessage":"RequestId: ID Error: Runtime exited without providing a reason","errorType":"Runtime.ExitError"}`,
			"Status: error\tError Type: Runtime.ExitError\nRequestId: ID Error: Runtime exited without providing a reason\nRuntime.ExitError\n$"},
		"panic": {`{"do":"panic"}`, `{"errorMessage":"oh no","errorType":"runtime.Panic"}`,
			"panic: oh no\nEND .*\nREPORT .*Runtime.ExitError\nRequestId: ID Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n$"},
		"timeout": {`{"do":"sleep","ms":60000}`, `{"errorMessage":"RequestId: ID Error: Task timed out after 0.25 seconds","errorType":"Sandbox.Timedout"}`,
			"END RequestId: ID\nREPORT RequestId: ID\tDuration: 2[5-9][0-9]\\.\\d\\d ms.*\tStatus: timeout\n" +
				`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ID Task timed out after 0.25 seconds` + "\n\n$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testService(t, func(_ *Options, f *Function) { f.Timeout = 250 * time.Millisecond })
			before := identify(t, s)
			r := invoke(t, s, c.payload)
			equal(t, "status", r.StatusCode, 200)
			equal(t, "function error", r.FunctionError, "Unhandled")
			equal(t, "payload", strings.ReplaceAll(string(r.Payload), r.RequestID, "ID"), c.want)
			if log := strings.ReplaceAll(string(r.LogTail), r.RequestID, "ID"); !regexp.MustCompile(c.log).MatchString(log) {
				t.Errorf("log %q is not %q", log, c.log)
			}
			if alive(before.PID) {
				t.Error("the process lives")
			}
			after := identify(t, s)
			if after.PID == before.PID || after.Count != 1 {
				t.Errorf("not a new environment: %+v after %+v", after, before)
			}
			equal(t, "environments", s.environmentCount(), 1)
		})
	}
}

// The caller has the response; what the process does afterwards costs the
// environment alone.
func TestTimeoutAfterTheResponse(t *testing.T) {
	t.Parallel()
	s := testService(t, func(_ *Options, f *Function) { f.Timeout = 250 * time.Millisecond })
	r := invoke(t, s, `{"do":"linger"}`)
	equal(t, "payload", string(r.Payload), `"answered"`)
	equal(t, "function error", r.FunctionError, "")
	if !strings.Contains(string(r.LogTail), "Task timed out after 0.25 seconds") {
		t.Errorf("log: %s", r.LogTail)
	}
	equal(t, "environments", s.environmentCount(), 0)
}

func TestNothingOfAProcessGroupIsLeft(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *Service, string){
		"timeout": func(t *testing.T, s *Service, path string) {
			invoke(t, s, fmt.Sprintf(`{"do":"spawn","ms":60000,"path":%q}`, path))
		},
		"kill while idle": func(t *testing.T, s *Service, path string) {
			invoke(t, s, fmt.Sprintf(`{"do":"spawn","path":%q}`, path))
			s.KillAll()
			equal(t, "environments", s.environmentCount(), 0)
		},
		"close": func(t *testing.T, s *Service, path string) {
			invoke(t, s, fmt.Sprintf(`{"do":"spawn","path":%q}`, path))
			s.Close()
			equal(t, "environments", s.environmentCount(), 0)
		},
		"exit": func(t *testing.T, s *Service, path string) {
			invoke(t, s, fmt.Sprintf(`{"do":"spawn","path":%q}`, path))
			equal(t, "function error", invoke(t, s, `{"do":"exit"}`).FunctionError, "Unhandled")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testService(t, func(_ *Options, f *Function) { f.Timeout = 500 * time.Millisecond })
			pid := identify(t, s).PID
			path := filepath.Join(t.TempDir(), "pid")
			end(t, s, path)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if alive(pid) {
				t.Error("the bootstrap lives")
			}
			eventually(t, "the process it started is dead", func() bool { return !alive(child) })
		})
	}
}

func TestKillAllInTheMiddleOfAnInvocation(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	invoke(t, s, `1`)
	var log string
	done := make(chan Result)
	go func() {
		r, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`{"do":"sleep","ms":60000}`))
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	env := s.onlyEnvironment(t)
	eventually(t, "the invocation runs", func() bool { return current(env) != nil })
	s.KillAll()
	r := <-done
	log = string(r.LogTail)
	equal(t, "function error", r.FunctionError, "Unhandled")
	equal(t, "payload", string(r.Payload),
		`{"errorMessage":"RequestId: `+r.RequestID+` Error: Runtime exited with error: signal: killed","errorType":"Runtime.ExitError"}`)
	if !strings.Contains(log, "Runtime exited with error: signal: killed\nRuntime.ExitError\n") {
		t.Errorf("log: %s", log)
	}
	equal(t, "the next invocation", string(invoke(t, s, `1`).Payload), "1")
}

func TestEnvironmentThatDiedWhileIdleIsReplaced(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	before := identify(t, s)
	s.onlyEnvironment(t).process.kill()
	if after := identify(t, s); after.PID == before.PID {
		t.Errorf("the same process: %+v", after)
	}
	equal(t, "environments", s.environmentCount(), 1)
}

func current(e *environment) *invocation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

func TestCloseInTheMiddleOfAnInvocation(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	pid := identify(t, s).PID
	done := make(chan Result)
	go func() {
		r, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`{"do":"sleep","ms":60000}`))
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	env := s.onlyEnvironment(t)
	eventually(t, "the invocation runs", func() bool { return current(env) != nil })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "function error", (<-done).FunctionError, "Unhandled")
	if alive(pid) {
		t.Error("the bootstrap lives")
	}
	for _, typ := range []InvocationType{RequestResponse, Event} {
		_, err := s.Invoke(t.Context(), "fn", typ, nil)
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.StatusCode != 500 || refusal.Code != "ServiceException" {
			t.Errorf("%s after Close: %v", typ, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestCloseWhileInvocationsBeginAndEnd(t *testing.T) {
	t.Parallel()
	for i := range 20 {
		s := testService(t, nil)
		var callers sync.WaitGroup
		for range 2 {
			callers.Go(func() {
				for {
					_, err := s.Invoke(t.Context(), "fn", RequestResponse, []byte(`1`))
					var refusal *Error
					if errors.As(err, &refusal) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(10+i) * time.Millisecond)
		s.Close()
		callers.Wait()
		equal(t, "environments", s.environmentCount(), 0)
	}
}

func TestInvokeGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	s := testService(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Invoke(ctx, "fn", RequestResponse, []byte(`{"do":"sleep","ms":60000}`))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestSeveralFunctions(t *testing.T) {
	t.Parallel()
	s := testService(t, func(o *Options, f *Function) {
		other := *f
		other.Name = "other"
		other.Environment = map[string]string{"COLOUR": "blue"}
		o.Functions = []Function{other}
	})
	for name, want := range map[string]bool{"fn": false, "other": true} {
		r, err := s.Invoke(t.Context(), name, RequestResponse, []byte(`{"do":"environment"}`))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "COLOUR in "+name, strings.Contains(string(r.Payload), `"COLOUR=blue"`), want)
		equal(t, "name of "+name, strings.Contains(string(r.Payload), `"AWS_LAMBDA_FUNCTION_NAME=`+name+`"`), true)
	}
}
