package lambda

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// environment is one execution environment: a bootstrap process and its Runtime API. Its invoker owns it. It handles
// one invocation at a time.
type environment struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has exited
	output *output
	api    *httptest.Server

	asked   chan struct{} // the runtime requested an invocation
	work    chan *invocation
	current atomic.Pointer[invocation] // sent and not yet answered

	ending sync.Once
}

// failure is the reason why an environment did not finish its invocation.
type failure struct{ errorType, message string }

// start runs the function's bootstrap.
func (s *Service) start(fn *function) (*environment, error) {
	out, write, err := newOutput(func(lines []byte) { s.log(fn, lines) })
	if err != nil {
		return nil, err
	}
	e := &environment{output: out, exited: make(chan struct{}), asked: make(chan struct{}, 1),
		work: make(chan *invocation)}
	e.api = httptest.NewServer(e.runtimeAPI())
	e.cmd = &exec.Cmd{
		Path: fn.Bootstrap,
		Args: []string{fn.Bootstrap},
		Dir:  filepath.Dir(fn.Bootstrap),
		Env:  fn.variables(s.options.Region, e.api.Listener.Addr().String()),

		Stdout: write,
		Stderr: write,
		// Ctrl-C is for this program alone, but no function may outlive it.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the thread that forked ends, not the process (prctl(2),
		// PR_SET_PDEATHSIG), and Go ends threads when it likes.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := e.cmd.Start()
		write.Close()
		started <- err
		if err == nil {
			_ = e.cmd.Wait() // ProcessState has it
			close(e.exited)
		}
	}()
	if err := <-started; err != nil {
		e.api.Close()
		out.close()
		return nil, err
	}
	if err := s.enter(e); err != nil {
		e.kill()
		return nil, err
	}
	return e, nil
}

// variables is the complete environment of a bootstrap. It includes nothing of this process, so a developer's
// credentials never reach a function.
func (f *function) variables(region, runtimeAPI string) (list []string) {
	all := map[string]string{
		"AWS_LAMBDA_RUNTIME_API":          runtimeAPI,
		"AWS_LAMBDA_FUNCTION_NAME":        f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION":     latest,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": strconv.Itoa(f.MemorySize),
		"AWS_REGION":                      region,
		"TZ":                              ":UTC",
	}
	if f.Environment["AWS_ACCESS_KEY_ID"] == "" {
		all["AWS_ACCESS_KEY_ID"], all["AWS_SECRET_ACCESS_KEY"] = "testing", "testing"
	}
	maps.Copy(all, f.Environment)
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	return list
}

// runtimeAPI serves "Using the Lambda runtime API for custom runtimes" (Developer Guide).
func (e *environment) runtimeAPI() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", e.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/{what}", e.answer)
	return mux
}

func (e *environment) next(w http.ResponseWriter, r *http.Request) {
	e.asked <- struct{}{}
	select {
	case inv := <-e.work:
		e.current.Store(inv)
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", inv.arn)
		w.Write(inv.payload)
	case <-r.Context().Done():
	}
}

func (e *environment) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	inv := e.current.Swap(nil)
	if err != nil || inv == nil || inv.id != r.PathValue("id") {
		http.Error(w, "not the current invocation", http.StatusBadRequest)
		return
	}
	inv.answered <- answer{payload: body, failed: r.PathValue("what") == "error"}
	w.WriteHeader(http.StatusAccepted)
}

// await waits until the runtime requests work, which ends the init and each invocation.
func (e *environment) await(deadline time.Time, timeout time.Duration) *failure {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-e.asked:
		return nil
	case <-e.exited:
		return &failure{"Runtime.ExitError", "Runtime exited with error: " + e.cmd.ProcessState.String()}
	case <-timer.C:
		return &failure{"Sandbox.Timedout", fmt.Sprintf("Task timed out after %.2f seconds", timeout.Seconds())}
	}
}

// serve sends an invocation and waits until the runtime requests the next one. There can be both a response and a
// failure: a runtime that reports a panic exits afterwards.
func (e *environment) serve(inv *invocation, timeout time.Duration) *failure {
	select {
	case e.work <- inv:
	case <-e.exited:
	}
	return e.await(inv.deadline, timeout)
}

func (e *environment) signal(sig syscall.Signal) {
	_ = e.cmd.Process.Signal(sig) // fails if the process has exited, which await notices
}

// kill ends the environment and writes the rest of its output to the log.
func (e *environment) kill() {
	e.signal(syscall.SIGKILL)
	<-e.exited
	e.ending.Do(func() {
		e.output.close()
		e.api.CloseClientConnections()
		e.api.Close()
	})
}

// peakMemory is the highest resident set of a running process in MB, rounded up. The kernel's value after the exit
// (ru_maxrss) includes the process that forked.
func (e *environment) peakMemory() int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	var kB int
	_, _ = fmt.Sscan(peak, &kB)
	return (kB + 1023) / 1024
}
