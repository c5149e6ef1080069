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
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// dialLimit leaves time for another attempt when an address drops packets.
	dialLimit = 3 * time.Second

	// pingAfter and pingLimit detect dead connections. Lambda freezes the execution environment between invocations,
	// and NAT gateways and load balancers may drop its connections meanwhile.
	pingAfter = 2 * time.Second
	pingLimit = 3 * time.Second

	// idleLimit is how long an idle connection is reused. Load balancers and NAT gateways drop idle connections, and
	// Lambda may have frozen the execution environment for longer.
	idleLimit = 30 * time.Second

	// idleConnections is how many connections stay open over HTTP/1.1: one per eviction in flight.
	idleConnections = 200

	// tolerableSkew is less than AWS tolerates: five minutes for some services, fifteen for most.
	tolerableSkew = 4 * time.Minute
)

func dialer() *net.Dialer { return &net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second} }

// Reach checks that the API server responds, no matter what. The request has no credentials, but takes the same path as
// all others: directly or through the same proxy.
func Reach(ctx context.Context, login *rest.Config) error {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	server, _, err := rest.DefaultServerUrlFor(login)
	if err != nil {
		return fmt.Errorf("parsing the API server's URL: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.JoinPath("livez").String(), nil)
	if err != nil {
		return fmt.Errorf("parsing the API server's URL: %w", err)
	}
	via := ""
	transport := &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			proxy, err := ProxyOf(login, r)
			if proxy != nil {
				via = " through the proxy " + proxy.Host
			}
			return proxy, err
		},
		DialContext:         dialer().DialContext,
		TLSHandshakeTimeout: dialLimit,
		DisableKeepAlives:   true,
	}
	resp, err := transport.RoundTrip(req)
	switch {
	case isCertificate(err): // whether it is trusted is a question of authentication
		return nil
	case err != nil:
		return fmt.Errorf("connecting to the API server%s: %w", via, err)
	}
	return resp.Body.Close()
}

// ProxyOf returns the proxy for a request to the API server; nil if there is none.
func ProxyOf(login *rest.Config, r *http.Request) (*url.URL, error) {
	if login.Proxy != nil {
		return login.Proxy(r)
	}
	return http.ProxyFromEnvironment(r)
}

// caReloadTransport reads the CA bundle again when it does not trust the server's certificate, and expects the
// endpoint's other name when the certificate lacks the first one. If that changes anything, it repeats the request.
type caReloadTransport struct {
	endpoint Endpoint

	mu     sync.Mutex
	pem    string
	byHost bool // the certificate has the host's name
	next   *http.Transport
}

func (t *caReloadTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	next, err := t.transport(req.Context(), nil, nil)
	if err != nil {
		return nil, err
	}
	for repeated := 0; ; repeated++ { // twice: both the bundle and the name may be wrong
		resp, err := next.RoundTrip(req)
		if err == nil || t.endpoint.CA == nil || !isCertificate(err) || repeated == 2 {
			return resp, err
		}
		again, readErr := t.transport(req.Context(), next, err)
		if readErr != nil {
			return nil, fmt.Errorf("%w; reading the CA bundle again: %w", err, readErr)
		}
		rewound, ok := rewind(req)
		if again == next || !ok {
			return nil, err
		}
		req, next = rewound, again
	}
}

// transport returns the current transport. If that is failed, it reads the CA bundle again or, if the certificate lacks
// the expected name, expects the other one.
func (t *caReloadTransport) transport(ctx context.Context, failed *http.Transport, why error) (*http.Transport, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != failed {
		return t.next, nil
	}
	if name := (x509.HostnameError{}); errors.As(why, &name) && t.endpoint.InternalName != "" {
		t.byHost = !t.byHost
		t.next = t.next.Clone()
		t.next.TLSClientConfig.ServerName = t.serverName()
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
			return nil, spot.Permanent(errors.New("the CA bundle contains no certificate: " +
				"set it to the decoded certificate-authority-data of the cluster's kubeconfig (PEM)"))
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
		IdleConnTimeout:     idleLimit,
		MaxIdleConnsPerHost: idleConnections,
		TLSClientConfig:     &tls.Config{RootCAs: pool, ServerName: t.serverName(), MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
	}
	return t.next, nil
}

// serverName returns the name that the certificate must have; empty for the host's.
func (t *caReloadTransport) serverName() string {
	if t.byHost {
		return ""
	}
	return t.endpoint.InternalName
}

// reconnect makes the next request open a new connection.
func (t *caReloadTransport) reconnect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next != nil {
		t.next.CloseIdleConnections()
		t.next = t.next.Clone()
	}
}

// protocolTransport records whether the server speaks HTTP/1.1: a load balancer with a TLS listener may not offer
// HTTP/2.
type protocolTransport struct {
	next  http.RoundTripper
	http1 *atomic.Bool
}

func (p protocolTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.next.RoundTrip(req)
	if err == nil {
		p.http1.Store(resp.ProtoMajor == 1)
	}
	return resp, err
}

// bearerTransport adds a token to each request. On a 401, it repeats the request once if there is a new token.
// Otherwise its error gives the likely cause, which the server never does.
type bearerTransport struct {
	tokens tokens
	next   http.RoundTripper
}

func (b *bearerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
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
	skew := clockSkew(resp)
	discard(resp)
	return nil, unauthorized(b.tokens.explain(req.Context(), token, skew))
}

func (b *bearerTransport) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context()) // a RoundTripper must not change the request
	req.Header.Set("Authorization", "Bearer "+token)
	return b.next.RoundTrip(req)
}

// authErrorTransport explains a 401 for credentials from a kubeconfig.
type authErrorTransport struct{ next http.RoundTripper }

func (e *authErrorTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.next.RoundTrip(req)
	if err != nil || !isUnauthorized(resp) {
		return resp, err
	}
	skew := clockSkew(resp)
	discard(resp)
	return nil, unauthorized(clockSkewOr(skew, "it may have expired or belong to another cluster: create a new kubeconfig"))
}

// isUnauthorized reports whether the API server rejected the credential. A 401 from an admission webhook does not
// count.
func isUnauthorized(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized {
		return false
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), rest}
	return err != nil || !bytes.Contains(body, []byte(webhookPrefix))
}

var errUnauthorized = errors.New("the API server rejected the credential (401)")

func unauthorized(why string) error {
	return spot.Permanent(fmt.Errorf("%w: %s", errUnauthorized, why))
}

// clockSkewOr blames our clock if it is wrong, and otherwise returns the given cause.
func clockSkewOr(skew time.Duration, otherwise string) string {
	if skew.Abs() < tolerableSkew {
		return otherwise
	}
	side := "behind"
	if skew > 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("the local clock is %s %s the API server's: correct it", skew.Abs().Round(time.Minute), side)
}

// clockSkew returns how far our clock is ahead of the response's Date header; zero if there is none.
func clockSkew(resp *http.Response) time.Duration {
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return time.Since(date)
}

// rewind returns the request for a second attempt; false if its body cannot be read again.
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

// discard reads the rest of a response, so that the connection can be reused.
func discard(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
}
