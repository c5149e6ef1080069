package bridge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

func TestByDefaultATargetIsTried185TimesIn24Hours(t *testing.T) {
	if got, want := policyOf(types.Target{}), (retryPolicy{attempts: 185, age: 24 * time.Hour}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p := &types.RetryPolicy{MaximumRetryAttempts: aws.Int32(0), MaximumEventAgeInSeconds: aws.Int32(60)}
	if got, want := policyOf(types.Target{RetryPolicy: p}), (retryPolicy{age: time.Minute}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRetry(t *testing.T) {
	busy, gone := &failure{code: "busy", again: true}, &failure{code: "gone"}
	for _, c := range []struct {
		name      string
		policy    retryPolicy
		answers   []*failure // the last one again and again
		want      *failure
		retries   int
		exhausted string
		took      time.Duration
	}{
		{"until it is taken", retryPolicy{10, time.Hour}, []*failure{busy, busy, nil}, nil, 3, "", 7 * time.Second},
		{"until it is hopeless", retryPolicy{10, time.Hour}, []*failure{busy, gone}, gone, 2, "", 3 * time.Second},
		{"as often as allowed", retryPolicy{4, time.Hour}, []*failure{busy}, busy, 4, attemptsExhausted, 15 * time.Second},
		{"never", retryPolicy{0, time.Hour}, []*failure{nil}, busy, 0, attemptsExhausted, 0},
		{"as long as allowed", retryPolicy{185, time.Minute}, []*failure{busy}, busy, 5, ageExhausted, time.Minute},
		{"every five minutes in the end", retryPolicy{10, 24 * time.Hour}, []*failure{busy}, busy, 10, attemptsExhausted, 511*time.Second + 5*time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began, n := time.Now(), 0
				got, retries, exhausted, err := c.policy.retry(t.Context(), time.Second, began, busy, func(context.Context) *failure {
					n++
					return c.answers[min(n, len(c.answers))-1]
				})
				if got != c.want || retries != c.retries || retries != n || exhausted != c.exhausted || err != nil {
					t.Errorf("got %+v after %d retries (%d tries), %q, %v, want %+v after %d, %q", got, retries, n, exhausted, err, c.want, c.retries, c.exhausted)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
			})
		})
	}
}

func TestRetryEndsWithTheBridge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		busy := &failure{again: true}
		_, _, _, err := retryPolicy{185, 24 * time.Hour}.retry(ctx, time.Second, time.Now(), busy, func(context.Context) *failure { return busy })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
