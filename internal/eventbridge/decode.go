// Package eventbridge converts between EventBridge's JSON and spot.Interruption.
package eventbridge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Event is a decoded event.
type Event struct {
	ID            string              // EventBridge's id; may be empty for a self-check
	Interruptions []spot.Interruption // one for each instance or group; at least one, unless SelfCheck
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

// Decode decodes an event. It returns an *UnknownError for an event that needs no action, and any other error for an
// event that does not have the format that AWS documents.
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

// isSelfCheck reports whether the event requests a self-check. It reads nothing else: the constant input of a schedule
// has no id and no time.
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

// envelope holds the fields that all events have. The Lambda library's type lacks replay-name. Resources is written but
// never read: its content depends on the source.
type envelope struct {
	Version    string          `json:"version"`
	ID         string          `json:"id"`
	DetailType string          `json:"detail-type"`
	Source     string          `json:"source"`
	Account    string          `json:"account"`
	Time       string          `json:"time"`
	Region     string          `json:"region"`
	ReplayName string          `json:"replay-name,omitempty"`
	Resources  []string        `json:"resources"`
	Detail     json.RawMessage `json:"detail"`
}

// Sources of custom events. EventBridge reserves names that begin with "aws." for AWS, so a rehearsal can never look
// like an AWS event.
const (
	SourceRehearsal = "kops-spot.rehearsal"
	SourceSelfCheck = "kops-spot.self-check"
)

const (
	sourceEC2     = "aws.ec2"
	sourceScaling = "aws.autoscaling"
	sourceHealth  = "aws.health"

	sourceSchedule = "aws.events"
	scheduledType  = "Scheduled Event"
)

// eventType describes one type of event and how to decode and encode its detail.
type eventType struct {
	source, name string
	kinds        []spot.Kind // the kinds it can have
	rehearsed    bool        // can be sent as a rehearsal: its detail only names an instance
	codec
}

// codec decodes and encodes the detail of one type of event.
type codec interface {
	// decode returns a copy of in, which holds the envelope's fields, for each instance in the detail. It returns at
	// least one, or an error.
	decode(e envelope, in spot.Interruption) ([]spot.Interruption, error)
	// encode returns the detail and the resource of the event for an interruption.
	encode(in spot.Interruption) (detail any, resource string, err error)
}

// types lists all supported events.
var types = []eventType{
	{source: sourceEC2, name: "EC2 Spot Instance Interruption Warning", rehearsed: true,
		kinds: []spot.Kind{spot.SpotTerminate, spot.SpotStop, spot.SpotHibernate},
		codec: warning{{"terminate", spot.SpotTerminate}, {"stop", spot.SpotStop}, {"hibernate", spot.SpotHibernate}}},
	{source: sourceEC2, name: "EC2 Instance Rebalance Recommendation", rehearsed: true,
		kinds: []spot.Kind{spot.Rebalance}, codec: recommendation{}},
	{source: sourceEC2, name: "EC2 Instance State-change Notification",
		kinds: []spot.Kind{spot.StateChange}, codec: stateChange{}},
	{source: sourceScaling, name: "EC2 Instance-terminate Lifecycle Action",
		kinds: []spot.Kind{spot.LifecycleTerminate}, codec: lifecycleAction{}},
	{source: sourceScaling, name: "EC2 Instance Launch Unsuccessful",
		kinds: []spot.Kind{spot.LaunchFailed}, codec: launchFailure{}},
	{source: sourceHealth, name: "AWS Health Event",
		kinds: []spot.Kind{spot.ScheduledChange}, codec: healthEvent{}},
}

// interruption validates the envelope and returns its fields.
func (e envelope) interruption() (spot.Interruption, error) {
	if e.ID == "" {
		return spot.Interruption{}, errors.New(`decoding the event: "id" is missing`)
	}
	at, err := parseTime(e.Time, time.RFC3339)
	if err != nil {
		return spot.Interruption{}, e.invalid(`"time" must look like 2026-01-31T12:00:00Z: %w`, err)
	}
	if e.Region == "" {
		return spot.Interruption{}, e.invalid(`"region" is missing`)
	}
	return spot.Interruption{EventID: e.ID, Account: e.Account, Region: e.Region, Time: at,
		Replayed: e.ReplayName != "", Rehearsal: e.Source == SourceRehearsal}, nil
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// of returns the interruption of one instance.
func (e envelope) of(in spot.Interruption, kind spot.Kind, instance string) ([]spot.Interruption, error) {
	if !instanceID.MatchString(instance) {
		return nil, e.invalid(`%q is not an EC2 instance ID`, instance)
	}
	in.Kind, in.Instance = kind, instance
	return []spot.Interruption{in}, nil
}

// detailOf decodes the event's detail.
func detailOf[T any](e envelope) (T, error) {
	var d T
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return d, fmt.Errorf("decoding the detail of the event %s: %w", e.ID, err)
	}
	return d, nil
}

// invalid returns the error for an event that does not have the format that AWS documents.
func (e envelope) invalid(format string, args ...any) error {
	return fmt.Errorf("decoding the event %s: %w", e.ID, fmt.Errorf(format, args...))
}

// noAction returns the error for an event that needs no action.
func (e envelope) noAction(reason string) error {
	return &UnknownError{ID: e.ID, Source: e.Source, DetailType: e.DetailType, Reason: reason}
}

// parseTime parses a time in one of the layouts. The error is about the first layout. It rejects years that cannot be
// formatted again.
func parseTime(text string, layouts ...string) (time.Time, error) {
	var why error
	for _, layout := range layouts {
		t, err := time.ParseInLocation(layout, text, time.UTC)
		if err == nil {
			if t = t.UTC(); t.Year() >= 1970 && t.Year() <= 9999 {
				return t, nil
			}
			err = fmt.Errorf("year %d is out of range", t.Year())
		}
		why = cmp.Or(why, err)
	}
	return time.Time{}, why
}

// instanceDetail is the detail of EC2's events about an instance. Each type uses some of the fields.
type instanceDetail struct {
	InstanceID string `json:"instance-id"`
	Action     string `json:"instance-action,omitempty"`
	State      string `json:"state,omitempty"`
}

func instanceARN(in spot.Interruption) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:instance/%s", in.Region, in.Account, in.Instance)
}

// warning decodes a Spot interruption warning. It lists the possible actions.
type warning []struct {
	action string
	kind   spot.Kind
}

func (w warning) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[instanceDetail](e)
	if err != nil {
		return nil, err
	}
	var actions []string
	for _, a := range w {
		if a.action == d.Action {
			return e.of(in, a.kind, d.InstanceID)
		}
		actions = append(actions, a.action)
	}
	return nil, e.invalid(`"instance-action" is %q, not %s`, d.Action, joinOr(actions))
}

func (w warning) encode(in spot.Interruption) (any, string, error) {
	for _, a := range w {
		if a.kind == in.Kind {
			return instanceDetail{InstanceID: in.Instance, Action: a.action}, instanceARN(in), nil
		}
	}
	return nil, "", fmt.Errorf("no action for the kind %q", in.Kind)
}

// recommendation says that a Spot instance has an elevated risk of interruption.
type recommendation struct{}

func (recommendation) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[instanceDetail](e)
	if err != nil {
		return nil, err
	}
	return e.of(in, spot.Rebalance, d.InstanceID)
}

func (recommendation) encode(in spot.Interruption) (any, string, error) {
	return instanceDetail{InstanceID: in.Instance}, instanceARN(in), nil
}

// stateChange says which state an instance has entered.
type stateChange struct{}

const statePending = "pending"

// states lists all instance states, in order.
var states = []string{statePending, "running", "stopping", "stopped", "shutting-down", "terminated"}

func (stateChange) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[instanceDetail](e)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(states, d.State):
		return nil, e.invalid(`"state" is %q, not %s`, d.State, joinOr(states))
	case d.State == statePending:
		return nil, e.noAction("the instance is starting; another event follows when it runs")
	}
	in.State = d.State
	return e.of(in, spot.StateChange, d.InstanceID)
}

func (stateChange) encode(in spot.Interruption) (any, string, error) {
	if !slices.Contains(states, in.State) {
		return nil, "", fmt.Errorf("state is %q, not %s", in.State, joinOr(states))
	}
	return instanceDetail{InstanceID: in.Instance, State: in.State}, instanceARN(in), nil
}

// joinOr joins words as in "a, b or c".
func joinOr(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
