package eventbridge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/castai/kops-spot/internal/spot"
)

// instanceDetail is the detail of the events that EC2 sends about one instance; each type has some of its fields.
type instanceDetail struct {
	InstanceID string `json:"instance-id"`
	Action     string `json:"instance-action,omitempty"`
	State      string `json:"state,omitempty"`
}

func instanceARN(in spot.Interruption) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:instance/%s", in.Region, in.Account, in.Instance)
}

// warning is an event that announces what EC2 is about to do to an instance. It holds the actions that there are, with
// their meanings.
type warning []struct {
	action string
	kind   spot.Kind
}

func (w warning) read(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
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
	return nil, e.wrong(`its "instance-action" is %q, not %s`, d.Action, oneOf(actions))
}

func (w warning) write(in spot.Interruption) (any, string, error) {
	for _, a := range w {
		if a.kind == in.Kind {
			return instanceDetail{InstanceID: in.Instance, Action: a.action}, instanceARN(in), nil
		}
	}
	return nil, "", fmt.Errorf("no action means %q", in.Kind)
}

// recommendation says that a Spot instance is likelier than others to be taken back.
type recommendation struct{}

func (recommendation) read(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[instanceDetail](e)
	if err != nil {
		return nil, err
	}
	return e.of(in, spot.Rebalance, d.InstanceID)
}

func (recommendation) write(in spot.Interruption) (any, string, error) {
	return instanceDetail{InstanceID: in.Instance}, instanceARN(in), nil
}

// stateChange says which state an instance is in now.
type stateChange struct{}

const statePending = "pending"

// states are all there are, in the order in which an instance has them.
var states = []string{statePending, "running", "stopping", "stopped", "shutting-down", "terminated"}

func (stateChange) read(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[instanceDetail](e)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(states, d.State):
		return nil, e.wrong(`its "state" is %q, not %s`, d.State, oneOf(states))
	case d.State == statePending:
		return nil, e.nothing("an instance that starts leaves nothing behind; that it runs is an event of its own")
	}
	in.State = d.State
	return e.of(in, spot.StateChange, d.InstanceID)
}

func (stateChange) write(in spot.Interruption) (any, string, error) {
	if !slices.Contains(states, in.State) {
		return nil, "", fmt.Errorf("the state is %q, not %s", in.State, oneOf(states))
	}
	return instanceDetail{InstanceID: in.Instance, State: in.State}, instanceARN(in), nil
}

// oneOf is a list in words.
func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
