package eventbridge

import (
	"fmt"

	"github.com/castai/kops-spot/internal/spot"
)

// lifecycleAction is the event of an instance that a lifecycle hook of its Auto Scaling group holds back on its way out.
//
// Where the instance goes is not read. "Destination" is EC2 for one that is terminated, and WarmPool for one that its
// group keeps for later; both leave service, and the pods of both have to go first. "Origin" is WarmPool for one that
// goes from the pool: it has no pods, but its hook waits for an answer like any other. Groups without a warm pool may
// send neither.
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

func (lifecycleAction) read(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[lifecycleDetail](e)
	if err != nil {
		return nil, err
	}
	if d.Transition != transitionTerminating {
		return nil, e.wrong(`its "LifecycleTransition" is %q, not %s`, d.Transition, transitionTerminating)
	}
	// An action is completed by its group, its hook and the instance; the token is only the surer name of the last.
	if d.Group == "" || d.Hook == "" {
		return nil, e.wrong(`it has no "AutoScalingGroupName" or no "LifecycleHookName"`)
	}
	in.Action = spot.Action{Group: d.Group, Hook: d.Hook, Token: d.Token, Instance: d.InstanceID}
	return e.of(in, spot.LifecycleTerminate, d.InstanceID)
}

func (lifecycleAction) write(in spot.Interruption) (any, string, error) {
	a := in.Action
	switch {
	case a.Group == "" || a.Hook == "":
		return nil, "", fmt.Errorf("a lifecycle action needs its group (%q) and its hook (%q)", a.Group, a.Hook)
	case a.Instance != in.Instance:
		return nil, "", fmt.Errorf("the lifecycle action is of %q, the interruption of %q", a.Instance, in.Instance)
	}
	// The group's own id, which stands before its name, is nowhere else in the event.
	group := fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:00000000-0000-0000-0000-000000000000:autoScalingGroupName/%s",
		in.Region, in.Account, a.Group)
	return lifecycleDetail{Token: a.Token, Group: a.Group, Hook: a.Hook, InstanceID: in.Instance, Transition: transitionTerminating,
		Origin: "AutoScalingGroup", Destination: "EC2"}, group, nil
}
