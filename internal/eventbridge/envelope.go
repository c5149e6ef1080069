package eventbridge

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

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

// Sources of custom events. EventBridge reserves names that begin with "aws." for AWS, so a rehearsal can never look like
// an AWS event.
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
	// decode returns a copy of in, which holds the envelope's fields, for each instance in the detail. It returns at least
	// one, or an error.
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
