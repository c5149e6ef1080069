package iamflow

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// proxy stands before moto. It notes what is called, and can break off a run: at its n-th write.
type proxy struct {
	*httptest.Server
	to *httputil.ReverseProxy

	mu     sync.Mutex
	all    []string // every action, as IAM writes it
	writes []string
	cutAt  int  // number of the write after which the connection is cut, from 1; 0 is never
	dead   bool // it has been cut: nothing is written any more
	deny   func(action string, form url.Values) bool
}

func newProxy(t *testing.T, moto string) *proxy {
	target, err := url.Parse(moto)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: httputil.NewSingleHostReverseProxy(target)}
	p.to.ModifyResponse = noteSecrets
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
	noteStored(action, body)
	switch {
	case carryOut && answer:
		p.to.ServeHTTP(w, r)
	case carryOut:
		p.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		panic(http.ErrAbortHandler)
	}
}

func (p *proxy) see(action string, form url.Values) (carryOut, answer, denied bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, action)
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
	if len(p.writes) == p.cutAt {
		p.dead = true
		return true, false, false
	}
	return true, true, false
}

// reset forgets what was noted, and lets everything through again.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.writes, p.cutAt, p.dead, p.deny = nil, nil, 0, false, nil
}

// cutOff lets n writes be carried out, and loses the answer to the last.
func (p *proxy) cutOff(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutAt = n
}

// denies has calls refused as IAM would.
func (p *proxy) denies(which func(action string, form url.Values) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deny = which
}

func (p *proxy) written() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.writes...)
}

func (p *proxy) called() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.all...)
}

var scope = regexp.MustCompile(`/([a-z0-9-]+)/aws4_request`)

// actionOf is the request as IAM writes it.
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
	switch { // Lambda's is the only one that has paths
	case r.Method == http.MethodGet && strings.HasSuffix(strings.TrimRight(r.URL.Path, "/"), "/functions"):
		return service + ":ListFunctions"
	case r.Method == http.MethodGet:
		return service + ":GetFunction"
	}
	return service + ":" + map[string]string{http.MethodDelete: "DeleteFunction"}[r.Method]
}

func isWrite(action string) bool {
	_, name, _ := strings.Cut(action, ":")
	for _, reading := range []string{"Get", "List", "Describe", "AssumeRole"} {
		if strings.HasPrefix(name, reading) {
			return false
		}
	}
	return true
}

// secrets is all that went over the wire which nobody may see, from any test.
var secrets struct {
	sync.Mutex
	seen []string
}

func noteSecret(s string) {
	if len(s) < 16 {
		return
	}
	secrets.Lock()
	defer secrets.Unlock()
	secrets.seen = append(secrets.seen, s)
}

var secretKey = regexp.MustCompile(`<SecretAccessKey>([^<]+)</SecretAccessKey>`)

// noteSecrets notes the secrets of access keys when AWS tells them.
func noteSecrets(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	for _, m := range secretKey.FindAllStringSubmatch(string(body), -1) {
		noteSecret(m[1])
	}
	return nil
}

// noteStored notes what is put into Secrets Manager, each text of it.
func noteStored(action string, body []byte) {
	var in struct{ SecretString string }
	if action != "secretsmanager:PutSecretValue" || json.Unmarshal(body, &in) != nil {
		return
	}
	var texts map[string]string
	if json.Unmarshal([]byte(in.SecretString), &texts) == nil {
		noteSecret(texts["secretAccessKey"])
		noteSecret(texts["token"])
	}
}
