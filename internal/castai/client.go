package castai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// attemptLimit bounds one HTTP attempt, from the connection to the last byte of the answer: of a two-minute notice, a
	// black hole may cost only a small part.
	attemptLimit = 5 * time.Second

	// lingerLimit bounds the wait for the rest of a yes. It is read only so that its connection can be used again.
	lingerLimit = 250 * time.Millisecond

	// bodyLimit is how much of an answer is read, in bytes.
	bodyLimit = 64 << 10
)

// phrases are the events that the API knows, each as a sentence about a node.
var phrases = map[string]string{
	"interrupted":             "telling CAST AI that %s is interrupted",
	"rebalanceRecommendation": "telling CAST AI that a rebalance of %s is recommended",
}

// event is the body of the request. All three fields are always sent: CAST AI knows the nodes it has not made by their
// provider id alone.
type event struct {
	Type       string `json:"event_type"`
	NodeID     string `json:"node_id"`
	ProviderID string `json:"provider_id"`
}

// Client tells CAST AI's autoscaler what is going to happen to a node. It is safe for concurrent use.
type Client struct {
	url       string
	clusterID string
	userAgent string
	wrong     error // what Options.Check says
	key       key
	http      *http.Client
	limit     time.Duration // of one attempt
}

// New makes a client. It makes no request, and reads the key when it is first needed. Options that Check objects to make a
// client that tells nothing and says why.
func New(o Options) *Client {
	c := &Client{
		url:       o.eventsURL(),
		clusterID: o.ClusterID,
		userAgent: o.UserAgent,
		wrong:     o.Check(),
		key:       key{read: o.Key},
		http:      &http.Client{Transport: transport()},
		limit:     attemptLimit,
	}
	if c.userAgent == "" {
		c.userAgent = "kops-spot"
	}
	if o.HTTP != nil {
		given := *o.HTTP
		c.http = &given
	}
	// A redirect is an answer like any other: whoever it leads to must not get the key.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// Notify tells one thing about one node: what is "interrupted" or "rebalanceRecommendation"; nodeID is CAST AI's own id of the
// node (its label provisioner.cast.ai/node-id), empty if it has none; providerID is the node's spec.providerID, or what its
// annotation provisioner.cast.ai/override-provider-id says instead.
//
// It makes one attempt of at most 5 s, and a second one if the key is refused and has been replaced since it was read. To
// try again while time is left is the caller's part: an error that is spot.ErrPermanent is not worth it; a refused key (401,
// 403) is spot.PossiblyTransient; every other error is worth another try. If the server says when, errors.As finds a
// `RetryAfter() time.Duration` in the error: try no sooner, or not at all if that is after the deadline.
//
// The status line decides: once it says yes, it does not matter whether the rest of the answer arrives.
func (c *Client) Notify(ctx context.Context, what, nodeID, providerID string) error {
	phrase, ok := phrases[what]
	switch {
	case c.wrong != nil:
		return spot.Permanent(fmt.Errorf("telling CAST AI about %s: %w", providerID, c.wrong))
	case !ok:
		return spot.Permanent(fmt.Errorf("telling CAST AI about %s: it knows no event %q", providerID, what))
	case strings.TrimSpace(providerID) == "":
		return spot.Permanent(errors.New("telling CAST AI about a node: its provider id is not known, and CAST AI finds no node without"))
	}
	doing := fmt.Sprintf(phrase, providerID)
	body, err := json.Marshal(event{what, nodeID, providerID})
	if err != nil {
		return spot.Permanent(fmt.Errorf("%s: %w", doing, err))
	}
	key, err := c.key.current(ctx, "")
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	told, err := c.post(ctx, key, body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !told.refusesKey() {
		return c.meaning(told, doing)
	}
	fresh, err := c.key.current(ctx, key)
	if err != nil {
		return spot.PossiblyTransient(fmt.Errorf("%w; and %w", c.meaning(told, doing), err))
	}
	if fresh != key {
		if told, err = c.post(ctx, fresh, body); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	return c.meaning(told, doing)
}

// post makes one attempt. Its error says that there was no answer, and why.
func (c *Client) post(ctx context.Context, key string, body []byte) (answer, error) {
	bounded, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return answer{}, spot.Permanent(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("X-API-Key", key)
	// Sends nothing, but tells net/http that the request may be repeated: a kept connection that was closed while Lambda had
	// frozen the function is replaced by a new one within the same attempt.
	req.Header["Idempotency-Key"] = []string{}

	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		defer resp.Body.Close()
		if success(resp.StatusCode) {
			linger := time.AfterFunc(lingerLimit, cancel)
			defer linger.Stop()
		}
		return read(resp, key), nil
	case ctx.Err() != nil:
		return answer{}, ctx.Err()
	case bounded.Err() != nil:
		return answer{}, fmt.Errorf("no answer within %s", c.limit) // not context.DeadlineExceeded: the caller's time is not up
	}
	return answer{}, unanswered(err, key)
}
