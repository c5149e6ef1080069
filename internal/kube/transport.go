package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// dialLimit bounds the opening of one connection, so that an address that swallows packets leaves time for another
	// try.
	dialLimit = 3 * time.Second

	// pingAfter and pingLimit find a connection dead that nothing comes from any more. An execution environment is frozen
	// between two invocations, and what stands between it and the server may have forgotten its connections.
	pingAfter = 2 * time.Second
	pingLimit = 3 * time.Second

	// tolerableSkew is less than what AWS allows between its clock and that of who signs: five minutes for some
	// services, fifteen for most.
	tolerableSkew = 4 * time.Minute
)

func dialer() *net.Dialer { return &net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second} }

// Reach opens a connection to the API server of a URL and closes it: whether there is a way to it at all.
func Reach(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return fmt.Errorf("connecting to %q: it is no URL", server)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	conn, err := dialer().DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return fmt.Errorf("connecting to the API server: %w", err)
	}
	return conn.Close()
}

// trusting is a transport to a server whose CA bundle may change. When the server's certificate is not of a CA that we
// know, the bundle is read again, and if it has changed the request is made once more.
type trusting struct {
	endpoint Endpoint

	mu   sync.Mutex
	pem  string
	next *http.Transport
}

func (t *trusting) RoundTrip(req *http.Request) (*http.Response, error) {
	next, err := t.transport(req.Context(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := next.RoundTrip(req)
	if err == nil || t.endpoint.CA == nil || !isCertificate(err) {
		return resp, err
	}
	again, readErr := t.transport(req.Context(), next)
	if readErr != nil {
		return nil, fmt.Errorf("%w; and the CA bundle could not be read again: %w", err, readErr)
	}
	rewound, ok := rewind(req)
	if again == next || !ok {
		return nil, err
	}
	return again.RoundTrip(rewound)
}

// transport is one that trusts the CA bundle as it was last read; failed, if not nil, is one that did not help, so that
// the bundle is read again.
func (t *trusting) transport(ctx context.Context, failed *http.Transport) (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != failed {
		return t.next, nil
	}
	var pem string
	var pool *x509.CertPool
	if t.endpoint.CA != nil {
		var err error
		if pem, err = t.endpoint.CA(ctx); err != nil {
			return nil, err
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM([]byte(pem)) {
			return nil, spot.Permanent(errors.New("there is no certificate in the CA bundle: put there what certificate-authority-data in the cluster's kubeconfig says, as PEM"))
		}
		if t.next != nil && pem == t.pem {
			return t.next, nil
		}
	}
	t.pem = pem
	t.next = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer().DialContext,
		TLSHandshakeTimeout: dialLimit,
		TLSClientConfig:     &tls.Config{RootCAs: pool, ServerName: t.endpoint.TLSServerName, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
	}
	return t.next, nil
}

// bearer puts a token into every request. When it is not accepted, and there is another by now, the request is made once
// more; else the error says why it may not have been accepted, which the server never does.
type bearer struct {
	tokens tokens
	next   http.RoundTripper
}

func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := b.tokens.token(req.Context(), "")
	if err != nil {
		return nil, err
	}
	resp, err := b.send(req, token)
	if err != nil || !isUnauthorized(resp) {
		return resp, err
	}
	fresh, err := b.tokens.token(req.Context(), token)
	if err == nil && fresh != token {
		if rewound, ok := rewind(req); ok {
			discard(resp)
			token = fresh
			resp, err = b.send(rewound, token)
			if err != nil || !isUnauthorized(resp) {
				return resp, err
			}
		}
	}
	skew := skewOf(resp)
	discard(resp)
	return nil, unauthorized(b.tokens.explain(req.Context(), token, skew))
}

func (b *bearer) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change the request
	req.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(req)
}

// explaining tells of a log-in that is not ours to mend that it was not accepted.
type explaining struct{ next http.RoundTripper }

func (e *explaining) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.next.RoundTrip(req)
	if err != nil || !isUnauthorized(resp) {
		return resp, err
	}
	skew := skewOf(resp)
	discard(resp)
	return nil, unauthorized(clockOr(skew, "it may have expired or belong to another cluster: make a new kubeconfig"))
}

// isUnauthorized reports whether the API server does not accept the credential. A 401 of an admission webhook is an answer
// to the request.
func isUnauthorized(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	const enough = 64 << 10
	body, err := io.ReadAll(io.LimitReader(resp.Body, enough))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}
	return err != nil || !bytes.Contains(body, []byte(webhookSays))
}

// unauthorized is a 401. Unless it is certain why, it may pass: the API server answers one, too, when AWS throttles the
// authenticator, as it may when many nodes are taken at once.
func unauthorized(why string, certain bool) error {
	err := fmt.Errorf("the API server does not accept the credential (401): %s", why)
	if certain {
		return spot.Permanent(err)
	}
	return spot.PossiblyTransient(err)
}

// clockOr says for certain that our clock is wrong, or if it is not, something else.
func clockOr(skew time.Duration, otherwise string) (why string, certain bool) {
	if skew.Abs() < tolerableSkew {
		return otherwise, false
	}
	side := "behind"
	if skew > 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("our clock is %s %s the API server's: set it right", skew.Abs().Round(time.Minute), side), true
}

// skewOf is how far our clock is ahead of that of the server, which stands in every response; zero if it does not.
func skewOf(resp *http.Response) time.Duration {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return time.Since(date)
}

// rewind is the request to be sent again; false if its body cannot be read twice.
func rewind(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	req = req.Clone(req.Context())
	req.Body = body
	return req, true
}

// discard reads what is left of a response, so that its connection can be used again.
func discard(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
}
