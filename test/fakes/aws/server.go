// Package aws is EC2 and EC2 Auto Scaling on loopback: a spottest.AWS behind the Query protocol, for programs that are
// pointed at it with AWS_ENDPOINT_URL. It has the operations that a Cloud calls; everything else, an unknown parameter
// included, is a loud error, so that nothing seems to work that was never looked at.
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

	"github.com/castai/kops-spot/internal/spottest"
)

// Server answers for a spottest.AWS.
type Server struct {
	aws  *spottest.AWS
	http *http.Server
	url  string
}

// Start serves an account on a port of 127.0.0.1; 0: any that is free.
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

// Env is the environment for programs that shall take the server for AWS.
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

// Close stops the server, and cuts the connections it has.
func (s *Server) Close() error { return s.http.Close() }

// service is in the scope of a signature of version 4:
// "AWS4-HMAC-SHA256 Credential=<key>/<date>/<region>/<service>/aws4_request, …".
var service = regexp.MustCompile(`Credential=[^,]+/([a-z0-9]+)/aws4_request`)

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
		// No answer, or nobody who waits for one: the connection breaks.
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
