package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/castai/kops-spot/internal/spot"
)

// TestManifestsMatchTheTable: each manifest allows exactly the requests of its part of the table.
func TestManifestsMatchTheTable(t *testing.T) {
	manifests, err := filepath.Glob("../../deploy/rbac*.yaml")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("found no manifests: %v", err)
	}
	var allowed []string
	for _, path := range manifests {
		for _, rule := range clusterRules(t, path) {
			for _, verb := range rule.Verbs {
				allowed = append(allowed, filepath.Base(path)+": "+verb+" "+rule.APIGroups[0]+"/"+rule.Resources[0])
			}
			if len(rule.APIGroups) != 1 || len(rule.Resources) != 1 ||
				len(rule.ResourceNames)+len(rule.NonResourceURLs) > 0 {
				t.Errorf("%s: %+v: this test supports only rules for one resource", path, rule)
			}
		}
	}
	var asked []string
	for _, r := range Requests() {
		asked = append(asked, r.Manifest+": "+r.String())
		if r.For == "" {
			t.Errorf("%s: the purpose is missing", r)
		}
	}
	slices.Sort(allowed)
	slices.Sort(asked)
	if !slices.Equal(allowed, asked) {
		t.Errorf("the manifests allow\n%s\nthe table says\n%s", strings.Join(allowed, "\n"), strings.Join(asked, "\n"))
	}
}

// clusterRules returns the rules of the ClusterRoles in a manifest.
func clusterRules(t *testing.T, path string) (rules []rbacv1.PolicyRule) {
	t.Helper()
	manifest, err := os.ReadFile(path)
	must(t, err)
	for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var role rbacv1.ClusterRole
		switch err := docs.Decode(&role); {
		case errors.Is(err, io.EOF):
			return rules
		case err != nil:
			t.Fatal(err)
		case role.Kind == "ClusterRole":
			rules = append(rules, role.Rules...)
		}
	}
}

// TestNoAccessToKubelets: with nodes/proxy, whoever controls the function could run commands in every pod. The manifests
// bind no other role.
func TestNoAccessToKubelets(t *testing.T) {
	manifests, err := filepath.Glob("../../deploy/*.yaml")
	if err != nil || len(manifests) < 2 {
		t.Fatalf("found %d manifests: %v", len(manifests), err)
	}
	bound := 0
	for _, path := range manifests {
		manifest, err := os.ReadFile(path)
		must(t, err)
		for docs := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
			var o struct {
				Kind    string
				Rules   []rbacv1.PolicyRule
				RoleRef rbacv1.RoleRef
			}
			if err := docs.Decode(&o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			for _, rule := range o.Rules {
				for _, r := range rule.Resources {
					if strings.HasPrefix(r, "nodes/") || strings.HasPrefix(r, "*") {
						t.Errorf("%s allows %s of %s", path, rule.Verbs, r)
					}
				}
			}
			if name := o.RoleRef.Name; name != "" {
				if bound++; name != "kops-spot" && name != "kops-spot-karpenter" {
					t.Errorf("%s binds the role %s", path, name)
				}
			}
		}
	}
	if bound != 2 {
		t.Errorf("%d bindings", bound)
	}
}

// TestTableMatchesTheCode: the methods that the handler calls send exactly the requests in the table.
func TestTableMatchesTheCode(t *testing.T) {
	var mu sync.Mutex
	var sent []string
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := requestOf(r)
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, asked.String())
		w.Header().Set("Content-Type", "application/json")
		lists := map[string]string{"nodes": `"NodeList","apiVersion":"v1"`, "pods": `"PodList","apiVersion":"v1"`,
			"volumeattachments": `"VolumeAttachmentList","apiVersion":"storage.k8s.io/v1"`}
		if asked.Verb == "list" {
			_, _ = io.WriteString(w, `{"kind":`+lists[asked.Resource]+`,"metadata":{"resourceVersion":"7"},"items":[]}`)
			return
		}
		w.WriteHeader(404)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"details":{"name":"x"}}`)
	}))
	ctx := t.Context()
	pod, node := spot.Pod{Namespace: "n", Name: "p"}, spot.Node{Name: "n"}
	calls := map[string]func(){
		"NodeNamed":  func() { _, _ = k.NodeNamed(ctx, "n") },
		"FollowNode": func() { _ = k.FollowNode(ctx, node, func(spot.Node) {}) },
		"NodeOf":     func() { _, _ = k.NodeOf(ctx, "i-1") },
		"ChangeNode": func() {
			_, _ = k.ChangeNode(ctx, node, func(n spot.Node) spot.Node { n.Unschedulable = true; return n })
		},
		"ReadPod":    func() { _, _ = k.ReadPod(ctx, pod) },
		"FollowPods": func() { _ = k.FollowPods(ctx, "n", func(spot.PodChange) {}) },
		"Evict":      func() { _ = k.Evict(ctx, pod, time.Second, false) },
		"Disrupt":    func() { _, _ = k.Disrupt(ctx, pod) },
		"Delete":     func() { _ = k.Delete(ctx, pod, time.Second, false) },
		"Record": func() {
			_ = k.Record(ctx, spot.KubeEvent{Node: &node})
			_ = k.Record(ctx, spot.KubeEvent{Pod: &pod})
		},
		"FollowVolumes":   func() { _ = k.FollowVolumes(ctx, "n", func([]string) {}) },
		"DeleteNode":      func() { _ = k.DeleteNode(ctx, node) },
		"DeleteNodeClaim": func() { _ = k.DeleteNodeClaim(ctx, "c") },
		"CordonedNodes":   func() { _, _ = k.CordonedNodes(ctx) },
	}
	for _, domain := range []reflect.Type{reflect.TypeFor[spot.Cluster](), reflect.TypeFor[spot.CordonedNodeLister]()} {
		for i := range domain.NumMethod() {
			if name := domain.Method(i).Name; calls[name] == nil {
				t.Errorf("%s is not called here", name)
			}
		}
	}
	for name, call := range calls {
		before := len(sent)
		if call(); len(sent) == before {
			t.Errorf("%s sent no request", name)
		}
	}
	var table []string
	for _, r := range Requests() {
		table = append(table, r.String())
	}
	slices.Sort(sent)
	slices.Sort(table)
	if sent = slices.Compact(sent); !slices.Equal(sent, table) {
		t.Errorf("sent\n%s\nthe table says\n%s", strings.Join(sent, "\n"), strings.Join(table, "\n"))
	}
}

// requestOf returns the verb, group and resource of a request, as RBAC sees it.
func requestOf(r *http.Request) (asked Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if parts[0] == "apis" {
		asked.Group = parts[1]
		parts = parts[1:]
	}
	parts = parts[2:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	asked.Resource = parts[0]
	if len(parts) > 2 {
		asked.Subresource = parts[2]
	}
	switch {
	case r.URL.Query().Get("watch") != "":
		asked.Verb = "watch"
	case r.Method == http.MethodGet && len(parts) == 1:
		asked.Verb = "list"
	default:
		asked.Verb = map[string]string{"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	}
	return asked
}

// TestAllowed: the server's response includes its reason.
func TestAllowed(t *testing.T) {
	answers := map[string]string{
		"delete nodes":      `{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"kops-spot\""}`,
		"delete nodeclaims": `{"allowed":false}`,
		"create eviction":   `{"allowed":false,"evaluationError":"no such role"}`,
	}
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		for what, answer := range answers {
			verb, resource, _ := strings.Cut(what, " ")
			if r.Method == http.MethodPost && r.URL.Path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" &&
				bytes.Contains(body, []byte(verb)) && bytes.Contains(body, []byte(resource)) {
				_, _ = io.WriteString(w,
					`{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":`+answer+`}`)
				return
			}
		}
		w.WriteHeader(503)
	}))
	for what, want := range map[[4]string]string{
		{"delete", "", "nodes", ""}:                  `true RBAC: allowed by ClusterRoleBinding "kops-spot"`,
		{"delete", "karpenter.sh", "nodeclaims", ""}: "false ",
		{"create", "", "pods", "eviction"}:           "false no such role",
	} {
		allowed, reason, err := k.Allowed(t.Context(), what[0], what[1], what[2], what[3])
		if got := map[bool]string{true: "true ", false: "false "}[allowed] + reason; got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", what, got, err, want)
		}
	}
	if _, _, err := k.Allowed(context.Background(), "get", "", "secrets", ""); err == nil ||
		!strings.HasPrefix(err.Error(), "checking permissions: ") {
		t.Errorf("a server without a response: %v", err)
	}
}
