// Package castai notifies CAST AI's autoscaler of interruptions, so that it replaces the node.
//
// It uses POST /v1/kubernetes/external-clusters/{cluster}/events with the key in the header X-API-Key. CAST AI finds
// its own nodes by their ID and others by provider ID. Requests are idempotent and may be repeated.
package castai

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// attemptLimit bounds one HTTP attempt, from the connection to the last byte of the response.
	attemptLimit = 5 * time.Second

	// lingerLimit bounds the time to read a successful response, which only serves to reuse the connection.
	lingerLimit = 250 * time.Millisecond

	// bodyLimit is the most that is read of a response, in bytes.
	bodyLimit = 64 << 10
)

// phrases describes the events that the API supports.
var phrases = map[string]string{
	"interrupted":             "notifying CAST AI that %s is interrupted",
	"rebalanceRecommendation": "notifying CAST AI that a rebalance of %s is recommended",
}

// event is the body of the request. CAST AI finds nodes that it did not create only by provider ID.
type event struct {
	Type       string `json:"event_type"`
	NodeID     string `json:"node_id"`
	ProviderID string `json:"provider_id"`
}

// Client notifies CAST AI's autoscaler of events. It is safe for concurrent use.
type Client struct {
	url       string // of the cluster
	clusterID string
	userAgent string
	wrong     error // from Options.Check
	key       key
	http      *http.Client
	limit     time.Duration // of one attempt
}

// New returns a client without sending a request. It reads the key on first use. If Options.Check fails, each call
// returns its error.
func New(o Options) *Client {
	c := &Client{
		url:       o.clusterURL(),
		clusterID: o.ClusterID,
		userAgent: o.UserAgent,
		wrong:     o.Check(),
		key:       key{read: o.Key},
		http:      &http.Client{Transport: transport()},
		limit:     attemptLimit,
	}
	if c.userAgent == "" {
		c.userAgent = "kops-spot"
	}
	if o.HTTP != nil {
		given := *o.HTTP
		c.http = &given
	}
	// Do not follow redirects: they would leak the key.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// Notify sends an event: what is "interrupted" or "rebalanceRecommendation"; nodeID is CAST AI's own ID of the node
// (label provisioner.cast.ai/node-id), if any; providerID is the node's spec.providerID or its annotation
// provisioner.cast.ai/override-provider-id.
//
// It makes one attempt of at most 5 s, and a second one if the key is rejected and has been replaced. The caller
// retries its errors; spot.ErrPermanent marks those for which no retry is expected to help. An error may have a method
// `RetryAfter() time.Duration`: do not retry sooner.
//
// The status line decides: after a success, the rest of the response does not matter.
func (c *Client) Notify(ctx context.Context, what, nodeID, providerID string) error {
	phrase, ok := phrases[what]
	switch {
	case c.wrong != nil:
		return spot.Permanent(fmt.Errorf("notifying CAST AI about %s: %w", providerID, c.wrong))
	case !ok:
		return spot.Permanent(fmt.Errorf("notifying CAST AI about %s: unknown event %q", providerID, what))
	case strings.TrimSpace(providerID) == "":
		return spot.Permanent(errors.New("notifying CAST AI about a node: its provider ID is not known, and CAST AI requires it"))
	}
	doing := fmt.Sprintf(phrase, providerID)
	body, err := json.Marshal(event{what, nodeID, providerID})
	if err != nil {
		return spot.Permanent(fmt.Errorf("%s: %w", doing, err))
	}
	return c.send(ctx, doing, http.MethodPost, c.url+"/events", body)
}

// Verify reads the cluster, to check that the API is reachable and accepts the key. That the key may also send events
// cannot be checked without sending one. Its errors are like those of Notify.
func (c *Client) Verify(ctx context.Context) error {
	const doing = "reading the cluster from CAST AI"
	if c.wrong != nil {
		return spot.Permanent(fmt.Errorf("%s: %w", doing, c.wrong))
	}
	return c.send(ctx, doing, http.MethodGet, c.url, nil)
}

// send sends a request, and again if the key is rejected and has been replaced.
func (c *Client) send(ctx context.Context, doing, method, url string, body []byte) error {
	key, err := c.key.current(ctx, "")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	reply, err := c.attempt(ctx, method, url, key, body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !reply.refusesKey() {
		return c.errorOf(reply, doing)
	}
	fresh, err := c.key.current(ctx, key)
	if err != nil {
		return spot.Permanent(fmt.Errorf("%w; and %w", c.errorOf(reply, doing), err))
	}
	if fresh != key {
		if reply, err = c.attempt(ctx, method, url, fresh, body); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	return c.errorOf(reply, doing)
}

// attempt makes one attempt. Its error means that there was no response.
func (c *Client) attempt(ctx context.Context, method, url, key string, body []byte) (response, error) {
	bounded, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, spot.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("X-API-Key", key)
	// Sends nothing, but lets net/http repeat the request on a new connection if the old one was closed while Lambda
	// had frozen the function.
	req.Header["Idempotency-Key"] = []string{}

	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		defer resp.Body.Close()
		if success(resp.StatusCode) {
			linger := time.AfterFunc(lingerLimit, cancel)
			defer linger.Stop()
		}
		return read(resp, key), nil
	case ctx.Err() != nil:
		return response{}, ctx.Err()
	case bounded.Err() != nil:
		// Not context.DeadlineExceeded: the caller's deadline has not passed.
		return response{}, fmt.Errorf("no response within %s", c.limit)
	}
	return response{}, transportError(err, key)
}

const (
	dialLimit = 3 * time.Second

	// pingAfter and pingLimit detect a dead connection within one attempt.
	pingAfter = time.Second
	pingLimit = 2 * time.Second
)

func transport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialLimit, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    dialLimit,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingLimit},
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: bodyLimit,
	}
}

// transportError returns the cause of a failed request as an excerpt: net/http quotes what it could not parse, which
// may contain the key.
func transportError(err error, key string) error {
	cause := err
	var of *url.Error
	if errors.As(err, &of) {
		cause = of.Err
	}
	said := excerpt(cause.Error(), false, key)
	if isCertificate(err) {
		return spot.Permanent(fmt.Errorf("its certificate is not trusted: %s; "+
			"exclude CAST AI's API from any TLS-inspecting proxy, and check the clock", said))
	}
	return errors.New(said)
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}
