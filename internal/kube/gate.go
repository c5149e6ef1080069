package kube

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	// gateFailures closes the gate. A single 401 closes it too: the authenticator asks AWS, which throttles.
	gateFailures = 3

	// The pause between probes is random, below a bound that doubles from the first to the last.
	probeFirst, probeFirstRejected, probeLast = 250 * time.Millisecond, time.Second, 5 * time.Second

	// probeLimit is how long others wait for the response to a probe.
	probeLimit = 8 * time.Second

	// A 401 that lasts for rejectedLimit needs a new connection, then at most every reconnectPause: behind the load
	// balancer, there may be an API server with a working authenticator.
	rejectedLimit, reconnectPause = 5 * time.Second, 10 * time.Second
)

// gate protects an API server that does not respond: instead of every request of a node's 50 evictions, one probes the
// server and the others wait. It counts failures for each HTTP method, so that a request that always fails does not
// delay the others.
type gate struct {
	next      http.RoundTripper
	reconnect func()

	mu      sync.Mutex
	methods map[string]*gateState
}

// gateState is the state of the gate for one HTTP method.
type gateState struct {
	failures    int // in a row
	last        error
	rejected    time.Time // the first 401 in a row
	reconnected time.Time
	pause       time.Duration // bound of the last pause
	next        time.Time     // when to probe
	probe       time.Time     // start of a probe without a response
	changed     chan struct{} // closed when the state changes
}

func (g *gate) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.enter(req.Context(), req.Method); err != nil {
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	failure := err
	switch {
	case err != nil && errors.Is(req.Context().Err(), context.Canceled): // says nothing about the server
		return nil, err
	case err == nil && resp.StatusCode >= http.StatusBadGateway && resp.StatusCode <= http.StatusGatewayTimeout:
		failure = errors.New(resp.Status)
	}
	g.leave(req.Method, failure)
	return resp, err
}

// enter waits while the gate is closed, unless the request may probe the server.
func (g *gate) enter(ctx context.Context, method string) error {
	for {
		wait, changed, last := g.tryEnter(method)
		if wait <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not sent, because the API server fails: %w", last)
		case <-changed:
		case <-time.After(wait):
		}
	}
}

func (g *gate) tryEnter(method string) (wait time.Duration, changed <-chan struct{}, last error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.methods[method]
	if s == nil || s.next.IsZero() {
		return 0, nil, nil
	}
	now := time.Now()
	at := s.next
	if busy := s.probe.Add(probeLimit); busy.After(at) {
		at = busy
	}
	if now.Before(at) {
		return at.Sub(now), s.changed, s.last
	}
	s.probe = now
	return 0, nil, nil
}

// leave opens the gate after a success. After a failure, it may close it.
func (g *gate) leave(method string, failure error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.methods[method]
	if s == nil {
		s = &gateState{changed: make(chan struct{})}
		if g.methods == nil {
			g.methods = map[string]*gateState{}
		}
		g.methods[method] = s
	}
	close(s.changed)
	s.changed = make(chan struct{})
	if failure == nil {
		*s = gateState{changed: s.changed, reconnected: s.reconnected}
		return
	}
	now := time.Now()
	s.failures++
	s.last, s.probe = failure, time.Time{}
	first := probeFirst
	if errors.Is(failure, errUnauthorized) {
		first = probeFirstRejected
		if s.rejected.IsZero() {
			s.rejected = now
		}
		if now.Sub(s.rejected) >= rejectedLimit && now.Sub(s.reconnected) >= reconnectPause {
			s.reconnected = now
			g.reconnect()
		}
	} else if s.rejected = (time.Time{}); s.failures < gateFailures {
		return
	}
	if s.pause == 0 {
		s.pause = first
	} else if !now.Before(s.next) {
		s.pause = min(2*s.pause, probeLast)
	}
	s.next = now.Add(rand.N(s.pause))
}
