package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/castai/kops-spot/test/lambdalocal"
)

// TestMain builds the function to serve; in a process that a test started from
// this binary it is the command itself.
func TestMain(m *testing.M) {
	if os.Getenv("BE_LAMBDA_LOCAL") != "" {
		main()
		return
	}
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "lambda-local")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(folder)
		path := filepath.Join(folder, "bootstrap")
		build := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "../../lambdalocal/testdata/bootstrap")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the test function: %v\n%s", err, out)
			return 1
		}
		os.Setenv("TEST_BOOTSTRAP", path)
		return m.Run()
	}())
}

func noenv(string) string { return "" }

func TestRefused(t *testing.T) {
	t.Parallel()
	bootstrap := "-bootstrap=" + os.Getenv("TEST_BOOTSTRAP")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"every address":  {[]string{bootstrap, "-addr", "0.0.0.0:3001"}, "0.0.0.0:3001 is not a loopback address"},
		"no address":     {[]string{bootstrap, "-addr", ":3001"}, ":3001 is not a loopback address"},
		"a name":         {[]string{bootstrap, "-addr", "example.com:3001"}, "example.com:3001 is not a loopback address"},
		"no port":        {[]string{bootstrap, "-addr", "127.0.0.1"}, "missing port"},
		"no bootstrap":   {[]string{"-bootstrap", "/nonexistent"}, "finding the bootstrap"},
		"retries":        {[]string{bootstrap, "-retries", "3"}, "0 to 2"},
		"memory":         {[]string{bootstrap, "-memory", "1"}, "128 to 10240"},
		"timeout":        {[]string{bootstrap, "-timeout", "16m"}, "at most 15m0s"},
		"age":            {[]string{bootstrap, "-max-age", "7h"}, "at most 6h0m0s"},
		"variable":       {[]string{bootstrap, "-env", "X"}, "want K=V"},
		"reserved":       {[]string{bootstrap, "-env", "AWS_REGION=x"}, "AWS_REGION is reserved"},
		"argument":       {[]string{bootstrap, "serve"}, `unexpected argument "serve"`},
		"no destination": {[]string{bootstrap, "-on-failure", "/nonexistent/file"}, "opening the destination"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, c.args...), noenv, io.Discard, io.Discard)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v does not say %q", name, err, c.want)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	var errOut bytes.Buffer
	if err := run(t.Context(), []string{"-h"}, noenv, io.Discard, &errOut); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"bootstrap", "name", "addr", "timeout", "memory", "concurrency", "env", "env-file", "retries", "max-age", "on-success", "on-failure"} {
		if !strings.Contains(errOut.String(), "\n  -"+name+" ") {
			t.Errorf("the help does not tell of -%s", name)
		}
	}
}

// lines hands over what run prints, a line at a time.
type lines struct {
	*io.PipeWriter
	read *bufio.Reader
}

func newLines() lines {
	r, w := io.Pipe()
	return lines{w, bufio.NewReader(r)}
}

func TestServe(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	success, failure := filepath.Join(folder, "success"), filepath.Join(folder, "failure")
	out := newLines()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	var mu sync.Mutex
	var log bytes.Buffer
	go func() {
		ended <- run(ctx, []string{"-bootstrap", os.Getenv("TEST_BOOTSTRAP"), "-name", "kops-spot", "-addr", "127.0.0.1:0", "-env", "COLOUR=blue", "-env", "SIZE=a=b",
			"-memory", "256", "-retries", "0", "-concurrency", "2", "-on-success", success, "-on-failure", failure},
			func(name string) string { return map[string]string{"AWS_REGION": "eu-west-1"}[name] },
			out, lockedWriter{&mu, &log})
	}()
	url := address(t, out.read, "kops-spot")

	_, text := post(t, url, "kops-spot", "", `{"do":"environment"}`)
	for _, want := range []string{`"COLOUR=blue"`, `"SIZE=a=b"`, `"AWS_REGION=eu-west-1"`, `"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
	if status, _ := post(t, url, "kops-spot", "Event", `{"a":1}`); status != 202 {
		t.Errorf("status %d", status)
	}
	if status, _ := post(t, url, "kops-spot", "Event", `{"do":"error"}`); status != 202 {
		t.Errorf("status %d", status)
	}
	for path, want := range map[string]lambdalocal.Condition{success: lambdalocal.Success, failure: lambdalocal.RetriesExhausted} {
		var r lambdalocal.Record
		eventually(t, "the record is complete", func() bool {
			text, err := os.ReadFile(path)
			return err == nil && bytes.HasSuffix(text, []byte("\n")) && json.Unmarshal(text, &r) == nil
		})
		if r.RequestContext.Condition != want || r.RequestContext.ApproximateInvokeCount != 1 {
			t.Errorf("record: %+v", r)
		}
	}
	pid := processID(t, url, "kops-spot")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if alive(pid) {
		t.Error("the function's process lives")
	}
	if !strings.Contains(log.String(), "REPORT RequestId: ") {
		t.Errorf("log: %s", log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// However the command ends, the functions' processes end with it.
func TestNothingIsLeftRunning(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-bootstrap", os.Getenv("TEST_BOOTSTRAP"), "-addr", "127.0.0.1:0")
			cmd.Env = append(os.Environ(), "BE_LAMBDA_LOCAL=1")
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			url := address(t, bufio.NewReader(stdout), "function")
			pid := processID(t, url, "function")
			// In the middle of an invocation: an idle process would also notice that
			// its connection is gone.
			go http.Post(url+"/2015-03-31/functions/function/invocations", "application/json", strings.NewReader(`{"do":"sleep","ms":60000}`))
			eventually(t, "the process runs again", func() bool { return state(pid) == 'S' })
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); (err == nil) != (sig != syscall.SIGKILL) {
				t.Errorf("the command ended with %v", err)
			}
			eventually(t, "the function's process is gone", func() bool { return !alive(pid) })
		})
	}
}

func address(t *testing.T, out *bufio.Reader, name string) string {
	t.Helper()
	text, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSpace(text), "serving "+name+" on ")
	if !ok {
		t.Fatalf("first line %q", text)
	}
	return url
}

func processID(t *testing.T, url, name string) int {
	t.Helper()
	_, text := post(t, url, name, "", `{"do":"identify"}`)
	var who struct{ PID int }
	if err := json.Unmarshal([]byte(text), &who); err != nil || who.PID == 0 {
		t.Fatalf("%s: %v", text, err)
	}
	return who.PID
}

func post(t *testing.T, url, name, typ, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/2015-03-31/functions/"+name+"/invocations", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Invocation-Type", typ)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// alive tells whether the process runs; a zombie does not.
func alive(pid int) bool {
	s := state(pid)
	return s != 0 && s != 'Z' && s != 'X'
}

// state is the kernel's letter for what a process does, or 0 without a process.
func state(pid int) byte {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	if len(rest) == 0 {
		return 0
	}
	return rest[0]
}
