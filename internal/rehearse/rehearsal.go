// Package rehearse sends a made-up warning the way that a real one takes, and finds what came of it.
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

// Stage is the region in which a rehearsal is held.
type Stage struct {
	events *bus.Client
	logs   *cloudwatchlogs.Client
}

// New makes a Stage of region, credentials and endpoints of cfg.
func New(cfg aws.Config) *Stage {
	return &Stage{events: bus.NewFromConfig(cfg), logs: cloudwatchlogs.NewFromConfig(cfg)}
}

// Send puts the rehearsal on an event bus ("default" is the one that AWS's own events come on) and returns the id that
// EventBridge has given the event: by that its outcome is found. An event without a time of its own gets EventBridge's: by
// a clock that is two minutes slow it would be an event of the past.
func (s *Stage) Send(ctx context.Context, in spot.Interruption, onBus string) (id string, err error) {
	in.Rehearsal, in.EventID = true, "given by EventBridge"
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
	out, err := s.events.PutEvents(ctx, &bus.PutEventsInput{Entries: []types.PutEventsRequestEntry{entry}})
	switch {
	case err != nil:
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: %w", onBus, err)
	case len(out.Entries) != 1:
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: EventBridge answered %d entries for one", onBus, len(out.Entries))
	case aws.ToString(out.Entries[0].EventId) == "":
		return "", fmt.Errorf("sending the rehearsal to the event bus %s: %s: %s", onBus,
			aws.ToString(out.Entries[0].ErrorCode), aws.ToString(out.Entries[0].ErrorMessage))
	}
	return aws.ToString(out.Entries[0].EventId), nil
}

// ErrSilent is told where nothing was heard of a rehearsal in time.
var ErrSilent = errors.New("nothing was heard of the rehearsal")
