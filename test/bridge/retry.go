package bridge

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// retryPolicy bounds how often and how long a target is tried.
type retryPolicy struct {
	attempts int // after the first
	age      time.Duration
}

// The conditions that a dead-letter queue is told.
const (
	attemptsExhausted = "MaximumRetryAttempts"
	ageExhausted      = "MaximumEventAgeInSeconds"
)

const longestRetryDelay = 5 * time.Minute

// policyOf is the target's; by default AWS tries "for 24 hours and up to 185 times".
func policyOf(t types.Target) retryPolicy {
	p := retryPolicy{attempts: 185, age: 24 * time.Hour}
	if t.RetryPolicy == nil {
		return p
	}
	if n := t.RetryPolicy.MaximumRetryAttempts; n != nil {
		p.attempts = int(*n)
	}
	if s := t.RetryPolicy.MaximumEventAgeInSeconds; s != nil {
		p.age = time.Duration(*s) * time.Second
	}
	return p
}

// retry tries on until the target takes the event, another try cannot help, or the policy is exhausted, and tells how
// often it tried. The event's age counts from when it came. An error is the end of ctx.
func (p retryPolicy) retry(ctx context.Context, wait time.Duration, received time.Time, last *failure, try func(context.Context) *failure) (
	f *failure, retries int, exhausted string, err error) {
	expires := received.Add(p.age)
	for retries < p.attempts {
		timer := time.NewTimer(min(wait, time.Until(expires)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last, retries, "", ctx.Err()
		}
		if !time.Now().Before(expires) {
			return last, retries, ageExhausted, nil
		}
		retries++
		if last = try(ctx); last == nil || !last.again {
			return last, retries, "", nil
		}
		wait = min(2*wait, longestRetryDelay)
	}
	return last, retries, attemptsExhausted, nil
}
