package app

import (
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

// TestNewFunction creates the function from its settings: CAST AI receives a rebalance recommendation for its own node,
// authenticated with the key, in mode act only; the log contains no secret.
func TestNewFunction(t *testing.T) {
	const node = `{"kind":"Node","apiVersion":"v1","metadata":{"name":"i-1234567890abcdef0","uid":"u","labels":{"provisioner.cast.ai/node-id":"theirs"}},
		"spec":{"providerID":"aws:///us-east-1a/i-1234567890abcdef0"}}`
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer very-secret-token" || r.URL.Path != "/api/v1/nodes/i-1234567890abcdef0" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = io.WriteString(w, node)
	}))
	defer api.Close()
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`)
	}))
	defer aws.Close()
	var mu sync.Mutex
	var requests []string
	castai := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, r.Header.Get("X-API-Key")+" "+r.UserAgent()+" "+string(body))
	}))
	defer castai.Close()

	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": aws.URL, "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "x"} {
		t.Setenv(name, value)
	}
	dir := t.TempDir()
	kept := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	event, err := os.ReadFile(filepath.Join("..", "eventbridge", "testdata", "rebalance-recommendation.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode   Mode
		result spot.Result
		want   string
	}{
		{Observe, spot.Skipped, ""},
		{Act, spot.Skipped, `very-secret-key kops-spot/1.2.3 {"event_type":"rebalanceRecommendation","node_id":"theirs","provider_id":"aws:///us-east-1a/i-1234567890abcdef0"}`},
	} {
		logged := new(strings.Builder)
		f, err := New(t.Context(), []string{"KOPS_SPOT_CLUSTER=" + cluster, "KOPS_SPOT_MODE=" + string(c.mode), "KOPS_SPOT_LOGIN=" + kept("token", "very-secret-token"),
			"KOPS_SPOT_SERVER=" + api.URL, "KOPS_SPOT_CA=" + base64.StdEncoding.EncodeToString(ca),
			"KOPS_SPOT_CASTAI_CLUSTER=" + castaiCluster, "KOPS_SPOT_CASTAI_KEY=" + kept("key", "very-secret-key"), "KOPS_SPOT_CASTAI_URL=" + castai.URL}, "1.2.3", logged)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Handle(t.Context(), event)
		if out, ok := got.(spot.Outcome); err != nil || !ok || out.Result != c.result || out.Node != "i-1234567890abcdef0" || out.Cluster != cluster {
			t.Errorf("%s: got %+v, %v", c.mode, got, err)
		}
		if got := strings.Join(requests, "\n"); got != c.want {
			t.Errorf("%s: CAST AI received %q, want %q", c.mode, got, c.want)
		}
		if strings.Contains(logged.String(), "very-secret") {
			t.Errorf("%s: the log contains a secret: %s", c.mode, logged)
		}
	}
}
