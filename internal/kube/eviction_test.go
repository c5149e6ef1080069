package kube

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
)

// evictions is a server that answers evictions and remembers what it was sent.
type evictions struct {
	old    bool          // it is one before 1.22
	answer metav1.Status // to an Eviction that it can read
	words  string        // how it says that it cannot

	mu   sync.Mutex
	sent []string // content types
	body []byte   // the last one in JSON
}

func (e *evictions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	kind := r.Header.Get("Content-Type")
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sent = append(e.sent, kind)
	answer := e.answer
	switch {
	case kind == "application/json":
		e.body = body
	case e.old:
		answer = status(400, metav1.StatusReasonBadRequest, e.words, nil)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(answer.Code))
	_ = json.NewEncoder(w).Encode(answer)
}

// Kubernetes 1.21 says so, as many have reported who had moved their clients to policy/v1.
const saysKubernetes121 = `Eviction in version "v1" cannot be handled as a Eviction: no kind "Eviction" is registered for version "policy/v1" in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"`

// TestOldServersAreAskedAsTheyKnowIt, by the same request in the older version: once more the first time, and then at once.
func TestOldServersAreAskedAsTheyKnowIt(t *testing.T) {
	for _, words := range []string{
		saysKubernetes121,
		`the object provided is unrecognized (must be of type Eviction): no kind "Eviction" is registered for version "policy/v1" in scheme "x" (6b3873000a)`,
		`the API version in the data (policy/v1) does not match the expected API version (policy/v1beta1)`,
	} {
		e := &evictions{old: true, words: words, answer: metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: 201}}
		k := against(t, e)
		for range 3 {
			if err := k.Evict(t.Context(), spot.Pod{Namespace: "d", Name: "p", UID: "u", Version: "7"}, 9*time.Second, true); err != nil {
				t.Fatalf("%s: %v", words, err)
			}
		}
		if got, want := strings.Join(e.sent, " "), "application/vnd.kubernetes.protobuf application/json application/json application/json"; got != want {
			t.Errorf("%s: sent %s, want %s", words, got, want)
		}
		var sent policyv1.Eviction
		if err := json.Unmarshal(e.body, &sent); err != nil {
			t.Fatal(err)
		}
		o := sent.DeleteOptions
		if sent.APIVersion != "policy/v1beta1" || sent.Kind != "Eviction" || sent.Namespace != "d" || sent.Name != "p" ||
			*o.GracePeriodSeconds != 9 || *o.Preconditions.UID != "u" || *o.Preconditions.ResourceVersion != "7" {
			t.Errorf("sent %s", e.body)
		}
	}
}

// TestOldServersAnswersMeanTheSame: refused, gone, changed.
func TestOldServersAnswersMeanTheSame(t *testing.T) {
	e := &evictions{old: true, words: saysKubernetes121}
	k := against(t, e)
	evict := func(answer metav1.Status) error {
		e.answer = answer
		return k.Evict(t.Context(), spot.Pod{Namespace: "d", Name: "p"}, time.Second, false)
	}
	var refused *spot.Refusal
	if err := evict(status(429, metav1.StatusReasonTooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.", nil)); !errors.As(err, &refused) || refused.Code != 429 {
		t.Errorf("a budget: %v", err)
	}
	if err := evict(status(404, metav1.StatusReasonNotFound, `pods "p" not found`, &metav1.StatusDetails{Name: "p", Kind: "pods"})); !errors.Is(err, spot.ErrNotFound) {
		t.Errorf("gone: %v", err)
	}
	if err := evict(status(409, metav1.StatusReasonConflict, "Precondition failed", nil)); !errors.Is(err, spot.ErrChanged) {
		t.Errorf("changed: %v", err)
	}
}

// TestWhatIsNotAnOldServer is asked once, and again in the same way the next time.
func TestWhatIsNotAnOldServer(t *testing.T) {
	for name, answer := range map[string]metav1.Status{
		"a webhook that cannot read it":  status(400, metav1.StatusReasonBadRequest, `admission webhook "pods.example.com" denied the request: no kind "Eviction" is registered for version "policy/v1" in scheme "pkg/runtime/scheme.go:100"`, nil),
		"a webhook that quotes a server": status(400, metav1.StatusReasonBadRequest, `admission webhook "pods.example.com" denied the request: `+saysKubernetes121, nil),
		"a webhook's own 400":            status(400, metav1.StatusReasonBadRequest, `admission webhook "pods.example.com" denied the request without explanation`, nil),
		"the words with another code":    status(500, metav1.StatusReasonInternalError, saysKubernetes121, nil),
		"a pod that is gone":             status(404, metav1.StatusReasonNotFound, `pods "p" not found`, &metav1.StatusDetails{Name: "p", Kind: "pods"}),
		"a method that is not allowed":   status(405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource", nil),
		"an encoding that is not taken":  status(415, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format", nil),
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			e := &evictions{answer: answer}
			k := against(t, e)
			for range 2 {
				err := k.Evict(t.Context(), spot.Pod{Namespace: "d", Name: "p"}, time.Second, false)
				var refused *spot.Refusal
				if gone := answer.Code == 404; gone != errors.Is(err, spot.ErrNotFound) || gone == errors.As(err, &refused) {
					t.Errorf("got %v", err)
				}
			}
			if got, want := strings.Join(e.sent, " "), "application/vnd.kubernetes.protobuf application/vnd.kubernetes.protobuf"; got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
		})
	}
}
