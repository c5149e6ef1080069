package e2e

import (
	"cmp"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/spottest"
)

// apiServer returns a proxy to the API server.
func (r *fixture) apiServer() *httputil.ReverseProxy {
	r.Helper()
	target, err := url.Parse(r.cp.AdminConfig().Host)
	must(r, err)
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(r.cp.AdminConfig()))
	must(r, err)
	return &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }}
}

// serveAPI makes h the function's API server.
func (r *fixture) serveAPI(h http.Handler) {
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	r.Cleanup(server.Close)
	r.env["KOPS_SPOT_SERVER"] = server.URL
	r.env["KOPS_SPOT_CA"] = base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
		Bytes: server.Certificate().Raw}))
}

// gate is in front of the function's servers: the API server, EC2, Auto Scaling, Secrets Manager and CAST AI.
type gate struct {
	// intercept handles a request instead of its server, next.
	intercept func(w http.ResponseWriter, req *http.Request, next http.Handler)

	mu       sync.Mutex
	request  string // which requests are intercepted, as in spottest.FaultRequest
	left     int    // how many of them; negative for all
	down     bool   // all requests fail
	accepted map[string]int
}

// newGate puts a gate before all servers. The function reads its token from Secrets Manager if secret is set.
func (r *fixture) newGate(castai *castaiAPI, secret bool) *gate {
	r.Helper()
	g := &gate{accepted: map[string]int{}}
	api := r.apiServer()
	api.ModifyResponse = func(res *http.Response) error {
		name := requestName(res.Request)
		if (name == "create pods/eviction" || name == "delete pods") && res.StatusCode/100 == 2 {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.accepted[strings.TrimSuffix(res.Request.URL.Path, "/eviction")]++
		}
		return nil
	}
	r.serveAPI(g.before(api))
	cloud := httptest.NewServer(g.before(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch requestName(req) {
		case readsSecret:
			fmt.Fprintf(w, `{"SecretString":%q}`, shared.token)
		case spottest.CASTAIEvent:
			castai.ServeHTTP(w, req)
		default:
			r.fake.ServeHTTP(w, req)
		}
	})))
	r.Cleanup(cloud.Close)
	r.env["AWS_ENDPOINT_URL"] = cloud.URL
	if r.env["KOPS_SPOT_CASTAI_URL"] != "" {
		r.env["KOPS_SPOT_CASTAI_URL"] = cloud.URL
	}
	if secret {
		r.env["KOPS_SPOT_LOGIN"] = "secretsmanager:token"
	}
	return g
}

// fails makes the next n requests fail, or all if n is negative.
func (g *gate) fails(request string, n int, intercept func(http.ResponseWriter, *http.Request, http.Handler)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.request, g.left, g.intercept = request, n, intercept
}

// setDown makes all requests fail, or no longer.
func (g *gate) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
}

func (g *gate) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name := requestName(req)
		g.mu.Lock()
		hit := g.left != 0 && (g.request == name || g.request == spottest.AnyRequest ||
			g.request == spottest.AnyKubernetes && strings.Contains(name, " ") && name != spottest.CASTAIEvent)
		if hit {
			g.left--
		}
		down, intercept := g.down, g.intercept
		g.mu.Unlock()
		switch {
		case down:
			panic(http.ErrAbortHandler)
		case hit:
			intercept(w, req, next)
		default:
			next.ServeHTTP(w, req)
		}
	})
}

const readsSecret = "GetSecretValue"

// requestName returns the verb and resource of a request to Kubernetes, the operation of AWS, or CASTAIEvent.
func requestName(req *http.Request) string {
	if _, op, found := strings.Cut(req.Header.Get("X-Amz-Target"), "."); found {
		return op
	}
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case path[0] == "v1":
		return spottest.CASTAIEvent
	case len(path) < 3: // of the Query protocol
		_ = req.ParseForm()
		return req.Form.Get("Action")
	case path[0] == "api":
		path = path[2:]
	default:
		path = path[3:]
	}
	if path[0] == "namespaces" && len(path) > 2 {
		path = path[2:]
	}
	verb := map[string]string{http.MethodPost: "create"}[req.Method]
	switch {
	case verb != "":
	case req.Method != http.MethodGet:
		verb = strings.ToLower(req.Method)
	case req.URL.Query().Has("watch"):
		verb = "watch"
	case len(path) > 1:
		verb = "get"
	default:
		verb = "list"
	}
	if len(path) > 2 {
		return verb + " " + path[0] + "/" + path[2]
	}
	return verb + " " + path[0]
}

// serverFaults are the ways in which a request fails. Those that carry out the request lose only its response.
var serverFaults = map[string]func(w http.ResponseWriter, req *http.Request, next http.Handler){
	"refused": func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
	"truncated": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		answer := httptest.NewRecorder()
		if strings.HasPrefix(requestName(req), "watch ") { // it would not end
			answer.WriteString("\x00\x00")
		} else {
			next.ServeHTTP(answer, req)
			w.Header().Set("Content-Length", fmt.Sprint(answer.Body.Len()))
		}
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"slow": func(_ http.ResponseWriter, req *http.Request, _ http.Handler) {
		limit := 4 * time.Second
		if name := requestName(req); strings.HasPrefix(name, "Describe") || req.Method == http.MethodGet {
			limit = 6 * time.Second // longer than our own
		}
		select {
		case <-time.After(limit):
		case <-req.Context().Done():
		}
		panic(http.ErrAbortHandler)
	},
	"500": respond(http.StatusInternalServerError),
	"401": respond(http.StatusUnauthorized),
	"429": respond(http.StatusTooManyRequests),
}

// respond returns a fault that responds with a status.
func respond(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		w.Header().Set("Content-Type", "application/json")
		if code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "10")
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"message":"refused",`+
			`"details":{"retryAfterSeconds":%s}}`, code, cmp.Or(w.Header().Get("Retry-After"), "0"))
	}
}
