package kube

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
)

func TestKopsName(t *testing.T) {
	addon := func(channel string) string {
		return `{"version":"1.0.0","channel":"` + channel + `","manifestHash":"f00"}`
	}
	for name, c := range map[string]struct {
		annotations      map[string]string
		want, store, err string
	}{
		"the state store is a bucket":           {annotations: map[string]string{"addons.k8s.io/core.addons.k8s.io": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com", store: "store"},
		"the state store is a folder":           {annotations: map[string]string{"addons.k8s.io/core.addons.k8s.io": addon("s3://store/kops/state/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com", store: "store/kops/state"},
		"the folder is named like a cluster":    {annotations: map[string]string{"addons.k8s.io/core.addons.k8s.io": addon("s3://store.example.com/dev.example.com/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com", store: "store.example.com/dev.example.com"},
		"a gossip cluster":                      {annotations: map[string]string{"addons.k8s.io/core.addons.k8s.io": addon("s3://store/prod.k8s.local/addons/bootstrap-channel.yaml")}, want: "prod.k8s.local", store: "store"},
		"addons of the user's own do not count": {annotations: map[string]string{"addons.k8s.io/mine": addon("s3://store/other.example.com/addons/mine.yaml"), "addons.k8s.io/dns": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com", store: "store"},
		"all addons agree":                      {annotations: map[string]string{"addons.k8s.io/a": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml"), "addons.k8s.io/b": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com", store: "store"},
		"the state store is not on S3":          {annotations: map[string]string{"addons.k8s.io/a": addon("gs://store/prod.example.com/addons/bootstrap-channel.yaml")}, want: "prod.example.com"},
		"addons do not agree":                   {annotations: map[string]string{"addons.k8s.io/a": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml"), "addons.k8s.io/b": addon("s3://store/dev.example.com/addons/bootstrap-channel.yaml")}, err: "several kOps clusters: dev.example.com, prod.example.com"},
		"other annotations":                     {annotations: map[string]string{"example.com/addon": addon("s3://store/prod.example.com/addons/bootstrap-channel.yaml")}},
		"an addon without a channel":            {annotations: map[string]string{"addons.k8s.io/a": `{"version":"1"}`}},
		"not JSON":                              {annotations: map[string]string{"addons.k8s.io/a": "s3://store/prod.example.com/addons/bootstrap-channel.yaml"}},
		"no name in the path":                   {annotations: map[string]string{"addons.k8s.io/a": addon("/addons/bootstrap-channel.yaml"), "addons.k8s.io/b": addon("s3://store/addons/bootstrap-channel.yaml")}},
		"no annotations":                        {},
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
			got, err := k.KopsName(t.Context())
			if (got != Kops{c.want, c.store}) || (err == nil) != (c.err == "") || err != nil &&
				!strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q in %q, %q", got, err, c.want, c.store, c.err)
			}
		})
	}
}

func TestKopsNameForbidden(t *testing.T) {
	k := stub(t, status(403, metav1.StatusReasonForbidden, `namespaces "kube-system" is forbidden`, nil))
	if _, err := k.KopsName(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "use credentials that may read it") {
		t.Errorf("got %v", err)
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
