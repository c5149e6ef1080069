package handler

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/castai/kops-spot/internal/spot"
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
	if !errors.Is(err, spot.ErrPossiblyTransient) {
		d.since = time.Time{}
		return errors.Is(err, spot.ErrPermanent)
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
		if err == nil || d.final(err) || errors.Is(err, spot.ErrNotFound) {
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

// wait waits for c, a channel of a lookup, as long as ctx and at most d.
func wait(ctx context.Context, c <-chan struct{}, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	select {
	case <-c:
	case <-ctx.Done():
	}
}
