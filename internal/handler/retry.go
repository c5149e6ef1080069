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

var (
	toCluster = backoff{250 * time.Millisecond, 5 * time.Second}
	toAWS     = backoff{500 * time.Millisecond, 5 * time.Second} // and to CAST AI
)

// lookAgain limits the pause before looking again for something that may appear at any moment.
const lookAgain = time.Second

// persist calls try until it succeeds or returns ErrNotFound, or until ctx ends. No other response is final: a server
// that has just started may reject a valid credential, and permissions take time to propagate. (A dry run accepts any
// permanent error.) It returns the last error that is not about ctx.
func (b backoff) persist(ctx context.Context, try func(context.Context) error) error {
	var last error
	for bound := b.first; ; bound = min(2*bound, b.most) {
		err := try(ctx)
		if err == nil || errors.Is(err, spot.ErrNotFound) || errors.As(err, &finalError{}) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if errors.Is(err, errNotYet) {
			bound = min(bound, lookAgain)
		}
		pause := b.first/2 + rand.N(bound)
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
