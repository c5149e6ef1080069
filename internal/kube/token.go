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

// rereadInterval is how long to wait before reading a rejected token again.
const rereadInterval = 5 * time.Second

// wallClock returns the time without the monotonic clock, which stops while Lambda has frozen the execution environment:
// old tokens would seem new.
func wallClock() time.Time { return time.Now().Round(0) }

// storedToken reads a token from a Source.
type storedToken struct {
	read Source

	mu     sync.Mutex
	value  string
	readAt time.Time
}

func (s *storedToken) token(ctx context.Context, rejected string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.value != "" && (s.value != rejected || time.Since(s.readAt) < rereadInterval) {
		return s.value, nil
	}
	value, err := s.read(ctx)
	if err != nil {
		return "", fmt.Errorf("reading the API token: %w", err)
	}
	if value = strings.TrimSpace(value); value == "" {
		return "", spot.Permanent(errors.New("reading the API token: it is empty"))
	}
	if strings.ContainsAny(value, " \t\r\n") {
		return "", spot.Permanent(errors.New("reading the API token: it contains white space: store the token only"))
	}
	s.value, s.readAt = value, wallClock()
	return value, nil
}

func (s *storedToken) explain(_ context.Context, token string, skew time.Duration) (why string, certain bool) {
	if expiry, ok := expiryOf(token); ok && time.Now().After(expiry) {
		return fmt.Sprintf("the token expired on %s: create a new one and store it where KOPS_SPOT_LOGIN points",
			expiry.UTC().Format(time.RFC1123)), true
	}
	return clockSkewOr(skew, "the token belongs to another cluster, or its ServiceAccount or Secret was deleted: "+
		"create a new one and store it where KOPS_SPOT_LOGIN points")
}

// expiryOf returns the expiry of a JSON Web Token.
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
