package lambdalocal

import (
	"context"
	"fmt"
	"net/http"
	"sync"
)

// Service is a Lambda service on this machine. It is an http.Handler that
// answers AWS's Invoke API.
type Service struct {
	options   Options
	functions map[string]*function
	invokeAPI http.Handler
	launcher  *launcher
	lifetime  context.Context
	end       context.CancelFunc
	running   sync.WaitGroup // invocations and asynchronous events

	mu           sync.Mutex
	closed       bool
	inFlight     int // of the functions that reserve no concurrency
	environments map[*environment]struct{}
	pending      int           // asynchronous events not yet settled
	settled      chan struct{} // closed when pending is zero
}

// function is a Function with what happens to it; its fields below the
// configuration belong to the service's mutex.
type function struct {
	Function
	arn  string
	logs *lineWriter

	inFlight int
	idle     []*environment // the one used last comes last
}

// New checks the configuration and makes a service. No process is started
// before the first invocation. Close must be called.
func New(options Options) (*Service, error) {
	options = options.withDefaults()
	functions, err := newFunctions(options)
	if err != nil {
		return nil, err
	}
	for _, fn := range functions {
		if fn.ReservedConcurrency != nil {
			options.AccountConcurrency -= *fn.ReservedConcurrency
		}
	}
	if options.AccountConcurrency < 0 {
		return nil, fmt.Errorf("the functions reserve %d more than the account's concurrency", -options.AccountConcurrency)
	}
	var oneWriterAtATime sync.Mutex
	for _, fn := range functions {
		fn.logs = &lineWriter{mu: &oneWriterAtATime, w: fn.Logs}
	}
	lifetime, end := context.WithCancel(context.Background())
	settled := make(chan struct{})
	close(settled)
	s := &Service{
		options:      options,
		functions:    functions,
		launcher:     newLauncher(),
		lifetime:     lifetime,
		end:          end,
		environments: map[*environment]struct{}{},
		settled:      settled,
	}
	s.invokeAPI = s.newInvokeAPI()
	return s, nil
}

// Close kills every environment and forgets the events still queued. When it
// returns, every invocation has ended and no process is left.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.KillAll()
	s.running.Wait()
	s.KillAll() // what was parked meanwhile
	s.launcher.close()
	return nil
}

// KillAll kills the processes of every environment, idle or in the middle of an
// invocation, as the loss of a host would, and waits until they are gone.
func (s *Service) KillAll() {
	s.mu.Lock()
	var all []*environment
	for e := range s.environments {
		all = append(all, e)
	}
	var idle []*environment
	for _, fn := range s.functions {
		idle = append(idle, fn.idle...)
		fn.idle = nil
	}
	s.mu.Unlock()
	for _, e := range all {
		e.process.kill()
	}
	// Nobody else waits for the idle ones.
	for _, e := range idle {
		s.discard(e)
	}
}

// Drain waits until every asynchronous event has succeeded, failed for good or
// expired, and its record is delivered.
func (s *Service) Drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		settled, pending := s.settled, s.pending
		s.mu.Unlock()
		if pending == 0 {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d asynchronous events: %w", pending, ctx.Err())
		}
	}
}

// admit counts an invocation in, or refuses it.
func (s *Service) admit(fn *function) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errService("the service is closed")
	}
	if fn.ReservedConcurrency != nil {
		if fn.inFlight >= *fn.ReservedConcurrency {
			return errThrottled(ReasonReservedConcurrency)
		}
	} else {
		if s.inFlight >= s.options.AccountConcurrency {
			return errThrottled(ReasonAccountConcurrency)
		}
		s.inFlight++
	}
	fn.inFlight++
	s.running.Add(1)
	return nil
}

func (s *Service) release(fn *function) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn.inFlight--
	if fn.ReservedConcurrency == nil {
		s.inFlight--
	}
}

// reuse takes the function's idle environment that was used last, as Lambda
// does, or returns nil.
func (s *Service) reuse(fn *function) *environment {
	for {
		s.mu.Lock()
		n := len(fn.idle)
		if n == 0 {
			s.mu.Unlock()
			return nil
		}
		e := fn.idle[n-1]
		fn.idle = fn.idle[:n-1]
		s.mu.Unlock()
		if !e.process.gone() {
			return e
		}
		s.discard(e)
	}
}

// park keeps an environment for the function's next invocation.
func (s *Service) park(fn *function, e *environment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn.idle = append(fn.idle, e)
}

// enter makes a new environment known to KillAll and Close.
func (s *Service) enter(e *environment) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errService("the service is closed")
	}
	s.environments[e] = struct{}{}
	return nil
}

func (s *Service) discard(e *environment) {
	e.close()
	s.mu.Lock()
	delete(s.environments, e)
	s.mu.Unlock()
}
