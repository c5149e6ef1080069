package testenv

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// FaultProxy is a proxy to an AWS endpoint with fault injection: it records calls, drops the response to the n-th write
// and all later writes, and denies calls as IAM does. Stop it with Close.
type FaultProxy struct {
	*httptest.Server
	to    *httputil.ReverseProxy
	asked func(action string, body []byte)

	mu     sync.Mutex
	called []string // every action, as IAM writes it
	writes []string
	left   int                      // writes until the connection is cut; 0 is never
	counts func(action string) bool // which writes count
	dead   bool                     // connection cut: no more writes
	deny   func(action string, form url.Values) bool
	answer func(action string, form url.Values) *Answer
}

// Answer is a response in AWS's form: XML or JSON.
type Answer struct {
	Status int
	Body   string
}

// StartFaultProxy serves on a free port of 127.0.0.1. It calls asked before it forwards a request, and answered with
// each response.
func StartFaultProxy(upstream string, asked func(action string, body []byte),
	answered func(*http.Response) error) (*FaultProxy, error) {
	to, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	p := &FaultProxy{to: httputil.NewSingleHostReverseProxy(to), asked: asked}
	p.to.ModifyResponse = answered
	p.Server = httptest.NewServer(p)
	return p, nil
}

// Cluster returns a proxy to a Kubernetes API server that counts and cuts writes together with those to AWS. It serves
// plain HTTP and authenticates to the server with the transport.
func (p *FaultProxy) Cluster(server string, transport http.RoundTripper) (*httptest.Server, error) {
	at, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	to := httputil.NewSingleHostReverseProxy(at)
	to.Transport = transport
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action := "kubernetes:" + r.Method
		asks := strings.HasSuffix(r.URL.Path, "reviews") || r.URL.Query().Has("dryRun") // by POST and PATCH
		if r.Method == http.MethodGet || asks {
			action = "kubernetes:Get"
		}
		execute, respond, _ := p.see(action, nil)
		forward(w, r, to, execute, respond)
	})), nil
}

func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	action := actionOf(r, body)
	form, _ := url.ParseQuery(string(body)) // empty for other protocols
	if a := p.answered(action, form); a != nil {
		w.Header().Set("Content-Type", "text/xml")
		if strings.HasPrefix(a.Body, "{") {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		}
		w.WriteHeader(a.Status)
		io.WriteString(w, a.Body)
		return
	}
	execute, respond, denied := p.see(action, form)
	if denied {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>`+
			`User: arn:aws:iam::1:user/x is not authorized to perform: `+action+`</Message></Error></ErrorResponse>`)
		return
	}
	p.asked(action, body)
	forward(w, r, p.to, execute, respond)
}

// forward executes the request if execute is set, and responds only if respond is set, too.
func forward(w http.ResponseWriter, r *http.Request, to http.Handler, execute, respond bool) {
	switch {
	case execute && respond:
		to.ServeHTTP(w, r)
		return
	case execute:
		to.ServeHTTP(httptest.NewRecorder(), r)
	}
	panic(http.ErrAbortHandler)
}

// answered returns the proxy's own response; nil to forward the request.
func (p *FaultProxy) answered(action string, form url.Values) *Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var a *Answer
	if p.answer != nil {
		a = p.answer(action, form)
	}
	if a == nil && action == "iam:ListServiceSpecificCredentials" { // moto does not implement it
		a = &Answer{http.StatusOK, "<R><ListServiceSpecificCredentialsResult/></R>"}
	}
	if a != nil {
		p.called = append(p.called, action)
	}
	return a
}

func (p *FaultProxy) see(action string, form url.Values) (execute, respond, denied bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called = append(p.called, action)
	if p.deny != nil && p.deny(action, form) {
		return false, false, true
	}
	if !isWrite(action) {
		return true, true, false
	}
	if p.dead {
		return false, false, false
	}
	p.writes = append(p.writes, action)
	if p.left > 0 && p.counts(action) {
		p.left--
		p.dead = p.left == 0
	}
	return true, !p.dead, false
}

// Reset clears the records and all faults.
func (p *FaultProxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called, p.writes, p.left, p.dead, p.deny, p.answer = nil, nil, 0, false, nil, nil
}

// CutOff executes n writes and drops the response to the last.
func (p *FaultProxy) CutOff(n int) { p.CutOffAt(n, func(string) bool { return true }) }

// CutOffAt is CutOff for the writes that count. Other writes succeed until then.
func (p *FaultProxy) CutOffAt(n int, counts func(action string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.counts = n, counts
}

// Denies denies calls as IAM does.
func (p *FaultProxy) Denies(which func(action string, form url.Values) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deny = which
}

// Answers lets f respond to calls; it returns nil for those to forward. The proxy serializes its calls.
func (p *FaultProxy) Answers(f func(action string, form url.Values) *Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// Written returns the writes since the last Reset, in order.
func (p *FaultProxy) Written() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.writes...)
}

// Called returns all calls since the last Reset, in order.
func (p *FaultProxy) Called() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.called...)
}

// WasCut reports whether the connection was cut.
func (p *FaultProxy) WasCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

var scope = regexp.MustCompile(`/([a-z0-9-]+)/aws4_request`)

// actionOf returns the IAM action of a request, as far as the request shows it.
func actionOf(r *http.Request, body []byte) string {
	service := ""
	if m := scope.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		service = m[1]
	}
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		return service + ":" + target[strings.LastIndexByte(target, '.')+1:]
	}
	if form, err := url.ParseQuery(string(body)); err == nil && form.Get("Action") != "" {
		return service + ":" + form.Get("Action")
	}
	path := strings.TrimRight(r.URL.Path, "/")
	switch get := r.Method == http.MethodGet || r.Method == http.MethodHead; {
	case get && service == "lambda" && strings.HasSuffix(path, "/functions"):
		return service + ":ListFunctions"
	case get && service == "lambda":
		return service + ":GetFunction"
	case get:
		return service + ":Get"
	case strings.HasSuffix(path, "/invocations"):
		return service + ":InvokeFunction"
	case r.Method == http.MethodDelete && service == "lambda":
		return service + ":DeleteFunction"
	}
	return service + ":" + r.Method + r.URL.RawQuery
}

func isWrite(action string) bool {
	_, name, _ := strings.Cut(action, ":")
	for _, reading := range []string{"Get", "List", "Describe", "AssumeRole", "Filter", "Invoke"} {
		if strings.HasPrefix(name, reading) {
			return false
		}
	}
	return true
}
