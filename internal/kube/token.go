package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// readAgainAfter is how long a token that was not accepted is not read again: it would most likely be the same.
const readAgainAfter = 5 * time.Second

// wallClock is now by the wall. The monotonic clock, by which Go measures otherwise, stands still while Lambda has frozen
// the execution environment, and what was made before would look young for ever.
func wallClock() time.Time { return time.Now().Round(0) }

// storedToken is a token that somebody else makes and keeps somewhere.
type storedToken struct {
	read Source

	mu     sync.Mutex
	value  string
	readAt time.Time
}

func (s *storedToken) token(ctx context.Context, rejected string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value != "" && (s.value != rejected || time.Since(s.readAt) < readAgainAfter) {
		return s.value, nil
	}
	value, err := s.read(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the token to log in with: %w", err)
	}
	if value = strings.TrimSpace(value); value == "" {
		return "", spot.Permanent(errors.New("reading the token to log in with: it is empty"))
	}
	if strings.ContainsAny(value, " \t\r\n") {
		return "", spot.Permanent(errors.New("reading the token to log in with: there is white space within it: it must be the token and nothing else"))
	}
	s.value, s.readAt = value, wallClock()
	return value, nil
}

func (s *storedToken) explain(_ context.Context, token string, skew time.Duration) (why string, certain bool) {
	if expiry, ok := expiryOf(token); ok && time.Now().After(expiry) {
		return fmt.Sprintf("the token expired on %s: make a new one and put it where KOPS_SPOT_LOGIN says", expiry.UTC().Format(time.RFC1123)), true
	}
	return clockOr(skew, "the token is none of this cluster's, or its ServiceAccount or Secret was deleted: make a new one and put it where KOPS_SPOT_LOGIN says")
}

// expiryOf reads when a token ends, if it is a JSON Web Token that does.
func expiryOf(token string) (time.Time, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, false
	}
	var claims struct {
		Expiry int64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Expiry == 0 {
		return time.Time{}, false
	}
	return time.Unix(claims.Expiry, 0), true
}
