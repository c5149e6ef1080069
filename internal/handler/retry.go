package handler

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// backoff is the pause between attempts: random, below a bound that doubles from first to most, so that fifty nodes
// that are interrupted at once do not send their requests at once.
type backoff struct{ first, most time.Duration }

// transientLimit is how long a possibly transient error is retried.
const transientLimit = 6 * time.Second

// transientErrors tells permanent errors from possibly transient ones.
type transientErrors struct{ since time.Time }

// final reports whether err is permanent, or has been possibly transient for too long.
func (t *transientErrors) final(err error) bool {
	if !errors.Is(err, spot.ErrPossiblyTransient) {
		t.since = time.Time{}
		return errors.Is(err, spot.ErrPermanent)
	}
	if t.since.IsZero() {
		t.since = time.Now()
	}
	return time.Since(t.since) >= transientLimit
}

// persist calls try until it succeeds, until a retry cannot help, or until ctx ends. It returns the last error that is
// not about ctx.
func (b backoff) persist(ctx context.Context, try func(context.Context) error) error {
	var last error
	var transient transientErrors
	for bound := b.first; ; bound = min(2*bound, b.most) {
		err := try(ctx)
		if err == nil || transient.final(err) || errors.Is(err, spot.ErrNotFound) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		pause := rand.N(bound) + b.first/2
		var throttled interface{ RetryAfter() time.Duration }
		if errors.As(err, &throttled) {
			pause = max(pause, throttled.RetryAfter())
		}
		if !sleep(ctx, pause) {
			return last
		}
	}
}

// sleep reports whether the time passed before ctx ended.
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

// wait waits until done is closed, ctx ends or limit passes.
func wait(ctx context.Context, done <-chan struct{}, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
