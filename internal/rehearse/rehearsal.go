// Package rehearse sends a test interruption through EventBridge and finds its outcome in the function's log.
package rehearse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	bus "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// Client sends rehearsals in one region and reads the function's log there.
type Client struct {
	events *bus.Client
	logs   *cloudwatchlogs.Client
}

// New returns a Client with the region, credentials and endpoints of cfg.
func New(cfg aws.Config) *Client {
	return &Client{events: bus.NewFromConfig(cfg), logs: cloudwatchlogs.NewFromConfig(cfg)}
}

// Send puts the rehearsal on an event bus (AWS's own events use "default") and returns the ID that EventBridge assigns.
// The outcome is found by this ID. If in.Time is zero, EventBridge sets the time: with a local clock that is two minutes
// slow, the event would already be expired.
func (c *Client) Send(ctx context.Context, in spot.Interruption, onBus string) (id string, err error) {
	in.Rehearsal, in.EventID = true, "assigned by EventBridge"
	text, err := eventbridge.Encode(in)
	if err != nil {
		return "", err
	}
	var e struct {
		Source     string
		DetailType string `json:"detail-type"`
		Resources  []string
		Detail     json.RawMessage
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return "", fmt.Errorf("reading the event back: %w", err)
	}
	entry := types.PutEventsRequestEntry{EventBusName: aws.String(onBus), Source: aws.String(e.Source), DetailType: aws.String(e.DetailType),
		Resources: e.Resources, Detail: aws.String(string(e.Detail))}
	if !in.Time.IsZero() {
		entry.Time = aws.Time(in.Time)
	}
	out, err := c.events.PutEvents(ctx, &bus.PutEventsInput{Entries: []types.PutEventsRequestEntry{entry}})
	switch {
	case err != nil:
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: %w", onBus, err)
	case len(out.Entries) != 1:
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: EventBridge returned %d entries for one event", onBus, len(out.Entries))
	case aws.ToString(out.Entries[0].EventId) == "":
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: %s: %s", onBus,
			aws.ToString(out.Entries[0].ErrorCode), aws.ToString(out.Entries[0].ErrorMessage))
	}
	return aws.ToString(out.Entries[0].EventId), nil
}

// ErrNoOutcome means that the outcome did not appear in the log in time.
var ErrNoOutcome = errors.New("no outcome of the rehearsal was found")
