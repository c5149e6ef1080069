package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/util/cert"

	"github.com/castai/kops-spot/internal/spot"
)

// stub returns a Cluster whose server responds to every request with the same status.
func stub(t *testing.T, status metav1.Status) *Cluster {
	t.Helper()
	return against(t, answering(status, new(atomic.Int32)))
}

// answering responds to every request with the same status and counts the requests.
func answering(status metav1.Status, requests *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
			w.Header().Set("Retry-After", "1") // a client that obeyed this would sleep past the handler's clock
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
	})
}

func against(t *testing.T, h http.Handler) *Cluster {
	t.Helper()
	srv := httptest.NewTLSServer(h)
	t.Cleanup(srv.Close)
	c, err := New(WithToken(Endpoint{Server: srv.URL, CA: text(pemOf(srv))}, text("very-secret"), "test"))
	must(t, err)
	return c
}

func text(s string) Source { return func(context.Context) (string, error) { return s, nil } }

func pemOf(srv *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
}

func status(code int32, reason metav1.StatusReason, message string, details *metav1.StatusDetails) metav1.Status {
	return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: code, Reason: reason, Message: message, Details: details}
}

// TestEvictionResponses: every response but success, gone and changed is a refusal.
func TestEvictionResponses(t *testing.T) {
	budget := &metav1.StatusDetails{RetryAfterSeconds: 10,
		Causes: []metav1.StatusCause{{Type: "DisruptionBudget",
			Message: "The disruption budget web needs 2 healthy pods and has 2 currently"}}}
	for _, c := range []struct {
		name    string
		answer  metav1.Status
		is      error
		refusal *spot.Refusal
	}{
		{name: "gone", answer: status(404, metav1.StatusReasonNotFound, "pods not found", nil), is: spot.ErrNotFound},
		{name: "changed", answer: status(409, metav1.StatusReasonConflict, "Precondition failed", nil),
			is: spot.ErrChanged},
		{name: "a budget", answer: status(429, metav1.StatusReasonTooManyRequests,
			"Cannot evict pod as it would violate the pod's disruption budget.", budget),
			refusal: &spot.Refusal{Code: 429, Budget: true, RetryAfter: 10 * time.Second,
				Message: "Cannot evict pod as it would violate the pod's disruption budget. The disruption budget web needs 2 healthy pods and has 2 currently."}},
		{name: "two budgets", answer: status(500, "", "This pod has more than one PodDisruptionBudget", nil),
			refusal: &spot.Refusal{Code: 500, Budget: true, Message: "This pod has more than one PodDisruptionBudget"}},
		{name: "too many requests", answer: status(429, metav1.StatusReasonTooManyRequests, "Too many requests", nil),
			refusal: &spot.Refusal{Code: 429, Message: "Too many requests"}},
		{name: "a webhook that says too many", answer: status(429, metav1.StatusReasonTooManyRequests,
			`admission webhook "x" denied the request: no PodDisruptionBudget`, &metav1.StatusDetails{Causes: budget.Causes[:1]}),
			refusal: &spot.Refusal{Code: 429, Message: `admission webhook "x" denied the request: no PodDisruptionBudget ` +
				"The disruption budget web needs 2 healthy pods and has 2 currently."}},
		{name: "not authorized", answer: status(403, metav1.StatusReasonForbidden, `pods "p" is forbidden`, nil),
			refusal: &spot.Refusal{Code: 403, Message: `pods "p" is forbidden`}},
		{name: "a webhook that says no", answer: status(403, metav1.StatusReasonForbidden,
			`admission webhook "x" denied the request`, nil),
			refusal: &spot.Refusal{Code: 403, Message: `admission webhook "x" denied the request`}},
		{name: "a webhook that says bad", answer: status(400, metav1.StatusReasonBadRequest, "bad", nil),
			refusal: &spot.Refusal{Code: 400, Message: "bad"}},
		{name: "a webhook that is down", answer: status(500, metav1.StatusReasonInternalError, "failed calling webhook",
			nil), refusal: &spot.Refusal{Code: 500, Message: "failed calling webhook"}},
		{name: "a credential that is not accepted",
			answer: status(401, metav1.StatusReasonUnauthorized, "Unauthorized", nil), is: spot.ErrPermanent},
	} {
		t.Run(c.name, func(t *testing.T) {
			var requests atomic.Int32
			k := against(t, answering(c.answer, &requests))
			for what, err := range map[string]error{
				"evict":  k.Evict(t.Context(), spot.Pod{Namespace: "d", Name: "p"}, time.Second, false),
				"delete": k.Delete(t.Context(), spot.Pod{Namespace: "d", Name: "p"}, time.Second, false),
			} {
				var refusal *spot.Refusal
				switch is := errors.As(err, &refusal); {
				case is != (c.refusal != nil), is && *refusal != *c.refusal, c.is != nil && !errors.Is(err, c.is):
					t.Errorf("%s: got %v, want %v%v", what, err, c.is, c.refusal)
				}
			}
			if n := requests.Load(); n != 2 {
				t.Errorf("the client retried by itself: %d requests for one eviction and one deletion", n)
			}
		})
	}
}

// TestEvictionRequest: it has the pod's UID, the grace period and, if exact, the resource version.
func TestEvictionRequest(t *testing.T) {
	for _, exact := range []bool{true, false} {
		var sent policyv1.Eviction
		k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			decoder := serializer.NewCodecFactory(newScheme()).UniversalDeserializer()
			if _, _, err := decoder.Decode(body, nil, &sent); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusCreated)
		}))
		p := spot.Pod{Namespace: "d", Name: "p", UID: "u", Version: "7"}
		must(t, k.Evict(t.Context(), p, 9*time.Second, exact))
		o := sent.DeleteOptions
		version := o.Preconditions.ResourceVersion
		if sent.Namespace != "d" || sent.Name != "p" || *o.GracePeriodSeconds != 9 || *o.Preconditions.UID != "u" ||
			(version != nil) != exact || exact && *version != "7" {
			t.Errorf("exact %v: sent %+v", exact, sent)
		}
	}
}

// TestErrors: errors say what to do, are permanent if a retry cannot help, and never contain the token.
func TestErrors(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	anotherCA, _, err := cert.GenerateSelfSignedCertKey("api.internal.prod.example.com", nil, nil)
	must(t, err)
	stranger, err := New(WithToken(Endpoint{Server: srv.URL, CA: text(string(anotherCA))}, text("very-secret"), ""))
	must(t, err)
	for _, c := range []struct {
		name    string
		cluster *Cluster
		final   bool
		want    string
	}{
		{"not accepted", stub(t, status(401, metav1.StatusReasonUnauthorized, "Unauthorized", nil)), true,
			"KOPS_SPOT_LOGIN"},
		{"forbidden", stub(t, status(403, metav1.StatusReasonForbidden, `User "x" cannot get nodes`, nil)), true,
			"apply deploy/rbac.yaml"},
		{"another certificate", stranger, true, "KOPS_SPOT_CA"},
		{"busy", stub(t, status(429, metav1.StatusReasonTooManyRequests, "busy", nil)), false, "busy"},
		{"broken", stub(t, status(503, metav1.StatusReasonServiceUnavailable, "down", nil)), false, "down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.cluster.NodeNamed(t.Context(), "n")
			if err == nil || errors.Is(err, spot.ErrPermanent) != c.final || !strings.Contains(err.Error(), c.want) ||
				!strings.HasPrefix(err.Error(), "reading node n: ") {
				t.Errorf("got %v", err)
			}
			if strings.Contains(err.Error(), "very-secret") {
				t.Error("the token is in the error")
			}
		})
	}
}

// TestNoClientRateLimit: client-go's default of five requests per second would delay evictions.
func TestNoClientRateLimit(t *testing.T) {
	if k := stub(t, status(404, metav1.StatusReasonNotFound, "not found", nil)); k.client.GetRateLimiter() != nil {
		t.Errorf("requests are limited to %v per second", k.client.GetRateLimiter().QPS())
	}
}

// TestRefusedWatch: the error is returned at once, without retries.
func TestRefusedWatch(t *testing.T) {
	var watches atomic.Int32
	refuse := answering(status(429, metav1.StatusReasonTooManyRequests, "busy",
		&metav1.StatusDetails{RetryAfterSeconds: 1}), &watches)
	k := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}`))
			return
		}
		refuse.ServeHTTP(w, r)
	}))
	if err := k.FollowPods(t.Context(), "n", func(spot.PodChange) {}); err == nil || watches.Load() != 1 {
		t.Errorf("after %d requests: %v", watches.Load(), err)
	}
}

// TestKubeconfig authenticates with the current context and explains a 401.
func TestKubeconfig(t *testing.T) {
	for token, want := range map[string]error{"good": nil, "bad": spot.ErrPermanent} {
		srv, _ := accepting(t, "good")
		path := filepath.Join(t.TempDir(), "kubeconfig")
		config := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
			"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority-data":%q}}],"users":[{"name":"u","user":{"token":%q}}]}`,
			srv.URL, base64.StdEncoding.EncodeToString([]byte(pemOf(srv))), token)
		must(t, os.WriteFile(path, []byte(config), 0o600))
		login, _, err := Kubeconfig{File: path}.LogIn("")
		must(t, err)
		if err := evict(clusterOf(t, login), t.Context()); !errors.Is(err, want) || err != nil &&
			!strings.Contains(err.Error(), "create a new kubeconfig") {
			t.Errorf("%s: %v", token, err)
		}
	}
	if _, _, err := (Kubeconfig{File: "/nowhere"}).LogIn(""); err == nil ||
		!strings.Contains(err.Error(), "reading the kubeconfig") {
		t.Errorf("%v", err)
	}
}

func TestPatchOf(t *testing.T) {
	a := spot.Node{Version: "7", UID: "u", Labels: map[string]string{"keep": "1", "drop": "1"},
		Taints: []spot.Taint{{Key: "other", Effect: "NoExecute", TimeAdded: time.Unix(0, 0).UTC()}}}
	if p, err := patchOf(a, a); p != nil || err != nil {
		t.Errorf("a node that does not change was patched: %s, %v", p, err)
	}
	b := a
	b.Labels = map[string]string{"keep": "1", "new": ""}
	b.Unschedulable = true
	b.Taints = append(b.Taints, spot.Taint{Key: "ours", Value: "true", Effect: "NoSchedule"})
	got, err := patchOf(a, b)
	want := `{"metadata":{"labels":{"drop":null,"new":""},"resourceVersion":"7","uid":"u"},"spec":{"taints":[` +
		`{"key":"other","effect":"NoExecute","timeAdded":"1970-01-01T00:00:00Z"},{"key":"ours","value":"true","effect":"NoSchedule"}],"unschedulable":true}}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestPodOf(t *testing.T) {
	ten, critical := int64(10), int32(2_000_001_000)
	yes := true
	at := metav1.NewTime(time.Unix(100, 0).UTC())
	full := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "p", UID: "u", ResourceVersion: "9", DeletionTimestamp: &at,
			Finalizers: []string{"example.com/hold"},
			Annotations: map[string]string{"kubernetes.io/config.mirror": "x", "kops-spot.cast.ai/force": "never",
				"kops-spot.cast.ai.example.com/force": "x"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Other", Name: "o"},
				{Kind: "StatefulSet", Name: "db", UID: "s", Controller: &yes}}},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &ten, Priority: &critical,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}},
				{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodFailed, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "Ready"},
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"}}},
	}
	want := spot.Pod{Namespace: "n", Name: "p", UID: "u", Version: "9", GracePeriod: 10 * time.Second,
		Terminating: true, DeletionTimestamp: at.Time, Finished: true,
		Mirror: true, Owner: spot.Owner{Kind: "StatefulSet", Name: "db", UID: "s"}, ToleratesCordon: true,
		Volumes: true, EmptyDir: true, Critical: true,
		Finalizers: []string{"example.com/hold"}, DisruptedBy: "EvictionByEvictionAPI",
		Annotations: map[string]string{"kops-spot.cast.ai/force": "never"}}
	if got := podOf(full); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	spared := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"other": "x"}},
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
			{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget,
			Status: corev1.ConditionFalse, Reason: "PreemptionByScheduler"}}},
	}
	if got, want := podOf(spared), (spot.Pod{GracePeriod: 30 * time.Second}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	unschedulable := corev1.Toleration{Key: "node.kubernetes.io/unschedulable", Operator: corev1.TolerationOpExists}
	if toleratesCordon([]corev1.Toleration{unschedulable}) {
		t.Error("a pod that does not tolerate the draining taint counts as tolerating the cordon")
	}
	if !toleratesCordon([]corev1.Toleration{unschedulable, {Key: "autoscaling.cast.ai/draining", Value: "true"}}) {
		t.Error("a pod that tolerates both taints counts as not tolerating the cordon")
	}
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
