package spot

import (
	"errors"
	"fmt"
	"time"
)

// What callers branch on. Every other error of Cluster and Cloud is worth another try while time is left.
var (
	ErrNotFound  = errors.New("not found")
	ErrChanged   = errors.New("changed since it was read")
	ErrPermanent = errors.New("not retryable")
)

// Final marks an error as one that another try cannot mend. It says what err says.
func Permanent(err error) error { return permanentError{err} }

// PossiblyTransient marks an error as one that another try most likely cannot mend, but that may pass: an authenticator that AWS
// throttles says no to a good credential, and so does an API server that has just started. It is final only if it lasts.
func PossiblyTransient(err error) error { return transientError{permanentError{err}} }

type transientError struct{ permanentError }

func (e transientError) Is(target error) bool {
	return target == ErrPossiblyTransient || target == ErrPermanent
}

var ErrPossiblyTransient = errors.New("may pass")

type permanentError struct{ error }

func (e permanentError) Unwrap() error        { return e.error }
func (e permanentError) Is(target error) bool { return target == ErrPermanent }

// Refusal is the answer to an eviction or a delete that is neither yes nor gone: a budget (429, or 500 for two of
// them), an admission webhook (any code). It is worth asking again.
type Refusal struct {
	Code       int
	Message    string
	RetryAfter time.Duration // what the server asks for; 0 if it does not say
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.Code, r.Message) }
