package lambdalocal

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func withInit(t *testing.T, how string) func(*Options, *Function) {
	marker := filepath.Join(t.TempDir(), "marker")
	return func(o *Options, f *Function) {
		o.InitLimit = 200 * time.Millisecond
		f.Timeout = 400 * time.Millisecond
		f.Environment = map[string]string{"INIT": how, "MARKER": marker}
	}
}

// An init that fails is tried once more, on the first invocation's time.
func TestInitFailures(t *testing.T) {
	t.Parallel()
	const report = `INIT_REPORT Init Duration: \d+\.\d\d ms	Phase: `
	for how, c := range map[string]struct{ want, log string }{
		"exit": {`{"errorMessage":"RequestId: ID Error: Runtime exited with error: exit status 7","errorType":"Runtime.ExitError"}`,
			"^initialising exit\n" + report + "init\tStatus: error\tError Type: Runtime.ExitError\n" +
				"initialising exit\n" + report + "invoke\tStatus: error\tError Type: Runtime.ExitError\n" +
				"START RequestId: ID Version: \\$LATEST\nEND RequestId: ID\nREPORT .*\tStatus: error\tError Type: Runtime.ExitError\n" +
				"RequestId: ID Error: Runtime exited with error: exit status 7\nRuntime.ExitError\n$"},
		"exit-0": {`{"errorMessage":"RequestId: ID Error: Runtime exited without providing a reason","errorType":"Runtime.ExitError"}`,
			"invoke\tStatus: error\tError Type: Runtime.ExitError\n"},
		"hang": {`{"errorMessage":"RequestId: ID Error: Task timed out after 0.40 seconds","errorType":"Sandbox.Timedout"}`,
			"^initialising hang\n" + report + "init\tStatus: timeout\n" +
				"initialising hang\n" + report + "invoke\tStatus: timeout\n" +
				"START RequestId: ID Version: \\$LATEST\nEND RequestId: ID\nREPORT .*\tStatus: timeout\n.* ID Task timed out after 0.40 seconds\n\n$"},
		"error": {`{"errorType":"Config.Missing","errorMessage":"no cluster"}`,
			report + "init\tStatus: error\tError Type: Config.Missing\n(.*\n)*" + report + "invoke\tStatus: error\tError Type: Config.Missing\n"},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := testService(t, withInit(t, how))
			r := invoke(t, s, `1`)
			equal(t, "status", r.StatusCode, 200)
			equal(t, "function error", r.FunctionError, "Unhandled")
			equal(t, "payload", strings.ReplaceAll(string(r.Payload), r.RequestID, "ID"), c.want)
			if log := strings.ReplaceAll(string(r.LogTail), r.RequestID, "ID"); !regexp.MustCompile(c.log).MatchString(log) {
				t.Errorf("log %q is not %q", log, c.log)
			}
			equal(t, "environments", s.environmentCount(), 0)
		})
	}
}

func TestSecondInitSucceeds(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"exit-once", "hang-once"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := testService(t, withInit(t, how))
			r := invoke(t, s, `1`)
			equal(t, "payload", string(r.Payload), "1")
			equal(t, "function error", r.FunctionError, "")
			equal(t, "init reports", strings.Count(string(r.LogTail), "INIT_REPORT"), 1)
			equal(t, "init duration, which is part of the invocation now", r.Report.InitDuration, 0)
			equal(t, "environments", s.environmentCount(), 1)
		})
	}
}

// The second init is on the invocation's time: what it takes is missing later.
func TestSecondInitCountsAgainstTheTimeout(t *testing.T) {
	t.Parallel()
	s := testService(t, withInit(t, "exit-once"))
	r := invoke(t, s, `{"do":"sleep","ms":60000}`)
	if r.Report.Duration < 400*time.Millisecond || r.Report.Duration > 600*time.Millisecond {
		t.Errorf("duration %s with a timeout of 400ms", r.Report.Duration)
	}
	if !strings.Contains(string(r.Payload), "Task timed out after 0.40 seconds") {
		t.Errorf("payload: %s", r.Payload)
	}
}

func TestInitIsNotOnTheInvocationsTime(t *testing.T) {
	t.Parallel()
	s := testService(t, func(_ *Options, f *Function) {
		f.Timeout = 400 * time.Millisecond
		f.Environment = map[string]string{"INIT": "slow"} // takes 300 ms
	})
	r := invoke(t, s, `{"do":"sleep","ms":200}`)
	equal(t, "payload", string(r.Payload), `"slept"`)
	if r.Report.InitDuration < 300*time.Millisecond {
		t.Errorf("init took %s", r.Report.InitDuration)
	}
	if r.Report.Duration < 200*time.Millisecond || r.Report.Duration >= 400*time.Millisecond {
		t.Errorf("the invocation took %s", r.Report.Duration)
	}
	billed := (r.Report.InitDuration + r.Report.Duration + time.Millisecond - 1) / time.Millisecond
	if want := fmt.Sprintf("\tBilled Duration: %d ms\t", billed); !strings.Contains(string(r.LogTail), want) {
		t.Errorf("%q is not in %q", want, r.LogTail)
	}
}

func TestBootstrapThatCannotBeExecuted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "bootstrap")
	if err := os.WriteFile(path, []byte("no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := testService(t, func(_ *Options, f *Function) { f.Bootstrap = path })
	r := invoke(t, s, `1`)
	equal(t, "function error", r.FunctionError, "Unhandled")
	equal(t, "payload", string(r.Payload),
		`{"errorMessage":"RequestId: `+r.RequestID+` Error: fork/exec `+path+`: exec format error","errorType":"Runtime.InvalidEntrypoint"}`)
	equal(t, "environments", s.environmentCount(), 0)
}
