// Package sts is AWS's Security Token Service as far as GetCallerIdentity, for tests: it knows the identities it is
// told of, and believes a request only if its Signature Version 4 is right and its date is near the server's clock.
// aws-iam-authenticator and the AWS SDKs take it for the real one.
package sts

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Server answers GetCallerIdentity over HTTP. Its methods may be called at any time.
type Server struct {
	mu         sync.Mutex
	identities map[string]Identity // by access key
	ahead      time.Duration
	requests   []Request
}

// Request is one that the server answered.
type Request struct {
	Host        string
	UserAgent   string
	AccessKeyID string // empty if there was none to be read
	Presigned   bool   // signed in the URL, not in a header
	Code        string // of the error it was answered with; empty for success
}

// New returns a server that knows the identities.
func New(identities ...Identity) *Server {
	s := &Server{identities: map[string]Identity{}}
	for _, i := range identities {
		s.Add(i)
	}
	return s
}

// Add makes an identity known, or replaces what was known by its access key.
func (s *Server) Add(i Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities[i.AccessKeyID] = i
}

// SetClock sets the server's clock ahead of this machine's, or behind for a negative duration: to the server, whoever
// signs by this machine's clock then has a wrong one.
func (s *Server) SetClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

// Requests returns every request so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

func (s *Server) known(accessKeyID string) (Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.identities[accessKeyID]
	return i, ok
}

// ServeHTTP answers one request: in JSON if that is accepted, as aws-iam-authenticator asks, else in XML.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.now()
	// SDKs learn from it by how much their clock is off.
	w.Header().Set("Date", now.UTC().Format(http.TimeFormat))

	record := Request{Host: r.Host, UserAgent: r.UserAgent()}
	identity, refused := s.identify(r, now, &record)
	if refused != nil {
		record.Code = refused.code
	}
	// Before the answer: whoever has it can count on its record.
	s.mu.Lock()
	s.requests = append(s.requests, record)
	s.mu.Unlock()

	if refused != nil {
		answerError(w, r, refused)
		return
	}
	answerIdentity(w, r, identity)
}

// identify finds out whose request it is. What it learns on the way goes into record.
func (s *Server) identify(r *http.Request, now time.Time, record *Request) (Identity, *refusal) {
	const most = 1 << 20 // far more than any parameters of GetCallerIdentity
	body, err := io.ReadAll(io.LimitReader(r.Body, most))
	if err != nil {
		return Identity{}, refuse(http.StatusBadRequest, "MalformedInput", "the body could not be read")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Identity{}, refuse(http.StatusBadRequest, "MalformedQueryString", "the query could not be read")
	}
	if r.URL.Path != "/" && r.URL.Path != "" {
		return Identity{}, refuse(http.StatusNotFound, "UnknownOperationException", "nothing is served at this path")
	}
	if err := checkOperation(r, query, body); err != nil {
		return Identity{}, err
	}
	sig, refused := readSignature(r, query)
	if refused != nil {
		return Identity{}, refused
	}
	record.AccessKeyID, record.Presigned = sig.accessKeyID, sig.presigned
	identity, known := s.known(sig.accessKeyID)
	if !known {
		return Identity{}, invalidToken()
	}
	if err := sig.check(identity, r, query, body, now); err != nil {
		return Identity{}, err
	}
	return identity, nil
}

// checkOperation refuses all but GetCallerIdentity, named in the query or in the body of a POST.
func checkOperation(r *http.Request, query url.Values, body []byte) *refusal {
	parameters := query
	if r.Method == http.MethodPost {
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return refuse(http.StatusBadRequest, "MalformedInput", "the body could not be read")
		}
		parameters = form
	}
	action, version := parameters.Get("Action"), parameters.Get("Version")
	if version == "" {
		version = "NO_VERSION_SPECIFIED"
	}
	if action != "GetCallerIdentity" || version != "2011-06-15" {
		return refuse(http.StatusBadRequest, "InvalidAction", fmt.Sprintf("Could not find operation %s for version %s", action, version))
	}
	return nil
}
