// Package awsfake is EC2 and EC2 Auto Scaling on loopback: a sim.AWS behind the Query protocol, for programs that are
// pointed at it with AWS_ENDPOINT_URL. It has the operations that a Cloud calls; everything else, an unknown parameter
// included, is a loud error, so that nothing seems to work that was never looked at.
//
// It does not check signatures, only which access key made one.
package awsfake

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/castai/kops-spot/internal/sim"
)

// Server answers for a sim.AWS. It is an http.Handler; Start also gives it a port.
type Server struct {
	aws  *sim.AWS
	http *http.Server
	url  string

	mu      sync.Mutex
	refused map[string]sim.Fault // by access key id
	serial  int                  // of requests
}

// New is a Server without a port.
func New(aws *sim.AWS) *Server { return &Server{aws: aws, refused: map[string]sim.Fault{}} }

// Start serves an account on a port of 127.0.0.1; 0: any that is free.
func Start(aws *sim.AWS, port int) (*Server, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("starting a fake AWS: %w", err)
	}
	s := New(aws)
	s.http, s.url = &http.Server{Handler: s}, "http://"+l.Addr().String()
	go s.http.Serve(l)
	return s, nil
}

// URL is where a started Server listens.
func (s *Server) URL() string { return s.url }

// Env is the environment for programs that shall take a started Server for AWS.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.url,
		"AWS_REGION=" + s.aws.Region(),
		"AWS_DEFAULT_REGION=" + s.aws.Region(), // what version 1 of the AWS CLI reads
		"AWS_ACCESS_KEY_ID=AKIDFAKE",
		"AWS_SECRET_ACCESS_KEY=fake",
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Close stops a started Server, and cuts the connections it has.
func (s *Server) Close() error { return s.http.Close() }

// RefuseAccessKey has every call made with this access key answered with f, e.g. sim.ExpiredCredentials.
func (s *Server) RefuseAccessKey(id string, f sim.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[id] = f
}

// AcceptAccessKey ends what RefuseAccessKey began.
func (s *Server) AcceptAccessKey(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, id)
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.serial++
	requestID := fmt.Sprintf("00000000-0000-0000-0000-%012d", s.serial)
	s.mu.Unlock()

	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := params{form: r.Form, used: map[string]bool{}}
	op := p.value("Action")
	p.value("Version")
	key, service := credential(r)

	out, err := s.answer(r, op, service, key, &p)
	if err == nil {
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		xml.NewEncoder(w).Encode(envelope(op, requestID, out))
		return
	}
	var e *sim.AWSError
	if !errors.As(err, &e) || e.Code == "" {
		// No answer, or nobody who waits for one: the connection breaks.
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(e.HTTPStatus)
	xml.NewEncoder(w).Encode(failure(service, requestID, e))
}

func (s *Server) answer(r *http.Request, op, service, key string, p *params) ([]element, error) {
	switch {
	case key == "" && service == "":
		return nil, &sim.AWSError{Code: "MissingAuthenticationToken", Message: "Missing Authentication Token", HTTPStatus: 403}
	case !(service == "ec2" && sim.IsEC2(op) || service == "autoscaling" && sim.IsAutoScaling(op)):
		return nil, &sim.AWSError{Code: "InvalidAction", HTTPStatus: 400,
			Message: fmt.Sprintf("The fake has no action %q of service %q.", op, service)}
	}
	s.mu.Lock()
	f, refused := s.refused[key]
	s.mu.Unlock()
	if refused {
		return nil, f.Says(op)
	}
	return s.operation(r.Context(), op, p)
}

// credential reads access key id and service from the scope of a signature of version 4:
// "AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, …".
func credential(r *http.Request) (key, service string) {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	if parts := strings.Split(scope, "/"); len(parts) == 5 {
		return parts[0], parts[3]
	}
	return "", ""
}
