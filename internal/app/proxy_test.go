package app

import (
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"
)

// TestSelfCheckOfTheNetwork: the self-check takes the function's path to the API server, through the proxy, where the
// server's name does not even resolve. It reports AWS services without a route as such. net/http reads the environment
// once, so each case is a process.
func TestSelfCheckOfTheNetwork(t *testing.T) {
	if os.Getenv("SELF_CHECK") != "" {
		f, err := New(t.Context(), os.Environ(), "test", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		result := f.check(t.Context())
		_ = json.NewEncoder(os.Stderr).Encode(result)
		return
	}
	t.Parallel()
	const host = "api.prod.example.onion" // Go's resolver does not look up this domain
	pem, key, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(pem, key)
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" && r.URL.Path != "/livez" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}))
	api.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	api.StartTLS()
	t.Cleanup(api.Close)
	proxy := httptest.NewServer(connectProxy(map[string]string{host + ":443": api.Listener.Addr().String()}))
	t.Cleanup(proxy.Close)
	blocking := httptest.NewServer(connectProxy(nil))
	t.Cleanup(blocking.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and never responds
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		proxy, direct string
		login         string // default: the file
		failed        []string
		detail        string // of the last one
		advice        []string
	}{
		"through the proxy": {proxy: proxy.URL},
		"a proxy that does not allow it": {proxy: blocking.URL, failed: []string{"authentication", "network"},
			detail: "connecting to the API server through the proxy " + strings.TrimPrefix(blocking.URL, "http://") + ": Forbidden"},
		"without a proxy": {failed: []string{"authentication", "network"}, detail: "connecting to the API server: dial tcp: "},
		"directly":        {proxy: proxy.URL, direct: host, failed: []string{"authentication", "network"}, detail: "connecting to the API server: dial tcp: "},
		"AWS without a route": {proxy: proxy.URL, login: "secretsmanager:x", failed: []string{"authentication", "aws", "token"},
			detail: "reading secret x of Secrets Manager: no response within 5s", advice: []string{`see "token"`,
				"allow the function to connect to ec2 and autoscaling: from a private subnet", "allow the function to connect to secretsmanager: from a private subnet"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloud := "http://127.0.0.1:1"
			if c.login != "" {
				cloud = "http://" + silent.Addr().String()
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSelfCheckOfTheNetwork$")
			cmd.Env = []string{"SELF_CHECK=1", "HTTPS_PROXY=" + c.proxy, "NO_PROXY=" + c.proxy + "," + c.direct, "AWS_REGION=eu-west-1",
				"AWS_ENDPOINT_URL=" + cloud, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=x",
				"KOPS_SPOT_CLUSTER=" + cluster, "KOPS_SPOT_MODE=act", "KOPS_SPOT_LOGIN=" + cmp.Or(c.login, "file:"+token), "KOPS_SPOT_SERVER=https://" + host,
				"KOPS_SPOT_CA=" + base64.StdEncoding.EncodeToString(pem)}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if out, err := cmd.Output(); err != nil {
				t.Fatalf("%v\n%s%s", err, out, &stderr)
			}
			var result SelfCheck
			if err := json.NewDecoder(strings.NewReader(stderr.String())).Decode(&result); err != nil {
				t.Fatal(err)
			}
			var failed []string
			var last Check
			for _, check := range result.Checks {
				if check.OK || check.Skipped || check.Name == "aws" && c.login == "" {
					continue
				}
				if n := len(failed); n < len(c.advice) && !strings.HasPrefix(check.Advice, c.advice[n]) {
					t.Errorf("got %+v, want %q", check, c.advice[n])
				}
				failed, last = append(failed, check.Name), check
			}
			if !slices.Equal(failed, c.failed) || !strings.Contains(last.Detail, c.detail) {
				t.Errorf("%q failed, want %q, the last one with %q: %+v", failed, c.failed, c.detail, result.Checks)
			}
		})
	}
}

// connectProxy is an HTTP proxy that connects to the given hosts alone.
func connectProxy(hosts map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		target, err := net.Dial("tcp", cmp.Or(hosts[r.Host], "127.0.0.1:0"))
		if r.Method != http.MethodConnect || err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		defer target.Close()
		w.WriteHeader(http.StatusOK)
		client, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		go func() {
			_, _ = io.Copy(target, in)
			_ = target.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(client, target)
	}
}
