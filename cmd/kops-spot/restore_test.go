package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// stub is an API server with one node. before, if not nil, is called before each write and may change the node.
type stub struct {
	mu      sync.Mutex
	node    map[string]any
	version int
	before  func(s *stub)
	patched []string
}

func newStub(event string) *stub {
	s := &stub{}
	s.cordon(event)
	return s
}

// cordon cordons the node for an event, as kops-spot does.
func (s *stub) cordon(event string) {
	s.version++
	s.node = map[string]any{"kind": "Node", "apiVersion": "v1",
		"metadata": map[string]any{"name": "n", "uid": "u", "resourceVersion": fmt.Sprint(s.version), "annotations": map[string]any{
			"kops-spot.cast.ai/event": event, "kops-spot.cast.ai/applied": "unschedulable", "kops-spot.cast.ai/deadline": "2026-01-31T12:02:00Z"}},
		"spec": map[string]any{"unschedulable": true, "providerID": "aws:///us-east-1a/i-0a1b2c3d"}}
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	respond := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	failure := func(code int, reason string) {
		respond(code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /api/v1/namespaces/kube-system":
		respond(200, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": "kube-system"}})
	case "GET /api/v1/nodes":
		respond(200, map[string]any{"kind": "NodeList", "apiVersion": "v1", "items": []any{s.node}})
	case "GET /api/v1/nodes/n":
		respond(200, s.node)
	case "PATCH /api/v1/nodes/n":
		if s.before != nil {
			s.before(s)
		}
		var patch struct {
			Metadata struct{ ResourceVersion string }
			Spec     map[string]any
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &patch)
		if patch.Metadata.ResourceVersion != fmt.Sprint(s.version) {
			failure(409, "Conflict")
			return
		}
		s.patched = append(s.patched, string(body))
		s.node["spec"].(map[string]any)["unschedulable"] = patch.Spec["unschedulable"]
		respond(200, s.node)
	default:
		failure(404, "NotFound")
	}
}

// restore runs the command against the stub.
func (s *stub) restore(t *testing.T, more ...string) (stdout, stderr string, err error) {
	t.Helper()
	return s.run(t, append([]string{"restore", "n", "--cluster", "prod.example.com", "--yes"}, more...)...)
}

// run runs a command against the stub.
func (s *stub) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	var out, messages strings.Builder
	err = run(t.Context(), []string{"KUBECONFIG=" + kubeconfig(t, srv.URL)}, args, strings.NewReader(""), &out, &messages)
	return out.String(), messages.String(), err
}

// kubeconfig writes a kubeconfig for a server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
		"clusters":[{"name":"c","cluster":{"server":%q}}]}`, server)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRestoreRetriesConflicts(t *testing.T) {
	s := newStub("e1")
	s.before = func(s *stub) { s.cordon("e1"); s.before = nil }
	out, stderr, err := s.restore(t)
	if err != nil || out != "✔ node n of prod.example.com restored\n" || len(s.patched) != 1 {
		t.Errorf("%q, %q, %v; patched with %q", out, stderr, err, s.patched)
	}
}

func TestRestoreJSON(t *testing.T) {
	out, stderr, err := newStub("e1").restore(t, "--output", "json")
	var result restoreResult
	if err != nil || json.Unmarshal([]byte(out), &result) != nil {
		t.Fatalf("%q, %q, %v", out, stderr, err)
	}
	if !result.Restored || result.Node != "n" || result.Event != "e1" || result.Deadline.IsZero() || len(result.Removed) == 0 || result.Unschedulable {
		t.Errorf("%+v", result)
	}
}

// TestRestoreOtherEvent: what another event applied was not shown, so nobody has confirmed its removal.
func TestRestoreOtherEvent(t *testing.T) {
	s := newStub("e1")
	s.before = func(s *stub) { s.cordon("e2"); s.before = nil }
	out, _, err := s.restore(t)
	if err == nil || !strings.Contains(err.Error(), "nothing was changed: node n was cordoned for another event in the meantime") || out != "" || len(s.patched) != 0 {
		t.Errorf("%q, %v; patched with %q", out, err, s.patched)
	}
}

// TestAnswerCanceled: Ctrl-C ends a command that waits for an answer.
func TestAnswerCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	c := &console{stdin: in, stderr: io.Discard}
	if err := c.answer(ctx, "really?"); err == nil || !strings.Contains(err.Error(), "nothing was changed: context canceled") {
		t.Errorf("got %v", err)
	}
}

func TestAnswer(t *testing.T) {
	for input, want := range map[string]bool{"y\n": true, "YES\n": true, " yes ": true, "n\n": false, "\n": false, "": false, "yeah\n": false} {
		var prompt strings.Builder
		c := &console{stdin: strings.NewReader(input), stderr: &prompt}
		if err := c.answer(t.Context(), "really?"); (err == nil) != want || prompt.String() != "really? [y/N] " {
			t.Errorf("%q: %v after %q", input, err, prompt.String())
		}
	}
}
