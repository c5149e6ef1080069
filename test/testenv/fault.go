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

// FaultProxy stands before an AWS endpoint and plays a line that breaks: it notes what is called, loses the answer to the
// n-th write and lets nothing be written after it, and refuses calls as IAM would. It ends with Close.
type FaultProxy struct {
	*httptest.Server
	to    *httputil.ReverseProxy
	asked func(action string, body []byte)

	mu     sync.Mutex
	called []string // every action, as IAM writes it
	writes []string
	left   int                      // writes until the line is cut; 0 is never
	counts func(action string) bool // which of them count
	dead   bool                     // it has been cut: nothing is written any more
	deny   func(action string, form url.Values) bool
}

// StartFaultProxy serves on a free port of 127.0.0.1. asked is called before a request is handed on, answered with each answer.
func StartFaultProxy(upstream string, asked func(action string, body []byte), answered func(*http.Response) error) (*FaultProxy, error) {
	to, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	p := &FaultProxy{to: httputil.NewSingleHostReverseProxy(to), asked: asked}
	p.to.ModifyResponse = answered
	p.Server = httptest.NewServer(p)
	return p, nil
}

// Cluster is an endpoint for a Kubernetes API server on the same line: its writes are counted with the others, and cut with
// them. It takes plain HTTP from anybody, and speaks to the server with the log-in of the transport.
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
		carryOut, answer, _ := p.see(action, nil)
		handOn(w, r, to, carryOut, answer)
	})), nil
}

func (p *FaultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	action := actionOf(r, body)
	form, _ := url.ParseQuery(string(body)) // of other protocols it is none
	carryOut, answer, denied := p.see(action, form)
	if denied {
		w.Header().Set("Content-Type", "text/xml")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>User: arn:aws:iam::1:user/x is not authorized to perform: `+action+`</Message></Error></ErrorResponse>`)
		return
	}
	p.asked(action, body)
	handOn(w, r, p.to, carryOut, answer)
}

// handOn carries a request out, or not, and answers, or not.
func handOn(w http.ResponseWriter, r *http.Request, to http.Handler, carryOut, answer bool) {
	switch {
	case carryOut && answer:
		to.ServeHTTP(w, r)
		return
	case carryOut:
		to.ServeHTTP(httptest.NewRecorder(), r)
	}
	panic(http.ErrAbortHandler)
}

func (p *FaultProxy) see(action string, form url.Values) (carryOut, answer, denied bool) {
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

// Reset forgets what was noted, and lets everything through again.
func (p *FaultProxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called, p.writes, p.left, p.dead, p.deny = nil, nil, 0, false, nil
}

// CutOff lets n writes be carried out, and loses the answer to the last.
func (p *FaultProxy) CutOff(n int) { p.CutOffAt(n, func(string) bool { return true }) }

// CutOffAt lets n writes be carried out that count, and what else is written before, and loses the answer to the last.
func (p *FaultProxy) CutOffAt(n int, counts func(action string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.counts = n, counts
}

// Denies has calls refused as IAM would.
func (p *FaultProxy) Denies(which func(action string, form url.Values) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deny = which
}

// Written are the writes since the last reset, in their order.
func (p *FaultProxy) Written() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.writes...)
}

// Called are all calls since the last reset, in their order.
func (p *FaultProxy) Called() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.called...)
}

// WasCut reports whether there were as many writes as were to be let through.
func (p *FaultProxy) WasCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

var scope = regexp.MustCompile(`/([a-z0-9-]+)/aws4_request`)

// actionOf is the request as IAM writes it, as far as a request tells that.
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
