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

// castaiAPI is CAST AI's event API, as far as it can be known from outside: it takes events with a key that it knows, and
// at first answers as it is told to.
type castaiAPI struct {
	url string

	mu      sync.Mutex
	answers []castaiAnswer
	told    []castaiEvent
}

type castaiAnswer struct {
	code       int
	retryAfter string
}

// castaiEvent is what it was told, and what it answered.
type castaiEvent struct {
	Type       string `json:"event_type"`
	NodeID     string `json:"node_id"`
	ProviderID string `json:"provider_id"`
	at         time.Time
	code       int
}

// castai starts the API, and points the function at it with a key that is kept in a file.
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
			r.Error("CAST AI's key stands in the function's log")
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
	c.told = append(c.told, e)
	w.WriteHeader(e.code)
	fmt.Fprintf(w, `{"message":"you sent the key %s"}`, q.Header.Get("X-API-Key")) // a careless server
}

// events are those that came, with the answers that they got.
func (c *castaiAPI) events() []castaiEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.told)
}

// tellsOnce demands that CAST AI has taken in one event, and returns it.
func (r *fixture) tellsOnce(c *castaiAPI) (taken castaiEvent) {
	r.Helper()
	n := 0
	for _, e := range c.events() {
		if e.code == http.StatusOK {
			taken, n = e, n+1
		}
	}
	if n != 1 {
		r.Errorf("CAST AI was told %d times: %+v", n, c.events())
	}
	return taken
}

// TestCASTAIIsNotified about its own node by provider ID until it accepts the event; the group is not asked.
func TestCASTAIIsNotified(t *testing.T) {
	r := newRig(t)
	api := r.castai(castaiAnswer{code: http.StatusInternalServerError}, castaiAnswer{http.StatusTooManyRequests, "3"}, castaiAnswer{code: http.StatusServiceUnavailable})
	m := r.machines(1)[0]
	r.label(m.id, castaiNode, "theirs")
	r.pin(app{name: "web"}, m.id)
	r.waitReady("web", 1)
	out := r.handle(r.warning(spot.SpotTerminate, m.id, time.Second), spot.Drained)
	taken, all := r.tellsOnce(api), api.events()
	if taken.Type != "interrupted" || taken.NodeID != "theirs" || taken.ProviderID != "aws:///us-east-1a/"+m.id {
		t.Errorf("it was told %+v", taken)
	}
	if len(all) != 4 || all[2].at.Sub(all[1].at) < 3*time.Second {
		t.Errorf("it wanted to be left alone for 3 s: %+v", all)
	}
	if got := out.Replacement; got.Action != spot.ReplaceNotify || got.AutoscalerEvent != "interrupted" || got.At == nil || *out.Timings.LastEviction > *got.At {
		t.Errorf("the last pod was asked %v s after the event, the autoscaler was told: %+v", *out.Timings.LastEviction, got)
	}
	if asks, changes := operations(r.calls(m, 0)); changes != "" || len(r.podsOn(m.id)) != 0 {
		t.Errorf("AWS was asked %q and changed by %q; on the node are %v", asks, changes, r.podsOn(m.id))
	}
}

// TestCastAIAndTheFamily: what CAST AI is told of which event, and of whose node. The function reads the key from a
// secret, which it takes up as it changes.
func TestCastAIAndTheFamily(t *testing.T) {
	r := newRig(t)
	api := r.castai()
	moto := r.moto()
	secrets := secretsmanager.NewFromConfig(motoConfig(moto.URL))
	if _, err := secrets.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: aws.String("cast/key"), SecretString: aws.String(`{"castai":"an-older-key"}`)}); err != nil {
		t.Fatal(err)
	}
	r.env["KOPS_SPOT_CASTAI_KEY"], r.env["AWS_ENDPOINT_URL_SECRETS_MANAGER"] = "secretsmanager:cast/key", moto.URL

	theirs, overridden, ours := r.machines(1)[0], r.machines(1)[0], r.machines(1)[0]
	r.label(theirs.id, castaiNode, "theirs")
	r.label(overridden.id, castaiNode, "overridden")
	r.patchNode(overridden.id, `{"metadata":{"annotations":{"provisioner.cast.ai/override-provider-id":"aws:///elsewhere"}}}`)
	s := r.serviceWith("REHEARSALS=act")

	refused := r.outcome(r.invoke(s, r.sample("rebalance-recommendation", time.Second, instead(t, "rebalance-recommendation", theirs))), spot.Skipped)
	if got := refused.Replacement; got.Action != spot.ReplaceNone || !strings.Contains(got.Reason, "the API key is not valid") {
		t.Errorf("%+v", got)
	}
	if _, err := secrets.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: aws.String("cast/key"), SecretString: aws.String(`{"castai":"` + castaiKey + `"}`)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sample  string
		machine machine
		result  spot.Result
		want    string
	}{
		{"rebalance-recommendation", theirs, spot.Skipped, "rebalanceRecommendation theirs aws:///us-east-1a/" + theirs.id},
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
		before := len(api.events())
		r.outcome(r.invoke(s, r.sample(c.sample, time.Second, instead(t, c.sample, c.machine))), c.result)
		var told []string
		for _, e := range api.events()[before:] {
			if e.code == http.StatusOK {
				told = append(told, e.Type+" "+e.NodeID+" "+e.ProviderID)
			}
		}
		if said := strings.Join(told, "; "); said != c.want {
			t.Errorf("%s: CAST AI was told %q, want %q", c.sample, said, c.want)
		}
	}
	for _, m := range []machine{theirs, overridden} {
		if _, changes := operations(r.calls(m, 0)); changes != "" {
			t.Errorf("AWS was changed by %q", changes)
		}
	}
	if _, changes := operations(r.calls(ours, 0)); changes != "CreateTags, DetachInstances" {
		t.Errorf("of a node that CAST AI has not made, AWS was changed by %q", changes)
	}
}

// instead are the names that a sample has for a machine.
func instead(t *testing.T, sample string, m machine) map[string]string {
	t.Helper()
	names := map[string]string{sampleGroup: m.group}
	for _, id := range instancesIn(readSample(t, sample)) {
		names[id] = m.id
	}
	return names
}

// TestCastAIKeepsItsKey: a key that is refused to the last, by a server that repeats it, is in no outcome and in no log.
func TestCastAIKeepsItsKey(t *testing.T) {
	r := newRig(t)
	api := r.castai(slices.Repeat([]castaiAnswer{{code: http.StatusForbidden}}, 100)...)
	m := r.machines(1)[0]
	r.label(m.id, castaiNode, "theirs")
	res := r.invoke(r.service(), r.encode(r.warning(spot.SpotTerminate, m.id, time.Second)))
	out := r.outcome(res, spot.Drained)
	if out.Replacement.Action != spot.ReplaceNone || !strings.Contains(out.Replacement.Reason, "use a key with full access") || len(api.events()) < 2 {
		t.Errorf("after %d tries: %+v", len(api.events()), out.Replacement)
	}
	if strings.Contains(string(res.Payload), castaiKey) {
		t.Errorf("the key stands in the outcome: %s", res.Payload)
	}
}

// TestGroupIsNotAskedForKarpentersClaim: where the policy names Karpenter, the NodeClaim of a node is deleted, and of a
// node without one the outcome says so.
func TestGroupIsNotAskedForKarpentersClaim(t *testing.T) {
	r := newRig(t)
	w := &realWorld{fixture: r}
	of, without := r.machines(1)[0], r.machines(1)[0]
	claim := w.AddClaim(t, of.id)
	// Karpenter's own finalizer keeps a claim, and with it the node, until the instance has ended.
	claims := r.client.CoreV1().RESTClient()
	finalizers := func(list string) {
		t.Helper()
		body := fmt.Appendf(nil, `{"metadata":{"finalizers":%s}}`, list)
		if err := claims.Patch(types.MergePatchType).AbsPath("/apis/karpenter.sh/v1/nodeclaims", claim).Body(body).Do(t.Context()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	finalizers(`["karpenter.sh/termination"]`)
	r.env["KOPS_SPOT_REPLACE"] = "karpenter"
	s := r.service()
	for _, m := range []machine{of, without} {
		r.pin(app{name: "web-" + m.id}, m.id)
		r.waitReady("web-"+m.id, 1)
	}
	var ended []<-chan fakelambda.Result
	for _, m := range []machine{of, without, of} {
		ended = append(ended, r.send(s, r.encode(r.warning(spot.SpotTerminate, m.id, time.Second))))
	}
	first, second, third := r.outcome(<-ended[0], spot.Drained), r.outcome(<-ended[1], spot.Drained), r.outcome(<-ended[2], spot.Drained)
	if first.Replacement.Action != spot.ReplaceClaim || first.Replacement.NodeClaim != claim || third.Replacement.NodeClaim != claim {
		t.Errorf("%+v, %+v", first.Replacement, third.Replacement)
	}
	if second.Replacement.Action != spot.ReplaceNone || !strings.Contains(second.Replacement.Reason, "no NodeClaim of Karpenter's owns the node") {
		t.Errorf("%+v", second.Replacement)
	}
	body, err := claims.Get().AbsPath("/apis/karpenter.sh/v1/nodeclaims", claim).DoRaw(t.Context())
	var left metav1.PartialObjectMetadata
	if err != nil || json.Unmarshal(body, &left) != nil || left.DeletionTimestamp == nil {
		t.Errorf("the NodeClaim was not deleted: %s, %v", body, err)
	}
	finalizers("null")
	if _, changes := operations(r.aws.Calls()); changes != "" {
		t.Errorf("AWS was changed by %q", changes)
	}
}
