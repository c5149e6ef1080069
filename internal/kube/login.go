package kube

import (
	"context"
	"time"

	"k8s.io/client-go/rest"
)

// Source reads a text that may change while the function lives: a token, a CA bundle. It says in its error what it read
// and from where, and never the text.
type Source func(context.Context) (string, error)

// Endpoint is where a cluster's API server is and how it proves that it is the one.
type Endpoint struct {
	Server        string // https://host[:port]
	CA            Source // PEM bundle; nil for the system's roots, as for a load balancer with a public certificate
	TLSServerName string // the name in the certificate, where it is not the host's
}

// WithToken logs in with a bearer token, such as a ServiceAccount's. The token and the CA bundle are read when they are
// first needed, and again when the server does not accept them: a rotated one is taken up by itself.
func WithToken(e Endpoint, token Source, userAgent string) *rest.Config {
	return login(e, &storedToken{read: token}, userAgent)
}

// WithIAM logs in to aws-iam-authenticator. It makes no network call for that.
func WithIAM(e Endpoint, identity IAM, userAgent string) *rest.Config {
	return login(e, &iamToken{IAM: identity}, userAgent)
}

func login(e Endpoint, t tokens, userAgent string) *rest.Config {
	return &rest.Config{Host: e.Server, UserAgent: userAgent, Transport: &bearer{tokens: t, next: &trusting{endpoint: e}}}
}

// tokens are the bearer tokens of one log-in.
type tokens interface {
	// token is the one to send. rejected, if not empty, is one that the server has not accepted: another is wanted, if
	// there is one.
	token(ctx context.Context, rejected string) (string, error)
	// explain says why a token may not have been accepted, and what to do, and whether that is certain; skew is how far
	// our clock is ahead of the server's, zero if that is not known.
	explain(ctx context.Context, token string, skew time.Duration) (why string, certain bool)
}
