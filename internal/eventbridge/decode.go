// Package eventbridge turns EventBridge's JSON into the domain's interruptions, and back.
package eventbridge

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/castai/kops-spot/internal/spot"
)

// Event is what an event asks for.
type Event struct {
	ID            string              // EventBridge's id; a self-check may have none
	Interruptions []spot.Interruption // one for each instance that it speaks of; at least one, unless SelfCheck
	SelfCheck     bool                // the schedule asks whether the function could act now
}

// UnknownError is returned for a well-formed event that asks for nothing. It is not a failure: a rule may match more
// than the handler was made for.
type UnknownError struct {
	ID, Source, DetailType string

	// Reason is why there is nothing to do; empty where the handler has no rule for events of this type.
	Reason string
}

func (e *UnknownError) Error() string {
	if e.Reason != "" {
		return "nothing to do: " + e.Reason
	}
	return fmt.Sprintf("no rule for events of type %q from %q", e.DetailType, e.Source)
}

// Decode reads an event. One without a rule, or that asks for nothing, is an *UnknownError; one that a rule should have
// matched but that is not as AWS documents it is any other error, which says what is wrong with it first.
func Decode(event []byte) (Event, error) {
	var e envelope
	if err := json.Unmarshal(event, &e); err != nil {
		return Event{}, fmt.Errorf("decoding the event: it is not a JSON object as EventBridge sends it: %w", err)
	}
	if e.Source == "" || e.DetailType == "" {
		return Event{}, errors.New(`decoding the event: it has no "source" or no "detail-type": ` +
			`send the whole event, as the rule's target without an input transformer`)
	}
	if e.isSelfCheck() {
		return Event{ID: e.ID, SelfCheck: true}, nil
	}
	t, err := e.family()
	if err != nil {
		return Event{}, err
	}
	in, err := e.interruption()
	if err != nil {
		return Event{}, err
	}
	all, err := t.read(e, in)
	if err != nil {
		return Event{}, err
	}
	return Event{ID: e.ID, Interruptions: all}, nil
}

// isSelfCheck reports whether the event is the schedule's, or a person's who asks for the same. Nothing else in it is
// looked at: the fixed input of a schedule has no id and no time.
func (e envelope) isSelfCheck() bool {
	return e.Source == sourceSchedule && e.DetailType == scheduledType || e.Source == SourceSelfCheck
}

// family finds the event's type in the table.
func (e envelope) family() (eventType, error) {
	for _, t := range types {
		switch {
		case t.name != e.DetailType:
		case t.source == e.Source, e.Source == SourceRehearsal && t.rehearsed:
			return t, nil
		}
	}
	if e.Source == SourceRehearsal {
		return eventType{}, e.nothing("only Spot warnings and rebalance recommendations can be rehearsed")
	}
	return eventType{}, e.nothing("")
}
