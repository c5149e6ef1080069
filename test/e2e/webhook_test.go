package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

// webhook is an admission webhook for the evictions of one app's pods.
type webhook struct {
	app     string
	serve   http.HandlerFunc // nil: no listener
	deletes bool             // also called for deletions
}

// denies responds to an admission review with the status.
func denies(no metav1.Status) http.HandlerFunc {
	no.Status = metav1.StatusFailure
	return func(w http.ResponseWriter, req *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(req.Body).Decode(&review); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &no}
		review.Request = nil
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review) // the API server may have disconnected
	}
}

// breaks is a webhook that fails.
func breaks(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "out of memory", http.StatusInternalServerError)
}

// hangs never responds.
func hangs(_ http.ResponseWriter, req *http.Request) {
	_, _ = io.Copy(io.Discard, req.Body) // required for the server to notice that the client has disconnected
	<-req.Context().Done()
}

// intercept registers webhooks for the evictions of this test's pods, and waits until the API server calls them.
func (r *fixture) intercept(hooks ...webhook) {
	r.Helper()
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	r.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
	for _, h := range hooks {
		url := server.URL + "/" + h.app
		if h.serve == nil {
			url = "https://" + closedPort
		} else {
			mux.HandleFunc("/"+h.app, h.serve)
		}
		config.Webhooks = append(config.Webhooks, h.registration(r.namespace, url, ca))
	}
	configs := r.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	if _, err := configs.Create(r.Context(), config, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := configs.Delete(context.Background(), config.Name, metav1.DeleteOptions{}); err != nil {
			r.Error(err)
		}
	})
	trial := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: r.only(hooks[0].app).Name, Namespace: r.namespace},
		DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}}
	r.eventually("the API server to call the webhooks", func() bool {
		return r.client.PolicyV1().Evictions(r.namespace).Evict(r.Context(), trial) != nil
	})
}

// registration selects only the evictions of the app's pods in the namespace, because tests run in parallel.
func (h webhook) registration(namespace, url string, ca []byte) admissionregistrationv1.ValidatingWebhook {
	rule := func(op admissionregistrationv1.OperationType, resource string) admissionregistrationv1.RuleWithOperations {
		return admissionregistrationv1.RuleWithOperations{Operations: []admissionregistrationv1.OperationType{op},
			Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"},
				Resources: []string{resource}}}
	}
	rules := []admissionregistrationv1.RuleWithOperations{rule(admissionregistrationv1.Create, "pods/eviction")}
	if h.deletes {
		rules = append(rules, rule(admissionregistrationv1.Delete, "pods"))
	}
	return admissionregistrationv1.ValidatingWebhook{
		Name:              h.app + ".webhooks.example.com",
		ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca},
		Rules:             rules,
		FailurePolicy:     new(admissionregistrationv1.Fail),
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "app",
			Expression: fmt.Sprintf("request.name.startsWith('%s-')", h.app)}},
		SideEffects:             new(admissionregistrationv1.SideEffectClassNone),
		TimeoutSeconds:          new(int32(30)),
		AdmissionReviewVersions: []string{"v1"},
	}
}

// TestWebhooksRefuse: whatever refuses the eviction of a pod, the pod gets SIGTERM and its full grace period.
func TestWebhooksRefuse(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	cases := []struct {
		hook    webhook
		refusal string // part of the last refusal
	}{
		{webhook{app: "absent"}, "connection refused"},
		{webhook{app: "broken", serve: breaks}, "failed calling webhook"},
		{webhook{app: "hanging", serve: hangs}, "context deadline exceeded"},
		{webhook{app: "denied", serve: denies(metav1.Status{Code: 403, Message: "not on a Friday"})},
			`refused with 403: admission webhook "denied.webhooks.example.com" denied the request: not on a Friday`},
		{webhook{app: "busy", serve: denies(metav1.Status{Code: 429, Message: "come back tomorrow",
			Details: &metav1.StatusDetails{RetryAfterSeconds: 86400}})},
			"come back tomorrow"},
		{webhook{app: "conflict", serve: denies(metav1.Status{Code: 409, Reason: metav1.StatusReasonConflict,
			Message: "somebody was here"})}, "somebody was here"},
		{webhook{app: "unknown", serve: denies(metav1.Status{Code: 401, Message: "who are you"})}, "who are you"},
		{webhook{app: "missing", serve: denies(metav1.Status{Code: 404, Reason: metav1.StatusReasonNotFound,
			Message: "the owner has no record"})},
			"the owner has no record"},
	}
	var hooks []webhook
	var apps []app
	for _, c := range cases {
		hooks = append(hooks, c.hook)
		apps = append(apps, app{name: c.hook.app, replicas: 1, grace: 4 * time.Second, exit: 3 * time.Second})
	}
	r.deploy(apps...)
	pods := map[string]corev1.Pod{}
	for _, a := range apps {
		pods[a.name] = r.only(a.name)
	}
	r.intercept(hooks...)
	in := r.warning(spot.SpotTerminate, victim, 105*time.Second) // 15 s left; force-deleted in 6 s
	out := r.handle(in, spot.Drained)
	for _, c := range cases {
		pod := pods[c.hook.app]
		if got := r.podResult(out, pod); got.Status != spot.PodForceDeleted ||
			!strings.Contains(got.LastRefusal, c.refusal) {
			t.Errorf("%+v", got)
		}
		r.forceDeletedOnTime(in, pod.Name, 4*time.Second)
	}
	r.gracePeriodsKept()
	r.evictedOnce(victim)
}

// TestWebhookRefusesDeletion: a pod that cannot even be deleted is reported, and the other pods are drained.
func TestWebhookRefusesDeletion(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "locked", replicas: 1, grace: 2 * time.Second}, app{name: "web", replicas: 1})
	locked, web := r.only("locked"), r.only("web")
	r.intercept(webhook{app: "locked", serve: denies(metav1.Status{Code: 403,
		Message: "locked until the audit is over"}), deletes: true})
	out := r.handle(r.warning(spot.SpotTerminate, victim, 111*time.Second), spot.Incomplete)
	got := r.podResult(out, locked)
	if got.Status != spot.PodStillRunning || got.TerminatedAt != nil ||
		!strings.Contains(got.LastRefusal, "locked until the audit is over") {
		t.Errorf("%+v", got)
	}
	if got := r.podResult(out, web); got.Status != spot.PodEvicted {
		t.Errorf("%+v", got)
	}
	deletions := 0
	for _, q := range r.requests(victim) {
		if q.Name == locked.Name && q.Verb == "delete" && q.Code == 403 {
			deletions++
		}
	}
	if deletions == 0 {
		t.Error("its deletion was never requested")
	}
	for _, rec := range r.kubelet(testenv.PodSigTerm) {
		if rec.Pod == locked.Name {
			t.Errorf("it got SIGTERM: %+v", rec)
		}
	}
}
