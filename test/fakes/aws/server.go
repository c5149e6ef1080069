// Package aws serves a spottest.AWS as EC2 and EC2 Auto Scaling on loopback, with the Query protocol, for programs with
// AWS_ENDPOINT_URL. It supports the operations of a Cloud, and keeps events for EventBridge's default bus. All other
// operations and unknown parameters are errors.
//
// It does not check signatures.
package aws

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"sync"

	"github.com/castai/kops-spot/internal/spottest"
)

// Server serves a spottest.AWS.
type Server struct {
	aws  *spottest.AWS
	http *http.Server
	url  string

	mu     sync.Mutex
	events []Event
}

// Start serves an account on a port of 127.0.0.1, or on any free port for 0.
func Start(aws *spottest.AWS, port int) (*Server, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("starting a fake AWS: %w", err)
	}
	s := &Server{aws: aws, url: "http://" + l.Addr().String()}
	s.http = &http.Server{Handler: s}
	go s.http.Serve(l)
	return s, nil
}

// Env is the environment of programs that use the server.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.url,
		"AWS_REGION=" + s.aws.Region(),
		"AWS_DEFAULT_REGION=" + s.aws.Region(), // for version 1 of the AWS CLI
		"AWS_ACCESS_KEY_ID=AKIDFAKE",
		"AWS_SECRET_ACCESS_KEY=fake",
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// URL is the endpoint.
func (s *Server) URL() string { return s.url }

// Close stops the server and its connections.
func (s *Server) Close() error { return s.http.Close() }

// service returns the service in the scope of a signature of version 4: "AWS4-HMAC-SHA256
// Credential=<key>/<date>/<region>/<service>/aws4_request, …".
var service = regexp.MustCompile(`Credential=[^,]+/([a-z0-9]+)/aws4_request`)

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Amz-Target") == "AWSEvents.PutEvents" {
		s.putEvents(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := params{form: r.Form, used: map[string]bool{}}
	op := p.value("Action")
	p.value("Version")
	to := ""
	if found := service.FindStringSubmatch(r.Header.Get("Authorization")); found != nil {
		to = found[1]
	}
	out, err := s.answer(r, op, to, &p)
	if err == nil {
		w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
		xml.NewEncoder(w).Encode(envelope(op, out))
		return
	}
	var e *spottest.AWSError
	if !errors.As(err, &e) || e.Code == "" {
		// No response, or the client has disconnected: close the connection.
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(e.HTTPStatus)
	xml.NewEncoder(w).Encode(failure(to, e))
}

func (s *Server) answer(r *http.Request, op, to string, p *params) ([]element, error) {
	if !(to == "ec2" && spottest.IsEC2(op) || to == "autoscaling" && spottest.IsAutoScaling(op)) {
		return nil, &spottest.AWSError{Code: "InvalidAction", HTTPStatus: 400,
			Message: fmt.Sprintf("The fake has no action %q of service %q.", op, to)}
	}
	do, err := s.read(r.Context(), op, p)
	if err == nil {
		err = p.unknown()
	}
	if err != nil {
		return nil, err
	}
	return do()
}
