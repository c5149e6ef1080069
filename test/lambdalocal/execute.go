package lambdalocal

import (
	"fmt"
	"net/http"
	"time"
)

// failure is why an environment did not finish its init or its invocation.
type failure struct {
	status    string // "error" or "timeout", as in Lambda's log
	errorType string
	message   string
	reported  []byte // the error the runtime itself posted, if any
}

func timedOut(limit time.Duration) *failure {
	return &failure{status: "timeout", errorType: "Sandbox.Timedout",
		message: fmt.Sprintf("Task timed out after %.2f seconds", limit.Seconds())}
}

// payload is the function's result when the runtime gave none.
func (f *failure) payload(requestID string) []byte {
	if f.reported != nil {
		return f.reported
	}
	return mustJSON(map[string]string{
		"errorType":    f.errorType,
		"errorMessage": fmt.Sprintf("RequestId: %s Error: %s", requestID, f.message),
	})
}

// execute runs one admitted invocation in a warm environment or a new one.
func (s *Service) execute(fn *function, inv *invocation) (Result, error) {
	log := &invocationLog{out: fn.logs}
	began := time.Now()
	var initTook time.Duration
	var fail *failure
	env := s.reuse(fn)
	if env != nil {
		env.output.attach(log)
		env.process.thaw()
	} else {
		var err error
		env, initTook, fail, err = s.initialise(fn, log, s.options.InitLimit)
		if err != nil {
			return Result{}, err
		}
		began = time.Now()
		if fail != nil {
			// "Lambda retries the Init phase at the time of the first function
			// invocation with the configured function timeout" (execution
			// environment lifecycle). The second init is on the invocation's clock.
			log.initReport(initTook, "init", fail)
			initTook = 0
			var again time.Duration
			env, again, fail, err = s.initialise(fn, log, fn.Timeout)
			if err != nil {
				return Result{}, err
			}
			if fail != nil {
				log.initReport(again, "invoke", fail)
			}
		}
	}

	log.start(inv.id)
	var ans *answer
	if fail == nil {
		inv.deadline = began.Add(fn.Timeout)
		ans, fail = env.serve(inv, fn.Timeout)
	}
	report := Report{Duration: time.Since(began), InitDuration: initTook}
	if env != nil {
		report.MaxMemoryUsed = env.process.peakMemory()
		s.retire(fn, env, fail)
	}
	log.end(inv.id, report, fn.MemorySize, fail)

	result := Result{
		StatusCode:      http.StatusOK,
		RequestID:       inv.id,
		ExecutedVersion: latest,
		LogTail:         log.tail(),
		Report:          report,
	}
	switch {
	// A response that arrived counts, whatever became of the process after it.
	case ans != nil:
		result.Payload = ans.payload
		if ans.errorType != "" {
			result.FunctionError = "Unhandled"
		}
	default:
		result.Payload = fail.payload(inv.id)
		result.FunctionError = "Unhandled"
	}
	return result, nil
}

// initialise starts an environment and waits for it to ask for work. A failed
// environment is gone when it returns.
func (s *Service) initialise(fn *function, log *invocationLog, limit time.Duration) (*environment, time.Duration, *failure, error) {
	began := time.Now()
	env, fail, err := s.start(fn, log)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("starting an environment of %s: %w", fn.Name, err)
	}
	if fail == nil {
		fail = env.awaitInit(limit)
	}
	took := time.Since(began)
	switch {
	case fail == nil:
		env.process.peakMemory() // in case it exits before there is another chance
	case env != nil:
		s.discard(env)
		env = nil
	}
	return env, took, fail, nil
}

// retire ends an environment that failed and freezes one that did not: "Lambda
// freezes the execution environment when the runtime and each extension have
// completed and there are no pending events" (execution environment lifecycle).
// What a function leaves running in the background stands still until its next
// invocation, and connections it keeps may be dead by then.
func (s *Service) retire(fn *function, env *environment, fail *failure) {
	if fail != nil {
		s.discard(env)
		return
	}
	env.process.freeze()
	env.output.flush()
	s.park(fn, env)
}
