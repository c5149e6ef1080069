// Package lambda adds what AWS's runtime interface emulator lacks: concurrent invocations and their limit, function
// errors, asynchronous events with retries and destinations, the freeze between invocations and the loss of a host. It
// runs real bootstrap binaries, built for provided.al2023.
//
//	caller --Invoke API--> Service --Runtime API--> bootstrap process
//	                          |
//	                          +--asynchronous events: retries, destinations
//
// It follows the AWS Lambda Developer Guide and API reference. It leaves out what no test asserts, such as signatures,
// versions, size limits, a second init, reserved concurrency and the maximum event age. A function is confined only by
// its process group. Linux only, like Lambda.
package lambda

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Options describe the Lambda service of one account in one region.
type Options struct {
	Functions []Function

	Region    string // us-east-1 if empty
	AccountID string // 123456789012 if empty

	// RetryDelays are the delays after the first and second function error of an asynchronous event. The default is one
	// and two minutes ("Error handling for asynchronous invocation", Developer Guide).
	RetryDelays [2]time.Duration

	// Concurrency is the account's limit of concurrent executions; none if zero. An asynchronous event beyond it is
	// retried after 1, 2, 4, 8 ... s, at most 5 min (ibid., without the longer intervals for a full queue).
	Concurrency int
}

// Function is one function's configuration.
type Function struct {
	Name      string
	Bootstrap string // path of the executable

	// Environment has the configured variables and the credentials of the function's role. Without AWS_ACCESS_KEY_ID,
	// fake credentials are used.
	Environment map[string]string

	Timeout    time.Duration // 3 s if zero, Lambda's default
	MemorySize int           // in MB, 128 if zero; reported, not enforced

	Async AsyncConfig

	// Logs receives the function's output and Lambda's lines, whole lines at a time and never concurrently.
	Logs io.Writer
}

// AsyncConfig is a function's EventInvokeConfig.
type AsyncConfig struct {
	MaximumRetryAttempts *int // 2 if nil

	OnSuccess, OnFailure Destination
}

// Service is a local Lambda service and an http.Handler for AWS's Invoke API.
type Service struct {
	options   Options
	functions map[string]*function
	lifetime  context.Context
	end       context.CancelFunc
	running   sync.WaitGroup // invocations and asynchronous events
	pending   atomic.Int64   // asynchronous events

	logs sync.Mutex // held while writing to a function's log

	mu           sync.Mutex
	closed       bool
	executing    int // invocations
	environments map[*environment]bool
}

// function is a Function with its state, protected by the service's mutex.
type function struct {
	Function
	arn  string
	idle []*environment // the last used one comes last
}

// New returns a service, which starts no process before the first invocation. Callers must call Close.
func New(o Options) (*Service, error) {
	o.Region, o.AccountID = cmp.Or(o.Region, "us-east-1"), cmp.Or(o.AccountID, "123456789012")
	if o.RetryDelays == [2]time.Duration{} {
		o.RetryDelays = [2]time.Duration{time.Minute, 2 * time.Minute}
	}
	lifetime, end := context.WithCancel(context.Background())
	s := &Service{options: o, functions: map[string]*function{}, lifetime: lifetime, end: end,
		environments: map[*environment]bool{}}
	for _, f := range o.Functions {
		path, err := exec.LookPath(f.Bootstrap)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("finding the bootstrap of function %s: %w", f.Name, err)
		}
		f.Bootstrap = path
		f.Timeout, f.MemorySize = cmp.Or(f.Timeout, 3*time.Second), cmp.Or(f.MemorySize, 128)
		if f.Async.MaximumRetryAttempts == nil {
			f.Async.MaximumRetryAttempts = new(2)
		}
		s.functions[f.Name] = &function{Function: f,
			arn: fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", o.Region, o.AccountID, f.Name)}
	}
	return s, nil
}

// Close kills every environment and drops queued events. Afterwards, no invocation or process remains.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.KillAll()
	s.running.Wait()
	s.KillAll() // those that became idle in the meantime
	return nil
}

// KillAll kills the processes of every environment, idle or busy, as the loss of a host would, and waits until they
// have exited.
func (s *Service) KillAll() {
	s.mu.Lock()
	all := s.environments
	s.environments = map[*environment]bool{}
	for _, fn := range s.functions {
		fn.idle = nil
	}
	s.mu.Unlock()
	for e := range all {
		e.kill()
	}
}

// Drain waits until every asynchronous event has finished and its record is delivered.
func (s *Service) Drain(ctx context.Context) error {
	for s.pending.Load() > 0 {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for %d asynchronous events: %w", s.pending.Load(), err)
		}
	}
	return nil
}

// admit counts a new invocation. The caller must call leave afterwards.
func (s *Service) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.options.Concurrency > 0 && s.executing >= s.options.Concurrency:
		return errThrottled
	}
	s.executing++
	s.running.Add(1)
	return nil
}

func (s *Service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.executing--
	s.running.Done()
}

// reuse returns the function's last used idle environment, as Lambda does, or nil.
func (s *Service) reuse(fn *function) *environment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(fn.idle) == 0 {
		return nil
	}
	e := fn.idle[len(fn.idle)-1]
	fn.idle = fn.idle[:len(fn.idle)-1]
	return e
}

// park keeps an environment for the next invocation, unless it has been killed.
func (s *Service) park(fn *function, e *environment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.environments[e] {
		fn.idle = append(fn.idle, e)
	}
}

// enter registers a new environment with KillAll and Close.
func (s *Service) enter(e *environment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.environments[e] = true
	return nil
}

func (s *Service) discard(e *environment) {
	e.kill()
	s.mu.Lock()
	delete(s.environments, e)
	s.mu.Unlock()
}
