package spot

import (
	"errors"
	"fmt"
	"time"
)

// Errors of Cluster, Cloud and Autoscaler. The handler retries all but ErrNotFound while there is time: ErrPermanent
// only says that nobody expects a retry to help.
var (
	ErrNotFound  = errors.New("not found")
	ErrChanged   = errors.New("changed since it was read")
	ErrPermanent = errors.New("not retryable")
)

// Permanent makes err match ErrPermanent. The text stays the same.
func Permanent(err error) error { return permanentError{err} }

type permanentError struct{ error }

func (e permanentError) Unwrap() error        { return e.error }
func (e permanentError) Is(target error) bool { return target == ErrPermanent }

// Refusal is a refused eviction or deletion that is worth retrying: by a PodDisruptionBudget (429, or 500 if two match
// the pod) or by an admission webhook (any code).
type Refusal struct {
	Code       int
	Budget     bool // a PodDisruptionBudget refused
	Message    string
	RetryAfter time.Duration // 0 if the server sent none
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.Code, r.Message) }
