package kube

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
)

func TestKopsName(t *testing.T) {
	addon := func(channel string) string {
		return `{"version":"1.0.0","channel":"` + channel + `","manifestHash":"f00"}`
	}
	addons := func(nameAndChannel ...string) map[string]string {
		annotations := map[string]string{}
		for pair := range slices.Chunk(nameAndChannel, 2) {
			annotations["addons.k8s.io/"+pair[0]] = addon(pair[1])
		}
		return annotations
	}
	const channel = "/addons/bootstrap-channel.yaml"
	two := addons("a", "s3://store/prod/prod.example.com"+channel, "b", "s3://store/dev/dev.example.com"+channel)
	for name, c := range map[string]struct {
		annotations      map[string]string
		given            string
		want, store, err string
	}{
		"the state store is a bucket": {annotations: addons("core.addons.k8s.io",
			"s3://store/prod.example.com"+channel), want: "prod.example.com", store: "store"},
		"the state store is a folder": {annotations: addons("core.addons.k8s.io",
			"s3://store/kops/state/prod.example.com"+channel), want: "prod.example.com", store: "store/kops/state"},
		"the folder is named like a cluster": {annotations: addons("core.addons.k8s.io",
			"s3://store.example.com/dev.example.com/prod.example.com"+channel), want: "prod.example.com",
			store: "store.example.com/dev.example.com"},
		"a gossip cluster": {annotations: addons("core.addons.k8s.io",
			"s3://store/prod.k8s.local"+channel), want: "prod.k8s.local", store: "store"},
		"addons of the user's own do not count": {annotations: addons("mine",
			"s3://store/other.example.com/addons/mine.yaml", "dns", "s3://store/prod.example.com"+channel),
			want: "prod.example.com", store: "store"},
		"all addons agree": {annotations: addons("a", "s3://store/prod.example.com"+channel, "b",
			"s3://store/prod.example.com"+channel), want: "prod.example.com", store: "store"},
		"the state store is not on S3": {annotations: addons("a", "gs://store/prod.example.com"+channel),
			want: "prod.example.com"},
		"addons do not agree": {annotations: two, err: "several kOps clusters: dev.example.com, prod.example.com: set --cluster"},
		"addons do not agree, and the given name is one of them": {annotations: two, given: "prod.example.com",
			want: "prod.example.com", store: "store/prod"},
		"addons do not agree, and the given name is none of them": {annotations: two, given: "test.example.com",
			err: "several kOps clusters: dev.example.com, prod.example.com: set --cluster"},
		"the given name is another": {annotations: addons("a", "s3://store/prod.example.com"+channel), given: "dev.example.com",
			want: "prod.example.com", store: "store"},
		"other annotations":          {annotations: map[string]string{"example.com/addon": addon("s3://store/prod.example.com" + channel)}},
		"an addon without a channel": {annotations: map[string]string{"addons.k8s.io/a": `{"version":"1"}`}},
		"not JSON": {annotations: map[string]string{"addons.k8s.io/a": "s3://store/prod.example.com" +
			channel}},
		"no name in the path": {annotations: addons("a", channel, "b", "s3://store"+channel)},
		"no annotations":      {},
	} {
		t.Run(name, func(t *testing.T) {
			k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/v1/namespaces/kube-system" {
					t.Errorf("got a request for %s", r.URL.Path)
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Namespace", "apiVersion": "v1",
					"metadata": map[string]any{"name": "kube-system", "annotations": c.annotations},
					"spec":     map[string]any{}})
			}))
			got, err := k.KopsName(t.Context(), c.given)
			if (got != Kops{c.want, c.store}) || (err == nil) != (c.err == "") || err != nil &&
				!strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q in %q, %q", got, err, c.want, c.store, c.err)
			}
		})
	}
}

func TestKopsNameForbidden(t *testing.T) {
	k := stub(t, status(403, metav1.StatusReasonForbidden, `namespaces "kube-system" is forbidden`, nil))
	if _, err := k.KopsName(t.Context(), ""); err == nil ||
		!strings.Contains(err.Error(), "use credentials that may read it, or set --cluster") {
		t.Errorf("got %v", err)
	}
	if got, err := k.KopsName(t.Context(), "prod.example.com"); err != nil || got != (Kops{}) {
		t.Errorf("with a given name: got %v, %v", got, err)
	}
}

func TestNodeOfPod(t *testing.T) {
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		name, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/shop/pods/")
		if !ok || name == "none" {
			w.WriteHeader(404)
			_ = json.NewEncoder(w).Encode(status(404, metav1.StatusReasonNotFound, "not found", nil))
			return
		}
		spec := map[string]any{}
		if name == "bound" {
			spec["nodeName"] = "node"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Pod", "apiVersion": "v1",
			"metadata": map[string]any{"name": name}, "spec": spec})
	}))
	for pod, want := range map[string]string{"bound": "node", "pending": ""} {
		if got, err := k.NodeOfPod(t.Context(), "shop", pod); got != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", pod, got, err, want)
		}
	}
	if _, err := k.NodeOfPod(t.Context(), "shop", "none"); !errors.Is(err, spot.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
