package lambdalocal

import (
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"
)

// environment is one execution environment: a bootstrap process and the Runtime
// API that serves it alone. Whoever invokes it owns it; it takes one invocation
// at a time.
type environment struct {
	process *process
	output  *output
	api     *http.Server

	asked      chan struct{} // the runtime asked for an invocation
	work       chan *invocation
	initFailed chan answer

	mu      sync.Mutex
	started bool        // the runtime has asked once: init is over
	current *invocation // handed over and not yet answered
}

// start runs the function's bootstrap. An error is the service's; a bootstrap
// that cannot be executed is the function's failure.
func (s *Service) start(fn *function, log *invocationLog) (*environment, *failure, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errService("listening for the Runtime API: " + err.Error())
	}
	out, err := newOutput(log)
	if err != nil {
		listener.Close()
		return nil, nil, errService("opening the log pipe: " + err.Error())
	}
	e := &environment{
		output:     out,
		asked:      make(chan struct{}, 1),
		work:       make(chan *invocation),
		initFailed: make(chan answer, 1),
	}
	e.api = &http.Server{Handler: e.runtimeAPI()}
	go e.api.Serve(listener)

	e.process, err = s.launcher.start(command{
		path:   fn.Bootstrap,
		dir:    filepath.Dir(fn.Bootstrap),
		env:    fn.variables(s.options.Region, listener.Addr().String()),
		output: out.writeEnd,
	})
	out.started()
	if err != nil {
		e.api.Close()
		out.close()
		return nil, &failure{status: "error", errorType: "Runtime.InvalidEntrypoint", message: err.Error()}, nil
	}
	if err := s.enter(e); err != nil {
		e.close()
		return nil, nil, err
	}
	return e, nil, nil
}

// awaitInit waits for the runtime's first request for work, which ends init. A
// runtime that reports an init error is to exit by itself.
func (e *environment) awaitInit(limit time.Duration) *failure {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-e.asked:
		return nil
	case <-e.process.exited:
		select {
		case ans := <-e.initFailed:
			return &failure{status: "error", errorType: ans.errorType, message: "the runtime reported an init error", reported: ans.payload}
		default:
			return e.exitFailure()
		}
	case <-timer.C:
		return timedOut(limit)
	}
}

// serve hands the invocation over and waits until the runtime has answered and
// asked for the next one, which is when Lambda's invoke phase ends. There may be
// an answer and a failure: a runtime that reports a panic exits after it.
func (e *environment) serve(inv *invocation, timeout time.Duration) (*answer, *failure) {
	timer := time.NewTimer(time.Until(inv.deadline))
	defer timer.Stop()
	// A runtime whose request was cut off has asked twice.
	select {
	case <-e.asked:
	default:
	}
	select {
	case e.work <- inv:
	case <-e.process.exited:
		return nil, e.exitFailure()
	case <-timer.C:
		return nil, timedOut(timeout)
	}
	var fail *failure
	select {
	case <-e.asked:
	case <-e.process.exited:
		fail = e.exitFailure()
	case <-timer.C:
		fail = timedOut(timeout)
	}
	select {
	case ans := <-inv.answered:
		return &ans, fail
	default:
		return nil, fail
	}
}

func (e *environment) exitFailure() *failure {
	message := "Runtime exited without providing a reason"
	if err := e.process.waited; err != nil {
		message = "Runtime exited with error: " + err.Error()
	}
	return &failure{status: "error", errorType: "Runtime.ExitError", message: message}
}

// close ends the environment; what its process printed is in the log after it.
func (e *environment) close() {
	e.process.kill()
	e.output.flush()
	e.output.close()
	e.api.Close()
}
