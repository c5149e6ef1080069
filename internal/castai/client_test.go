package castai

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	clusterID  = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
	providerID = "aws:///eu-west-1a/i-0123456789abcdef0"

	// secret has characters that JSON, URLs and HTML escape.
	secret = `c4st"k3y\v1+abc/d&f<g>=`
)

// inTurn returns the keys in turn and repeats the last one.
func inTurn(keys ...string) (func(context.Context) (string, error), *atomic.Int32) {
	var read atomic.Int32
	return func(context.Context) (string, error) { return keys[min(int(read.Add(1)), len(keys))-1], nil }, &read
}

// clientOf returns a client of the CAST AI at url, with secret as the key.
func clientOf(t *testing.T, url string) *Client {
	t.Helper()
	key, _ := inTurn(secret)
	return optioned(t, Options{URL: url, Key: key})
}

func optioned(t *testing.T, o Options) *Client {
	t.Helper()
	o.ClusterID, o.UserAgent = clusterID, "kops-spot/1.2.3"
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	c := New(o)
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// serve starts a CAST AI with the handler h and counts the requests.
func serve(t *testing.T, h http.HandlerFunc) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func interrupted(t *testing.T, c *Client) error {
	t.Helper()
	return c.Notify(t.Context(), "interrupted", "", providerID)
}

type class string

const (
	again class = "worth a retry"
	final class = "final"
)

// classOf returns the class of an error: whether a retry is expected to help.
func classOf(err error) class {
	if errors.Is(err, spot.ErrPermanent) {
		return final
	}
	return again
}

// expect fails the test unless err is of the class, contains all texts in one line and nothing of a key.
func expect(t *testing.T, err error, want class, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := classOf(err); got != want {
		t.Errorf("it is %s, want %s: %v", got, want, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
	if strings.ContainsAny(err.Error(), "\n\r\t\x1b") || len(err.Error()) > 1000 {
		t.Errorf("not one short line: %q", err)
	}
	for _, part := range []string{secret, "c4st", "k3y", "v1+abc"} {
		if strings.Contains(err.Error(), part) {
			t.Errorf("a part of the key is in the error: %v", err)
		}
	}
}

func TestTheRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	})
	for _, c := range []struct{ path, what, nodeID, providerID, body string }{
		{"", "interrupted", "7a6b", providerID,
			`{"event_type":"interrupted","node_id":"7a6b","provider_id":"aws:///eu-west-1a/i-0123456789abcdef0"}`},
		{"/", "rebalanceRecommendation", "", providerID,
			`{"event_type":"rebalanceRecommendation","node_id":"","provider_id":"aws:///eu-west-1a/i-0123456789abcdef0"}`},
		{"/castai/", "interrupted", "", `a"b`, `{"event_type":"interrupted","node_id":"","provider_id":"a\"b"}`},
	} {
		key, _ := inTurn(" \n" + secret + "\n")
		client := optioned(t, Options{URL: url + c.path, Key: key})
		if err := client.Notify(t.Context(), c.what, c.nodeID, c.providerID); err != nil {
			t.Fatal(err)
		}
		want := strings.TrimRight(c.path, "/") + "/v1/kubernetes/external-clusters/" + clusterID
		if got.Method != "POST" || got.RequestURI != want+"/events" {
			t.Errorf("%s %s, want POST %s/events", got.Method, got.RequestURI, want)
		}
		if string(body) != c.body {
			t.Errorf("got  %s\nwant %s", body, c.body)
		}
		got.Header.Del("Content-Length") // net/http's own
		header := http.Header{"X-Api-Key": {secret}, "User-Agent": {"kops-spot/1.2.3"},
			"Content-Type": {"application/json"}, "Accept": {"application/json"},
			"Accept-Encoding": {"gzip"}}
		if !maps.EqualFunc(got.Header, header, slices.Equal[[]string]) {
			t.Errorf("got  %v\nwant %v", got.Header, header)
		}
		if err := client.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got.Method != "GET" || got.RequestURI != want || len(body) != 0 || got.Header.Get("X-API-Key") != secret {
			t.Errorf("%s %s with %q, want GET %s", got.Method, got.RequestURI, body, want)
		}
	}
}

func TestWhereCASTAIIs(t *testing.T) {
	key, _ := inTurn(secret)
	c := New(Options{ClusterID: clusterID, Key: key})
	if want := "https://api.cast.ai/v1/kubernetes/external-clusters/" + clusterID; c.url != want ||
		c.limit != 5*time.Second {
		t.Errorf("%s, %s an attempt", c.url, c.limit)
	}
}

// TestInvalidEventsAreNotSent: the error is permanent, and neither the key is read nor a request sent.
func TestInvalidEventsAreNotSent(t *testing.T) {
	url, asked := serve(t, func(http.ResponseWriter, *http.Request) {})
	key, read := inTurn(secret)
	c := optioned(t, Options{URL: url, Key: key})
	expect(t, c.Notify(t.Context(), "interrupted", "7a6b", ""), final, "its provider ID is not known")
	expect(t, c.Notify(t.Context(), "interrupted", "7a6b", " "), final, "its provider ID is not known")
	expect(t, c.Notify(t.Context(), "Interrupted", "", providerID), final, providerID, `unknown event "Interrupted"`)
	expect(t, interrupted(t, New(Options{URL: url, Key: key})), final, providerID, "is not a UUID")
	expect(t, interrupted(t, New(Options{URL: url, ClusterID: clusterID})), final, "the API key is missing")
	if asked.Load() != 0 || read.Load() != 0 {
		t.Errorf("%d requests and %d reads of the key", asked.Load(), read.Load())
	}
}

// TestCustomHTTPClient is used and not modified.
func TestCustomHTTPClient(t *testing.T) {
	to, followed := serve(t, func(http.ResponseWriter, *http.Request) {})
	url, _ := serve(t, func(w http.ResponseWriter,
		r *http.Request) {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	var dialed atomic.Int32
	given := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network,
		addr string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}}
	key, _ := inTurn(secret)
	c := optioned(t, Options{URL: url, Key: key, HTTP: given})
	expect(t, interrupted(t, c), final, "not followed")
	if dialed.Load() != 1 || followed.Load() != 0 || given.CheckRedirect != nil {
		t.Errorf("%d connections by the custom transport, %d redirects followed, changed: %t", dialed.Load(),
			followed.Load(), given.CheckRedirect != nil)
	}
}
