package bridge

import (
	"context"
	"errors"
	"sync"
)

// work is what is under way in the background, and what went wrong with it.
type work struct {
	mu      sync.Mutex
	running int
	none    chan struct{} // closed while nothing runs
	stopped bool
	errs    []error
}

func newWork() *work {
	w := &work{none: make(chan struct{})}
	close(w.none)
	return w
}

func (w *work) start(f func()) {
	w.mu.Lock()
	if w.running == 0 {
		w.none = make(chan struct{})
	}
	w.running++
	w.mu.Unlock()
	go func() {
		defer func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.running--; w.running == 0 {
				close(w.none)
			}
		}()
		f()
	}()
}

func (w *work) idle() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.none
}

func (w *work) wait(ctx context.Context) error {
	select {
	case <-w.idle():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop has failures counted no more: they are the end's.
func (w *work) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

// failed keeps what a test must hear of though nobody waits for it.
func (w *work) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.errs = append(w.errs, err)
	}
}

func (w *work) problems() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.errs...)
}
