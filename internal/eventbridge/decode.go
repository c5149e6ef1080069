// Package eventbridge converts between EventBridge's JSON and spot.Interruption.
package eventbridge

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/castai/kops-spot/internal/spot"
)

// Event is a decoded event.
type Event struct {
	ID            string              // EventBridge's id; may be empty for a self-check
	Interruptions []spot.Interruption // one for each instance; at least one, unless SelfCheck
	SelfCheck     bool                // run a self-check
}

// UnknownError is returned for a valid event that needs no action. It is not a failure: a rule may match more events
// than the function handles.
type UnknownError struct {
	ID, Source, DetailType string

	// Reason says why there is nothing to do. It is empty if the function does not handle this type of event.
	Reason string
}

func (e *UnknownError) Error() string {
	if e.Reason != "" {
		return "nothing to do: " + e.Reason
	}
	return fmt.Sprintf("no rule for events of type %q from %q", e.DetailType, e.Source)
}

// Decode decodes an event. It returns an *UnknownError for an event that needs no action, and any other error for an event
// that does not have the format that AWS documents.
func Decode(event []byte) (Event, error) {
	var e envelope
	if err := json.Unmarshal(event, &e); err != nil {
		return Event{}, fmt.Errorf("decoding the event: not an EventBridge event: %w", err)
	}
	if e.Source == "" || e.DetailType == "" {
		return Event{}, errors.New(`decoding the event: "source" or "detail-type" is missing: ` +
			`send the whole event; do not use an input transformer`)
	}
	if e.isSelfCheck() {
		return Event{ID: e.ID, SelfCheck: true}, nil
	}
	t, err := e.eventType()
	if err != nil {
		return Event{}, err
	}
	in, err := e.interruption()
	if err != nil {
		return Event{}, err
	}
	all, err := t.decode(e, in)
	if err != nil {
		return Event{}, err
	}
	return Event{ID: e.ID, Interruptions: all}, nil
}

// isSelfCheck reports whether the event requests a self-check. It reads nothing else: the constant input of a schedule has
// no id and no time.
func (e envelope) isSelfCheck() bool {
	return e.Source == sourceSchedule && e.DetailType == scheduledType || e.Source == SourceSelfCheck
}

// eventType finds the event's type in the table.
func (e envelope) eventType() (eventType, error) {
	for _, t := range types {
		switch {
		case t.name != e.DetailType:
		case t.source == e.Source, e.Source == SourceRehearsal && t.rehearsed:
			return t, nil
		}
	}
	if e.Source == SourceRehearsal {
		return eventType{}, e.noAction("rehearsals support only Spot warnings and rebalance recommendations")
	}
	return eventType{}, e.noAction("")
}
