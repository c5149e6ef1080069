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

// envelope is the part of an event that every type has. It is our own and not the Lambda library's, which drops
// replay-name. The resources are written and never read: what stands there differs from source to source.
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

// Sources of what people send. EventBridge lets nobody but AWS send under a name that begins with "aws.", so an event of
// these names is never AWS's own, and one of AWS's names is never a rehearsal.
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

// eventType is one type of event: how it is called, and how its detail is read and written.
type eventType struct {
	source, name string
	kinds        []spot.Kind // what it may mean
	rehearsed    bool        // a person may send it as a rehearsal: its detail says no more than which instance it is
	codec
}

// codec reads and writes the details of one type of event.
type codec interface {
	// read returns in, which has what the envelope says, once for each instance that the detail speaks of, with what
	// the detail says. It returns at least one, or an error.
	read(e envelope, in spot.Interruption) ([]spot.Interruption, error)
	// write returns the detail for an interruption, and the event's resource.
	write(in spot.Interruption) (detail any, resource string, err error)
}

// types is the one table of events.
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

// interruption is what the envelope says of an interruption, checked.
func (e envelope) interruption() (spot.Interruption, error) {
	if e.ID == "" {
		return spot.Interruption{}, errors.New(`decoding the event: it has no "id"`)
	}
	at, err := parseTime(e.Time, time.RFC3339)
	if err != nil {
		return spot.Interruption{}, e.wrong(`its "time" is not as in 2026-01-31T12:00:00Z: %w`, err)
	}
	if e.Region == "" {
		return spot.Interruption{}, e.wrong(`it has no "region"`)
	}
	return spot.Interruption{EventID: e.ID, Account: e.Account, Region: e.Region, Time: at,
		Replayed: e.ReplayName != "", Rehearsal: e.Source == SourceRehearsal}, nil
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// of is the interruption of one instance.
func (e envelope) of(in spot.Interruption, kind spot.Kind, instance string) ([]spot.Interruption, error) {
	if !instanceID.MatchString(instance) {
		return nil, e.wrong(`%q is no EC2 instance id (i- and 8 to 17 hexadecimal digits)`, instance)
	}
	in.Kind, in.Instance = kind, instance
	return []spot.Interruption{in}, nil
}

// detailOf reads the event's detail.
func detailOf[T any](e envelope) (T, error) {
	var d T
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return d, fmt.Errorf("decoding the detail of the event %s: %w", e.ID, err)
	}
	return d, nil
}

// wrong is the error of an event that is not as AWS documents it.
func (e envelope) wrong(format string, args ...any) error {
	return fmt.Errorf("decoding the event %s: %w", e.ID, fmt.Errorf(format, args...))
}

// nothing is the error of an event that asks for nothing.
func (e envelope) nothing(reason string) error {
	return &UnknownError{ID: e.ID, Source: e.Source, DetailType: e.DetailType, Reason: reason}
}

// parseTime reads a time in one of the layouts, and says why it is not in the first. Years that nobody means are refused:
// not every one of them could be written again.
func parseTime(text string, layouts ...string) (time.Time, error) {
	var why error
	for _, layout := range layouts {
		t, err := time.ParseInLocation(layout, text, time.UTC)
		if err == nil {
			if t = t.UTC(); t.Year() >= 1970 && t.Year() <= 9999 {
				return t, nil
			}
			err = fmt.Errorf("the year %d cannot be meant", t.Year())
		}
		why = cmp.Or(why, err)
	}
	return time.Time{}, why
}
