package spot

import (
	"errors"
	"fmt"
	"time"
)

// Errors of Cluster, Cloud and Autoscaler. Any other error is retried while there is time.
var (
	ErrNotFound          = errors.New("not found")
	ErrChanged           = errors.New("changed since it was read")
	ErrPermanent         = errors.New("not retryable")
	ErrPossiblyTransient = errors.New("possibly transient")
)

// Permanent makes err match ErrPermanent. The text stays the same.
func Permanent(err error) error { return permanentError{err} }

// PossiblyTransient makes err match ErrPermanent and ErrPossiblyTransient. Such an error counts as permanent only if it
// persists: a throttled authenticator rejects valid credentials, and so does an API server that has just started.
func PossiblyTransient(err error) error { return transientError{permanentError{err}} }

type transientError struct{ permanentError }

func (e transientError) Is(target error) bool {
	return target == ErrPossiblyTransient || target == ErrPermanent
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error        { return e.error }
func (e permanentError) Is(target error) bool { return target == ErrPermanent }

// Refusal is a refused eviction or deletion that is worth retrying: by a PodDisruptionBudget (429, or 500 if two match
// the pod) or by an admission webhook (any code).
type Refusal struct {
	Code       int
	Message    string
	RetryAfter time.Duration // 0 if the server sent none
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.Code, r.Message) }
