package spot

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// backoff is how long to wait between tries: full jitter below a bound that doubles from first to most. Fifty nodes
// warned at once ask at fifty different moments.
type backoff struct{ first, most time.Duration }

// transientLimit is how long a doubtful error is tried again before it is believed.
const transientLimit = 6 * time.Second

// doubts tells errors that another try cannot mend from those that may pass.
type transientErrors struct{ since time.Time }

// final reports whether err is to be believed.
func (d *transientErrors) final(err error) bool {
	if !errors.Is(err, errTransient) {
		d.since = time.Time{}
		return errors.Is(err, ErrPermanent)
	}
	if d.since.IsZero() {
		d.since = time.Now()
	}
	return time.Since(d.since) >= transientLimit
}

// persist calls try until it succeeds, until another try cannot help, or until ctx ends; it gives the last error that
// says something about the world rather than about ctx.
func (b backoff) persist(ctx context.Context, try func(context.Context) error) error {
	var last error
	var d transientErrors
	for bound := b.first; ; bound = min(2*bound, b.most) {
		err := try(ctx)
		if err == nil || d.final(err) || errors.Is(err, ErrNotFound) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		pause := rand.N(bound) + b.first/2
		var asks interface{ RetryAfter() time.Duration }
		if errors.As(err, &asks) {
			pause = max(pause, asks.RetryAfter())
		}
		if !sleep(ctx, pause) {
			return last
		}
	}
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lookup is a question to the world that is asked until it is answered.
type lookup[T any] struct {
	first chan struct{} // closed when the first try has ended, whatever came of it
	done  chan struct{} // closed when it is answered or given up

	mu    sync.Mutex
	value *T
	err   error
}

func newLookup[T any]() *lookup[T] {
	return &lookup[T]{first: make(chan struct{}), done: make(chan struct{}), err: errUnasked}
}

// run asks until there is an answer; absent says whether "there is none" is one.
func (l *lookup[T]) run(ctx context.Context, b backoff, ask func(context.Context) (T, error), absent func() bool) {
	defer close(l.done)
	var once sync.Once
	defer once.Do(func() { close(l.first) })
	try := func(ctx context.Context) error {
		v, err := ask(ctx)
		gaveUp := ctx.Err() != nil // what is said then is about us, not about the world
		l.mu.Lock()
		switch {
		case err == nil:
			l.value, l.err = &v, nil
		case !gaveUp || errors.Is(l.err, errUnasked):
			l.err = err
		}
		l.mu.Unlock()
		once.Do(func() { close(l.first) })
		if errors.Is(err, ErrNotFound) && !absent() {
			return errAbsentYet
		}
		return err
	}
	_ = b.persist(ctx, try) // what came of it is in l
}

// errAbsentYet is ErrNotFound where waiting may change it.
var errAbsentYet = errors.New("not there yet")

var errUnasked = errors.New("there was no answer in time")

// note keeps an answer that may still change.
func (l *lookup[T]) note(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.err = &v, nil
}

// known is the answer so far: a value, or nil and why there is none.
func (l *lookup[T]) known() (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.err
}

// wait waits for c, a channel of a lookup, as long as ctx and at most d.
func wait(ctx context.Context, c <-chan struct{}, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-c:
	case <-ctx.Done():
	}
}
