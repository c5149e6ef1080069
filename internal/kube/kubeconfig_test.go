package kube

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfig writes a kubeconfig with a context for each pair of context and server name. The first is current.
func kubeconfig(t *testing.T, contexts ...[2]string) string {
	t.Helper()
	cfg := clientcmdapi.NewConfig()
	cfg.CurrentContext = contexts[0][0]
	for _, c := range contexts {
		cfg.Contexts[c[0]] = &clientcmdapi.Context{Cluster: c[0] + ".example.com", AuthInfo: "user"}
		cfg.Clusters[c[0]+".example.com"] = &clientcmdapi.Cluster{Server: c[1]}
	}
	cfg.AuthInfos["user"] = &clientcmdapi.AuthInfo{Token: "very-secret"}
	path := filepath.Join(t.TempDir(), "config")
	must(t, clientcmd.WriteToFile(*cfg, path))
	return path
}

func TestKubeconfigContexts(t *testing.T) {
	two := kubeconfig(t, [2]string{"prod", "https://prod"}, [2]string{"staging", "https://staging"})
	dev := kubeconfig(t, [2]string{"dev", "https://dev"})
	none := filepath.Join(t.TempDir(), "none")
	bad := filepath.Join(t.TempDir(), "bad")
	must(t, os.WriteFile(bad, []byte("apiVersion: v1\nkind: Config\nclusters: 7\n"), 0o600))
	for name, c := range map[string]struct {
		login  Kubeconfig
		server string
		in     Context
		err    string
	}{
		"the current context": {login: Kubeconfig{File: two}, server: "https://prod",
			in: Context{"prod", "prod.example.com"}},
		"another context": {login: Kubeconfig{File: two, Context: "staging"}, server: "https://staging",
			in: Context{"staging", "staging.example.com"}},
		"the named file": {login: Kubeconfig{File: dev, Files: []string{two}}, server: "https://dev",
			in: Context{"dev", "dev.example.com"}},
		"the first existing file": {login: Kubeconfig{Files: []string{none, dev, two}}, server: "https://dev",
			in: Context{"dev", "dev.example.com"}},
		"a context of a later file": {login: Kubeconfig{Files: []string{dev, two}, Context: "staging"},
			server: "https://staging", in: Context{"staging", "staging.example.com"}},
		"a missing context":    {login: Kubeconfig{File: two, Context: "test"}, err: `context "test" does not exist`},
		"a missing named file": {login: Kubeconfig{File: none}, err: "no such file"},
		"no file":              {login: Kubeconfig{Files: []string{none}}, err: "no kubeconfig found: set --kubeconfig"},
		"an invalid file":      {login: Kubeconfig{File: bad}, err: "reading the kubeconfig: "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, in, err := c.login.LogIn("test")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			must(t, err)
			if cfg.Host != c.server || in != c.in || cfg.UserAgent != "test" {
				t.Errorf("got %s, %+v as %s; want %s, %+v", cfg.Host, in, cfg.UserAgent, c.server, c.in)
			}
		})
	}
}

// TestKubeconfigRejected: the error says what to do and does not contain the token.
func TestKubeconfigRejected(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	}))
	t.Cleanup(srv.Close)
	cfg, _, err := Kubeconfig{File: kubeconfig(t, [2]string{"prod", srv.URL})}.LogIn("test")
	must(t, err)
	_, err = clusterOf(t, cfg).KopsName(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "create a new kubeconfig") ||
		strings.Contains(err.Error(), "very-secret") {
		t.Errorf("got %v", err)
	}
}
