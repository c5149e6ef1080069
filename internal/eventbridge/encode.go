package eventbridge

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// SyntheticEventID is the id of an event that did not come from EventBridge, for a check of what the function would do.
const SyntheticEventID = "00000000-0000-0000-0000-000000000000"

// Encode encodes an interruption as the event that EventBridge would send, or a rehearsal as its custom event. Times
// are rounded to seconds.
func Encode(in spot.Interruption) ([]byte, error) {
	event, err := encode(in)
	if err != nil {
		return nil, fmt.Errorf("encoding the event %s: %w", in.EventID, err)
	}
	return event, nil
}

func encode(in spot.Interruption) ([]byte, error) {
	i := slices.IndexFunc(types, func(t eventType) bool { return slices.Contains(t.kinds, in.Kind) })
	if i < 0 {
		return nil, fmt.Errorf("no event has the kind %q", in.Kind)
	}
	t := types[i]
	source := t.source
	if in.Rehearsal {
		if source = SourceRehearsal; !t.rehearsed {
			return nil, fmt.Errorf("cannot rehearse the kind %q", in.Kind)
		}
	}
	content, resource, err := t.encode(in)
	if err != nil {
		return nil, err
	}
	detail, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	e := newEnvelope(in.EventID, source, t.name, in.Account, in.Region, in.Time)
	e.Resources, e.Detail = []string{resource}, detail
	if in.Replayed {
		e.ReplayName = "replay"
	}
	return json.Marshal(e)
}

// EncodeSelfCheck encodes an event that requests a self-check outside the schedule.
func EncodeSelfCheck(id, account, region string, at time.Time) ([]byte, error) {
	return json.Marshal(newEnvelope(id, SourceSelfCheck, "Self-check", account, region, at))
}

func newEnvelope(id, source, detailType, account, region string, at time.Time) envelope {
	return envelope{Version: "0", ID: id, DetailType: detailType, Source: source, Account: account, Region: region,
		Time: at.UTC().Format(time.RFC3339), Resources: []string{}, Detail: json.RawMessage("{}")}
}
