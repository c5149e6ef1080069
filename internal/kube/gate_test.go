package kube

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// server is an API server that a test breaks and repairs.
type server struct {
	mu      sync.Mutex
	failure error // for PATCH: always nil
	delay   time.Duration
	sent    []time.Time
}

func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.sent = append(s.sent, time.Now())
	err, delay := s.failure, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	if req.Method == http.MethodPatch {
		err = nil
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, err
}

// request sends a request with a limit of 15 s, until it succeeds or the test ends.
func (g *gate) request(ctx context.Context, method string) {
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, writeLimit)
		req, _ := http.NewRequestWithContext(attempt, method, "https://api", nil)
		_, err := g.RoundTrip(req)
		cancel()
		if err == nil {
			return
		}
		time.Sleep(probeFirst)
	}
}

// TestGate sends 50 requests at once to a server that fails for 20 s.
func TestGate(t *testing.T) {
	for name, c := range map[string]struct {
		failure error
		most    int // requests until the server is repaired
	}{
		"no response": {errors.New("connection refused"), 40},
		"401":         {unauthorized("unknown role"), 30},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reconnects []time.Duration
				began := time.Now()
				s := &server{failure: c.failure}
				g := &gate{next: s, reconnect: func() { reconnects = append(reconnects, time.Since(began)) }}
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() { g.request(t.Context(), http.MethodPost) })
				}
				time.Sleep(10 * time.Second)
				before := time.Now()
				g.request(t.Context(), http.MethodPatch)
				if took := time.Since(before); took > 0 {
					t.Errorf("another method waited for %s", took)
				}
				time.Sleep(10 * time.Second)
				if n := s.count(); n > c.most || n < 5 {
					t.Errorf("got %d requests in 20 s, want at most %d", n, c.most)
				}
				s.fail(nil)
				repaired := time.Now()
				all.Wait()
				if took := time.Since(repaired); took > probeLast {
					t.Errorf("the last request succeeded after %s", took)
				}
				if n := s.count(); n > c.most+51 {
					t.Errorf("got %d requests in all", n)
				}
				switch isRejected := errors.Is(c.failure, errUnauthorized); {
				case !isRejected && len(reconnects) > 0, isRejected && len(reconnects) == 0:
					t.Errorf("got new connections after %v", reconnects)
				case isRejected && (reconnects[0] < rejectedLimit || len(reconnects) > 2):
					t.Errorf("got new connections after %v, want one after 5 s and another after 15 s", reconnects)
				}
			})
		})
	}
}

// TestSlowProbe checks that a probe without a response does not delay others for long.
func TestSlowProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{failure: errors.New("503")}
		g := &gate{next: s, reconnect: func() {}}
		began := time.Now()
		var all sync.WaitGroup
		all.Go(func() { g.request(t.Context(), http.MethodGet) })
		time.Sleep(3 * time.Second)
		s.mu.Lock()
		s.failure, s.delay = nil, time.Hour
		s.mu.Unlock()
		time.Sleep(6 * time.Second) // the next probe is in flight
		s.mu.Lock()
		s.delay = 0
		s.mu.Unlock()
		attempt := time.Now()
		g.request(t.Context(), http.MethodGet)
		if took := time.Since(attempt); took > probeLimit {
			t.Errorf("waited for %s", took)
		}
		all.Wait()
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the first request took %s", took)
		}
	})
}

// TestCanceledRequests checks that requests that we give up do not count.
func TestCanceledRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{delay: time.Hour}
		g := &gate{next: s}
		for range 2 * gateFailures {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			g.request(ctx, http.MethodGet)
		}
		if len(g.methods) > 0 {
			t.Errorf("got %+v", g.methods)
		}
	})
}
