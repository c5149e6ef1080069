package kube

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// TestExplanationDoesNotBlock: while one request waits for AWS to explain its 401, others get a token and an
// explanation.
func TestExplanationDoesNotBlock(t *testing.T) {
	asking := make(chan struct{})
	tokens := &iamToken{IAM: iamOf(lambdaRole, func(ctx context.Context) (string, error) {
		close(asking)
		<-ctx.Done()
		return "", ctx.Err()
	})}
	began := time.Now()
	explained := make(chan string, 1)
	go func() {
		explained <- tokens.explain(t.Context(), "", 0)
	}()
	<-asking
	if _, err := tokens.token(t.Context(), ""); err != nil {
		t.Error(err)
	}
	if why := tokens.explain(t.Context(), "", 0); why == "" {
		t.Error("got no explanation")
	}
	if d := time.Since(began); d > whoAmILimit/2 {
		t.Errorf("blocked for %s", d)
	}
	if why := <-explained; why == "" || time.Since(began) > whoAmILimit+time.Second {
		t.Errorf("got %q after %s", why, time.Since(began))
	}
}

// TestTokenReadDoesNotBlock: while a rejected token is read again, other requests use the current one.
func TestTokenReadDoesNotBlock(t *testing.T) {
	var reads atomic.Int32
	reading, done := make(chan struct{}), make(chan struct{})
	tokens := &storedToken{read: func(context.Context) (string, error) {
		if reads.Add(1) > 1 {
			close(reading)
			<-done
			return "second", nil
		}
		return "first", nil
	}}
	for range 2 {
		if got, err := tokens.token(t.Context(), ""); got != "first" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	tokens.readAt = time.Time{}
	again := make(chan string, 1)
	go func() {
		got, _ := tokens.token(t.Context(), "first")
		again <- got
	}()
	<-reading
	if got, err := tokens.token(t.Context(), "first"); got != "first" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	close(done)
	if got := <-again; got != "second" || reads.Load() != 2 {
		t.Errorf("got %q after %d reads", got, reads.Load())
	}
}

// TestIdleConnections: Lambda may freeze the function for longer than load balancers keep an idle connection.
func TestIdleConnections(t *testing.T) {
	transport, err := (&caReloadTransport{}).transport(t.Context(), nil, nil)
	if err != nil || transport.IdleConnTimeout <= 0 || transport.IdleConnTimeout > time.Minute {
		t.Errorf("idle connections are reused for %s, %v", transport.IdleConnTimeout, err)
	}
}

// TestWatchOverHTTP1: nothing detects a dead connection, so the watch ends by itself.
func TestWatchOverHTTP1(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var timeout atomic.Value
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Query().Get("watch") != "" {
				timeout.Store(r.URL.Query().Get("timeoutSeconds"))
				return
			}
			_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}`)
		}))
		srv.EnableHTTP2 = http2
		srv.StartTLS()
		defer srv.Close()
		cluster := clusterOf(t, WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, text("token"), ""))
		if err := cluster.FollowPods(t.Context(), "n", func(spot.PodChange) {}); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{false: "20", true: ""}[http2]; timeout.Load() != want {
			t.Errorf("HTTP/2 %v: got timeoutSeconds=%v, want %q", http2, timeout.Load(), want)
		}
	}
}
