package install

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

// cutter stands before the account. It notes what is written, and can break a run off: after its n-th write, whose answer is
// lost, nothing is written any more.
type cutter struct {
	*httptest.Server
	to *httputil.ReverseProxy

	mu     sync.Mutex
	writes []string
	at     int // number of the write, from 1; 0 is never
	dead   bool
}

func newCutter(upstream string) *cutter {
	to, err := url.Parse(upstream)
	if err != nil {
		panic(err)
	}
	c := &cutter{to: httputil.NewSingleHostReverseProxy(to)}
	c.Server = httptest.NewServer(c)
	return c
}

func (c *cutter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	switch pass, answer := c.see(actionOf(r, body)); {
	case !pass:
		panic(http.ErrAbortHandler)
	case !answer:
		c.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	default:
		c.to.ServeHTTP(w, r)
	}
}

func (c *cutter) see(action string) (pass, answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false, false
	}
	if !isWrite(action) {
		return true, true
	}
	c.writes = append(c.writes, action)
	c.dead = len(c.writes) == c.at
	return true, !c.dead
}

// begin forgets what was noted, lets everything through again, and cuts at the n-th write.
func (c *cutter) begin(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes, c.at, c.dead = nil, n, false
}

func (c *cutter) written() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.writes...)
}

func (c *cutter) wasCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead
}

var scope = regexp.MustCompile(`/([a-z0-9-]+)/aws4_request`)

// actionOf is the request, as far as it matters whether it writes.
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
	if r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasSuffix(r.URL.Path, "/invocations") {
		return service + ":Get"
	}
	return service + ":" + r.Method + r.URL.RawQuery
}

func isWrite(action string) bool {
	_, name, _ := strings.Cut(action, ":")
	for _, reading := range []string{"Get", "List", "Describe", "Filter"} {
		if strings.HasPrefix(name, reading) {
			return false
		}
	}
	return true
}
