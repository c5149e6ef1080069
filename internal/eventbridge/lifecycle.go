package eventbridge

import (
	"fmt"

	"github.com/castai/kops-spot/internal/spot"
)

// lifecycleAction means that a lifecycle hook delays the termination of an instance.
//
// It ignores "Origin" and "Destination". Destination is EC2 for a terminated instance and WarmPool for one that returns
// to the warm pool: both must be drained. Origin is WarmPool for an instance that leaves the pool: it has no pods, but
// its hook must be completed as well. Groups without a warm pool may send neither.
type lifecycleAction struct{}

const transitionTerminating = "autoscaling:EC2_INSTANCE_TERMINATING"

type lifecycleDetail struct {
	Token       string `json:"LifecycleActionToken,omitempty"`
	Group       string `json:"AutoScalingGroupName"`
	Hook        string `json:"LifecycleHookName"`
	InstanceID  string `json:"EC2InstanceId"`
	Transition  string `json:"LifecycleTransition"`
	Origin      string `json:"Origin,omitempty"`
	Destination string `json:"Destination,omitempty"`
}

func (lifecycleAction) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[lifecycleDetail](e)
	if err != nil {
		return nil, err
	}
	if d.Transition != transitionTerminating {
		return nil, e.invalid(`"LifecycleTransition" is %q, not %s`, d.Transition, transitionTerminating)
	}
	// The token is optional: group, hook and instance also identify the action.
	if d.Group == "" || d.Hook == "" {
		return nil, e.invalid(`"AutoScalingGroupName" or "LifecycleHookName" is missing`)
	}
	in.Action = spot.Action{Group: d.Group, Hook: d.Hook, Token: d.Token, Instance: d.InstanceID}
	return e.of(in, spot.LifecycleTerminate, d.InstanceID)
}

func (lifecycleAction) encode(in spot.Interruption) (any, string, error) {
	a := in.Action
	switch {
	case a.Group == "" || a.Hook == "":
		return nil, "", fmt.Errorf("a lifecycle action needs a group (%q) and a hook (%q)", a.Group, a.Hook)
	case a.Instance != in.Instance:
		return nil, "", fmt.Errorf("the lifecycle action is for %q, the interruption for %q", a.Instance, in.Instance)
	}
	return lifecycleDetail{Token: a.Token, Group: a.Group, Hook: a.Hook, InstanceID: in.Instance, Transition: transitionTerminating,
		Origin: "AutoScalingGroup", Destination: "EC2"}, groupARN(in, a.Group), nil
}
