package events

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/util/cert"
)

// Receiver is the rest of the Internet: an HTTPS server on loopback that stands for some hosts and keeps what it gets.
// Stop it with Close.
type Receiver struct {
	*httptest.Server
	Client *http.Client // connects to it, whatever the host, and verifies its certificate

	mu     sync.Mutex
	posts  []Post
	answer http.HandlerFunc
}

type bodyKey struct{}

// Body is the key of the request's body in the context of an answer's request.
var Body bodyKey

// Post is a request that the receiver got.
type Post struct {
	At     time.Time
	URL    string
	Header http.Header
	Body   string
}

// StartReceiver serves the hosts on a free port of 127.0.0.1, with a certificate of its own.
func StartReceiver(hosts ...string) (*Receiver, error) {
	chain, key, err := cert.GenerateSelfSignedCertKey(hosts[0], nil, hosts)
	if err != nil {
		return nil, fmt.Errorf("starting the receiver: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("starting the receiver: %w", err)
	}
	r := &Receiver{}
	r.Server = httptest.NewUnstartedServer(r)
	r.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	r.StartTLS()
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(chain)
	at := r.Listener.Addr().String()
	r.Client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, at)
		}}}
	return r, nil
}

// Answer sets the response to each request; nil is status 200.
func (r *Receiver) Answer(with http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = with
}

// Posts returns the requests since the last call, in order.
func (r *Receiver) Posts() []Post {
	r.mu.Lock()
	defer r.mu.Unlock()
	posts := slices.Clone(r.posts)
	r.posts = nil
	return posts
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(in.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.mu.Lock()
	r.posts = append(r.posts, Post{At: time.Now(), URL: "https://" + in.Host + in.RequestURI, Header: in.Header, Body: string(body)})
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(w, in.WithContext(context.WithValue(in.Context(), Body, string(body))))
	}
}
