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

	"k8s.io/client-go/rest"
)

// rereadInterval is how long to wait before reading a rejected token again.
const rereadInterval = 5 * time.Second

// wallClock returns the time without the monotonic clock, which stops while Lambda has frozen the execution
// environment: old tokens would seem new.
func wallClock() time.Time { return time.Now().Round(0) }

// storedToken reads a token from a Source.
type storedToken struct {
	read Source

	reading sync.Mutex // held during a read, which other requests do not wait for if there is a token

	mu     sync.Mutex
	value  string
	readAt time.Time
}

// current returns the token, and whether it is worth sending.
func (s *storedToken) current(rejected string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.value != "" && (s.value != rejected || time.Since(s.readAt) < rereadInterval)
}

func (s *storedToken) token(ctx context.Context, rejected string) (string, error) {
	value, ok := s.current(rejected)
	if ok {
		return value, nil
	}
	if !s.reading.TryLock() {
		if value != "" {
			return value, nil
		}
		s.reading.Lock()
	}
	defer s.reading.Unlock()
	if value, ok := s.current(rejected); ok { // read by another request
		return value, nil
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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.readAt = value, wallClock()
	return value, nil
}

func (s *storedToken) explain(_ context.Context, token string, skew time.Duration) string {
	if expiry, ok := expiryOf(token); ok && time.Now().After(expiry) {
		return fmt.Sprintf("the token expired on %s: create a new one and store it where KOPS_SPOT_LOGIN points",
			expiry.UTC().Format(time.RFC1123))
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

// Source reads a token or a CA bundle, which may change at any time. Its errors name the source and never contain the
// value.
type Source func(context.Context) (string, error)

// Endpoint is the address of an API server and how to verify its certificate.
type Endpoint struct {
	Server       string // https://host[:port]
	CA           Source // PEM bundle; nil for the system's roots (a load balancer with a public certificate)
	InternalName string // the certificate has this name or the host's; only with CA
}

// WithToken authenticates with a bearer token. It reads the token and the CA bundle on first use, and again when they
// are rejected, so rotation needs no restart.
func WithToken(e Endpoint, token Source, userAgent string) *rest.Config {
	return login(e, &storedToken{read: token}, userAgent)
}

// WithIAM authenticates to aws-iam-authenticator. Making a token needs no network call.
func WithIAM(e Endpoint, identity IAM, userAgent string) *rest.Config {
	return login(e, &iamToken{IAM: identity}, userAgent)
}

func login(e Endpoint, t tokens, userAgent string) *rest.Config {
	connections := &caReloadTransport{endpoint: e}
	return &rest.Config{Host: e.Server, UserAgent: userAgent,
		Transport: &gate{next: &bearerTransport{tokens: t, next: connections}, reconnect: connections.reconnect}}
}

// tokens supplies bearer tokens for one identity.
type tokens interface {
	// token returns the token to send, and a new one, if possible, when it is rejected.
	token(ctx context.Context, rejected string) (string, error)
	// explain returns the likely cause of a 401, with what to do. skew is how far our clock is
	// ahead of the server's; zero if unknown.
	explain(ctx context.Context, token string, skew time.Duration) string
}
