package lambdalocal

import (
	"context"
	"fmt"
	"time"
)

// enqueue accepts an event and sees it through on its own.
func (s *Service) enqueue(fn *function, inv invocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errService("the service is closed")
	}
	if s.pending == 0 {
		s.settled = make(chan struct{})
	}
	s.pending++
	s.running.Go(func() {
		defer s.settle()
		record, err := s.options.Delays.process(s.lifetime, fn, inv, func() (Result, error) {
			return s.attempt(s.lifetime, fn, inv)
		})
		if err != nil {
			return // the service ends, and its queue with it
		}
		fn.deliver(record)
	})
	return nil
}

func (s *Service) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending--
	if s.pending == 0 {
		close(s.settled)
	}
}

// process tries an event until it succeeds, has failed often enough or is too
// old. Only function errors count against the retries; throttles and service
// errors put the event back in the queue, and only its age ends that. It expires
// at its age, not before, even if no attempt could come in time. The error is
// the end of ctx.
func (d Delays) process(ctx context.Context, fn *function, inv invocation, attempt func() (Result, error)) (Record, error) {
	if fn.ReservedConcurrency != nil && *fn.ReservedConcurrency == 0 {
		return newRecord(fn, inv, ZeroReservedConcurrency, 0, nil), nil
	}
	expires := time.Now().Add(fn.Async.MaximumEventAge)
	invoked, refused := 0, 0
	var last *Result
	for {
		result, err := attempt()
		var wait time.Duration
		switch {
		case err == nil && result.FunctionError == "":
			return newRecord(fn, inv, Success, invoked+1, &result), nil
		case ctx.Err() != nil:
			// Not the function's failure: its environment was killed.
			return Record{}, ctx.Err()
		case err != nil:
			wait = d.throttle(refused)
			refused++
		default:
			invoked++
			refused = 0
			last = &result
			if invoked > *fn.Async.MaximumRetryAttempts {
				return newRecord(fn, inv, RetriesExhausted, invoked, last), nil
			}
			wait = d.Retries[invoked-1]
		}
		if err := sleep(ctx, min(wait, time.Until(expires))); err != nil {
			return Record{}, err
		}
		if !time.Now().Before(expires) {
			return newRecord(fn, inv, EventAgeExceeded, invoked, last), nil
		}
	}
}

// throttle is the wait after the nth refusal in a row: 1, 2, 4 … 256, 300 s.
func (d Delays) throttle(n int) time.Duration {
	wait := d.ThrottleMin
	for range n {
		if wait >= d.ThrottleMax {
			break
		}
		wait *= 2
	}
	return min(wait, d.ThrottleMax)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver hands the record to its destination. A failed delivery shows in the
// function's log; AWS shows it as the metric DestinationDeliveryFailures.
func (f *function) deliver(r Record) {
	to := f.Async.OnFailure
	if r.RequestContext.Condition == Success {
		to = f.Async.OnSuccess
	}
	if to == nil {
		return
	}
	if err := to(r); err != nil {
		f.logs.write(fmt.Appendf(nil, "DestinationDeliveryFailures RequestId: %s Error: %v\n", r.RequestContext.RequestID, err))
	}
}
