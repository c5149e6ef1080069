package kube

import (
	"context"
	"time"

	"k8s.io/client-go/rest"
)

// Source reads a token or a CA bundle, which may change at any time. Its errors name the source and never contain the
// value.
type Source func(context.Context) (string, error)

// Endpoint is the address of an API server and how to verify its certificate.
type Endpoint struct {
	Server        string // https://host[:port]
	CA            Source // PEM bundle; nil for the system's roots (a load balancer with a public certificate)
	TLSServerName string // the name in the certificate, if it is not the host's
}

// WithToken authenticates with a bearer token. It reads the token and the CA bundle on first use, and again when they are
// rejected, so rotation needs no restart.
func WithToken(e Endpoint, token Source, userAgent string) *rest.Config {
	return login(e, &storedToken{read: token}, userAgent)
}

// WithIAM authenticates to aws-iam-authenticator. Making a token needs no network call.
func WithIAM(e Endpoint, identity IAM, userAgent string) *rest.Config {
	return login(e, &iamToken{IAM: identity}, userAgent)
}

func login(e Endpoint, t tokens, userAgent string) *rest.Config {
	return &rest.Config{Host: e.Server, UserAgent: userAgent, Transport: &bearerTransport{tokens: t, next: &caReloadTransport{endpoint: e}}}
}

// tokens supplies bearer tokens for one identity.
type tokens interface {
	// token returns the token to send, and a new one, if possible, when it is rejected.
	token(ctx context.Context, rejected string) (string, error)
	// explain returns the likely cause of a 401, with what to do, and whether it is certain. skew is how far our clock is
	// ahead of the server's; zero if unknown.
	explain(ctx context.Context, token string, skew time.Duration) (why string, certain bool)
}
