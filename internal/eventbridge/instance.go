package eventbridge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

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
