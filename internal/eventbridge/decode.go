// Package eventbridge turns EventBridge's JSON into the domain's Interruption, and back.
package eventbridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// envelope is the part of an event that every type has. It is our own and not the Lambda library's, which drops
// replay-name. The resources are left out on purpose: what stands there differs from source to source.
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

const (
	sourceEC2       = "aws.ec2"
	spotWarningType = "EC2 Spot Instance Interruption Warning"
)

// spotActions are the instance-actions of a Spot warning.
var spotActions = map[string]spot.Kind{
	"terminate": spot.SpotTerminate,
	"stop":      spot.SpotStop,
	"hibernate": spot.SpotHibernate,
}

// spotWarning is the detail of an "EC2 Spot Instance Interruption Warning".
type spotWarning struct {
	InstanceID string `json:"instance-id"`
	Action     string `json:"instance-action"`
}

// UnknownError is returned for a well-formed event that the handler has no rule for. It is not a failure: a rule may
// match more than the handler was made for.
type UnknownError struct{ ID, Source, DetailType string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no rule for events of type %q from %q", e.DetailType, e.Source)
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

// Decode reads an event. An event without a rule is an *UnknownError; one that a rule should have matched but that is
// not as AWS documents it is any other error, which says what is wrong with it.
func Decode(event []byte) (spot.Interruption, error) {
	var e envelope
	if err := json.Unmarshal(event, &e); err != nil {
		return spot.Interruption{}, fmt.Errorf("decoding the event: it is not a JSON object as EventBridge sends it: %w", err)
	}
	if e.Source == "" || e.DetailType == "" {
		return spot.Interruption{}, errors.New(`decoding the event: it has no "source" or no "detail-type": ` +
			`send the whole event, as the rule's target without an input transformer`)
	}
	if e.Source != sourceEC2 || e.DetailType != spotWarningType {
		return spot.Interruption{}, &UnknownError{e.ID, e.Source, e.DetailType}
	}
	var w spotWarning
	if err := json.Unmarshal(e.Detail, &w); err != nil {
		return spot.Interruption{}, fmt.Errorf("decoding the detail of the event %s: %w", e.ID, err)
	}
	kind, ok := spotActions[w.Action]
	if !ok {
		return spot.Interruption{}, fmt.Errorf(`decoding the event %s: its "instance-action" is %q, not terminate, stop or hibernate`, e.ID, w.Action)
	}
	return e.interruption(kind, w.InstanceID)
}

// interruption makes the domain's value of the envelope's fields, and checks them.
func (e envelope) interruption(kind spot.Kind, instance string) (spot.Interruption, error) {
	if e.ID == "" {
		return spot.Interruption{}, errors.New(`decoding the event: it has no "id"`)
	}
	if !instanceID.MatchString(instance) {
		return spot.Interruption{}, fmt.Errorf(`decoding the event %s: %q is no EC2 instance id (i- and 8 to 17 hexadecimal digits)`, e.ID, instance)
	}
	at, err := time.Parse(time.RFC3339, e.Time)
	if err != nil {
		return spot.Interruption{}, fmt.Errorf(`decoding the event %s: its "time" is not as in 2026-01-31T12:00:00Z: %w`, e.ID, err)
	}
	if e.Region == "" {
		return spot.Interruption{}, fmt.Errorf(`decoding the event %s: it has no "region"`, e.ID)
	}
	return spot.Interruption{EventID: e.ID, Kind: kind, Instance: instance, Account: e.Account, Region: e.Region,
		Time: at.UTC(), Replayed: e.ReplayName != ""}, nil
}

// Encode writes an interruption as the event that EventBridge would send for it.
func Encode(in spot.Interruption) ([]byte, error) {
	for action, kind := range spotActions {
		if kind != in.Kind {
			continue
		}
		detail, err := json.Marshal(spotWarning{in.Instance, action})
		if err != nil {
			return nil, fmt.Errorf("encoding the event %s: %w", in.EventID, err)
		}
		e := envelope{Version: "0", ID: in.EventID, DetailType: spotWarningType, Source: sourceEC2, Account: in.Account,
			Time: in.Time.UTC().Format(time.RFC3339), Region: in.Region, Detail: detail,
			Resources: []string{fmt.Sprintf("arn:aws:ec2:%s:%s:instance/%s", in.Region, in.Account, in.Instance)}}
		if in.Replayed {
			e.ReplayName = "replay"
		}
		return json.Marshal(e)
	}
	return nil, fmt.Errorf("encoding the event %s: there is no event for the kind %q", in.EventID, in.Kind)
}
