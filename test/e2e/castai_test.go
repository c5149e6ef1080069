package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
)

const (
	castaiCluster = "8b3e2c1a-0d4f-4a6b-9c7d-5e1f2a3b4c5d"
	castaiKey     = "c4st-k3y-that-nobody-may-see"
	castaiNode    = "provisioner.cast.ai/node-id"
)

// castaiAPI imitates CAST AI's event API, as far as it is documented: it accepts events that carry the API key. Its
// first responses can be set.
type castaiAPI struct {
	url string

	mu      sync.Mutex
	answers []castaiAnswer
	events  []castaiEvent
}

type castaiAnswer struct {
	code       int
	retryAfter string
}

// castaiEvent is a request and the status of its response.
type castaiEvent struct {
	Type       string `json:"event_type"`
	NodeID     string `json:"node_id"`
	ProviderID string `json:"provider_id"`
	at         time.Time
	code       int
}

// castai starts the API and configures the function to use it, with the key in a file.
func (r *fixture) castai(first ...castaiAnswer) *castaiAPI {
	r.Helper()
	c := &castaiAPI{answers: first}
	server := httptest.NewServer(c)
	r.Cleanup(server.Close)
	c.url = server.URL
	r.env["KOPS_SPOT_CASTAI_URL"], r.env["KOPS_SPOT_CASTAI_CLUSTER"] = c.url, castaiCluster
	r.env["KOPS_SPOT_CASTAI_KEY"] = "file:" + r.file("castai", castaiKey)
	r.Cleanup(func() {
		if strings.Contains(r.logs.String(), castaiKey) {
			r.Error("CAST AI's key is in the function's log")
		}
	})
	return c
}

func (c *castaiAPI) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	e := castaiEvent{at: time.Now(), code: http.StatusOK}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case q.Method != http.MethodPost || q.URL.Path != "/v1/kubernetes/external-clusters/"+castaiCluster+"/events":
		e.code = http.StatusNotFound
	case q.Header.Get("X-API-Key") != castaiKey:
		e.code = http.StatusUnauthorized
	case json.Unmarshal(body, &e) != nil:
		e.code = http.StatusBadRequest
	case len(c.answers) > 0:
		e.code = c.answers[0].code
		if wish := c.answers[0].retryAfter; wish != "" {
			w.Header().Set("Retry-After", wish)
		}
		c.answers = c.answers[1:]
	}
	c.events = append(c.events, e)
	w.WriteHeader(e.code)
	fmt.Fprintf(w, `{"message":"you sent the key %s"}`, q.Header.Get("X-API-Key")) // a careless server
}

func (c *castaiAPI) received() []castaiEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// notifiedOnce fails unless CAST AI accepted exactly one event, which it returns.
func (r *fixture) notifiedOnce(c *castaiAPI) (taken castaiEvent) {
	r.Helper()
	n := 0
	for _, e := range c.received() {
		if e.code == http.StatusOK {
			taken, n = e, n+1
		}
	}
	if n != 1 {
		r.Errorf("CAST AI accepted %d events: %+v", n, c.received())
	}
	return taken
}

// TestCASTAIIsNotified: the function repeats the event until CAST AI accepts it, and does not detach the instance.
func TestCASTAIIsNotified(t *testing.T) {
	r := newFixture(t)
	api := r.castai(castaiAnswer{code: http.StatusInternalServerError}, castaiAnswer{http.StatusTooManyRequests, "3"},
		castaiAnswer{code: http.StatusServiceUnavailable})
	m := r.targets(1)[0]
	r.label(m.id, castaiNode, "theirs")
	r.pin(app{name: "web"}, m.id)
	r.waitReady("web", 1)
	out := r.handle(r.warning(spot.SpotTerminate, m.id, time.Second), spot.Drained)
	taken, all := r.notifiedOnce(api), api.received()
	if taken.Type != "interrupted" || taken.NodeID != "theirs" || taken.ProviderID != "aws:///us-east-1a/"+m.id {
		t.Errorf("the event is %+v", taken)
	}
	if len(all) != 4 || all[2].at.Sub(all[1].at) < 3*time.Second {
		t.Errorf("Retry-After was not honored: %+v", all)
	}
	if got := out.Replacement; got.Action != spot.ReplaceNotify || got.AutoscalerEvent != "interrupted" ||
		got.At == nil || *out.Timings.LastEviction > *got.At {
		t.Errorf("the last eviction was %v s after the event, the replacement: %+v", *out.Timings.LastEviction, got)
	}
	if asks, changes := operations(r.calls(m, 0)); changes != "CreateTags" || len(r.podsOn(m.id)) != 0 {
		t.Errorf("AWS got the reads %q and the writes %q; pods on the node: %v", asks, changes, r.podsOn(m.id))
	}
}

// TestCASTAIEventTypes: which event type CAST AI gets for which event, and only for its own nodes. The function reads
// the key from a secret and picks up its new value.
func TestCASTAIEventTypes(t *testing.T) {
	r := newFixture(t)
	api := r.castai()
	moto := r.moto()
	secrets := secretsmanager.NewFromConfig(motoConfig(moto.URL))
	if _, err := secrets.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("cast/key"),
		SecretString: aws.String(`{"castai":"an-older-key"}`)}); err != nil {
		t.Fatal(err)
	}
	r.env["KOPS_SPOT_CASTAI_KEY"], r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = "secretsmanager:cast/key", moto.URL

	theirs, overridden, ours := r.targets(1)[0], r.targets(1)[0], r.targets(1)[0]
	r.label(theirs.id, castaiNode, "theirs")
	r.label(overridden.id, castaiNode, "overridden")
	r.patchNode(overridden.id, `{"metadata":{"annotations":{"provisioner.cast.ai/override-provider-id":"aws:///elsewhere"}}}`)
	s := r.serviceWith("REHEARSALS=act")

	refused := r.outcome(r.invoke(s, r.sample("rebalance-recommendation", time.Second,
		instead(t, "rebalance-recommendation", theirs))), spot.Skipped)
	if got := refused.Replacement; got.Action != spot.ReplaceNone ||
		!strings.Contains(got.Reason, "the API key is not valid") {
		t.Errorf("%+v", got)
	}
	if _, err := secrets.PutSecretValue(t.Context(),
		&secretsmanager.PutSecretValueInput{SecretId: aws.String("cast/key"),
			SecretString: aws.String(`{"castai":"` + castaiKey + `"}`)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sample string
		target target
		result spot.Result
		want   string
	}{
		{"rebalance-recommendation", theirs, spot.Skipped,
			"rebalanceRecommendation theirs aws:///us-east-1a/" + theirs.id},
		{"rebalance-recommendation", overridden, spot.Skipped, "rebalanceRecommendation overridden aws:///elsewhere"},
		{"rebalance-recommendation", ours, spot.Skipped, ""},
		{"health-scheduled-change", theirs, spot.Skipped, ""},
		{"asg-terminate-lifecycle", theirs, spot.Skipped, ""},
		{"rehearsal-rebalance", theirs, spot.Skipped, ""},
		{"rehearsal-spot-terminate", theirs, spot.Drained, ""},
		{"spot-interruption-replayed", theirs, spot.Expired, ""},
		{"spot-interruption-terminate", theirs, spot.Drained, "interrupted theirs aws:///us-east-1a/" + theirs.id},
		{"spot-interruption-stop", overridden, spot.Drained, "interrupted overridden aws:///elsewhere"},
		{"spot-interruption-terminate", ours, spot.Drained, ""},
	} {
		before := len(api.received())
		event := func() []byte { return r.sample(c.sample, time.Second, instead(t, c.sample, c.target)) }
		r.outcome(r.rehearse(s, event), c.result) // as if each were a rehearsal
		var events []string
		for _, e := range api.received()[before:] {
			if e.code == http.StatusOK {
				events = append(events, e.Type+" "+e.NodeID+" "+e.ProviderID)
			}
		}
		if got := strings.Join(events, "; "); got != c.want {
			t.Errorf("%s: CAST AI got %q, want %q", c.sample, got, c.want)
		}
	}
	for _, m := range []target{theirs, overridden} {
		if _, changes := operations(r.calls(m, 0)); changes == "" || strings.Contains(changes, "Detach") {
			t.Errorf("AWS got the writes %q", changes)
		}
	}
	if _, changes := operations(r.calls(ours, 0)); changes != "CreateTags, DetachInstances" {
		t.Errorf("a node that is not CAST AI's: AWS got the writes %q", changes)
	}
}

// instead maps the names in a sample to those of a target.
func instead(t *testing.T, sample string, m target) map[string]string {
	t.Helper()
	names := map[string]string{sampleGroup: m.group}
	for _, id := range instancesIn(readSample(t, sample)) {
		names[id] = m.id
	}
	return names
}

// TestCASTAIKeyIsRedacted: the API rejects the key until the end and repeats it in its response. The key must not
// appear in the outcome or in the log.
func TestCASTAIKeyIsRedacted(t *testing.T) {
	r := newFixture(t)
	api := r.castai(slices.Repeat([]castaiAnswer{{code: http.StatusForbidden}}, 100)...)
	m := r.targets(1)[0]
	r.label(m.id, castaiNode, "theirs")
	res := r.invoke(r.service(), r.encode(r.warning(spot.SpotTerminate, m.id, time.Second)))
	out := r.outcome(res, spot.Drained)
	if out.Replacement.Action != spot.ReplaceNone ||
		!strings.Contains(out.Replacement.Reason, "use a key with full access") || len(api.received()) < 2 {
		t.Errorf("after %d attempts: %+v", len(api.received()), out.Replacement)
	}
	if strings.Contains(string(res.Payload), castaiKey) {
		t.Errorf("the key is in the outcome: %s", res.Payload)
	}
}

// TestKarpenterNodeClaim: with KOPS_SPOT_REPLACE=karpenter, the function deletes the node's NodeClaim. For a node
// without one, the outcome says so.
func TestKarpenterNodeClaim(t *testing.T) {
	r := newFixture(t)
	w := &realWorld{fixture: r}
	of, without := r.targets(1)[0], r.targets(1)[0]
	claim := w.AddClaim(t, of.id)
	// Karpenter's finalizer keeps the claim, and so the node, until the instance has terminated.
	claims := r.client.CoreV1().RESTClient()
	finalizers := func(list string) {
		t.Helper()
		body := fmt.Appendf(nil, `{"metadata":{"finalizers":%s}}`, list)
		if err := claims.Patch(types.MergePatchType).AbsPath("/apis/karpenter.sh/v1/nodeclaims",
			claim).Body(body).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	finalizers(`["karpenter.sh/termination"]`)
	r.env["KOPS_SPOT_REPLACE"] = "karpenter"
	s := r.service()
	for _, m := range []target{of, without} {
		r.pin(app{name: "web-" + m.id}, m.id)
		r.waitReady("web-"+m.id, 1)
	}
	var ended []<-chan fakelambda.Result
	for _, m := range []target{of, without, of} {
		ended = append(ended, r.send(s, r.encode(r.warning(spot.SpotTerminate, m.id, time.Second))))
	}
	first, second, third := r.outcome(<-ended[0], spot.Drained), r.outcome(<-ended[1], spot.Drained),
		r.outcome(<-ended[2], spot.Drained)
	if first.Replacement.Action != spot.ReplaceClaim || first.Replacement.NodeClaim != claim ||
		third.Replacement.NodeClaim != claim {
		t.Errorf("%+v, %+v", first.Replacement, third.Replacement)
	}
	if second.Replacement.Action != spot.ReplaceNone ||
		!strings.Contains(second.Replacement.Reason, "the node has no Karpenter NodeClaim") {
		t.Errorf("%+v", second.Replacement)
	}
	body, err := claims.Get().AbsPath("/apis/karpenter.sh/v1/nodeclaims", claim).DoRaw(t.Context())
	var deleted metav1.PartialObjectMetadata
	if err != nil || json.Unmarshal(body, &deleted) != nil || deleted.DeletionTimestamp == nil {
		t.Errorf("the NodeClaim was not deleted: %s, %v", body, err)
	}
	finalizers("null")
	if _, changes := operations(r.aws.Calls()); strings.Contains(changes, "Detach") {
		t.Errorf("AWS got the writes %q", changes)
	}
}
