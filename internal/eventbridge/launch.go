package eventbridge

import (
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// launchFailure means that a group could not launch an instance ("Unsuccessful scaling events" in the Amazon EC2 Auto
// Scaling User Guide). Auto Scaling sends one for each attempt. It ignores "EC2InstanceId", which is empty or names an
// instance that never joined the group.
type launchFailure struct{}

type launchDetail struct {
	Group   string `json:"AutoScalingGroupName"`
	Message string `json:"StatusMessage"`
}

// fullLaunchDetail has all required fields.
type fullLaunchDetail struct {
	launchDetail
	StatusCode, StartTime, EndTime, Cause, Origin, Destination string

	ActivityID string `json:"ActivityId"`
	RequestID  string `json:"RequestId"`
	InstanceID string `json:"EC2InstanceId"`

	Details map[string]string
}

func (launchFailure) decode(e envelope, in spot.Interruption) ([]spot.Interruption, error) {
	d, err := detailOf[launchDetail](e)
	switch {
	case err != nil:
		return nil, err
	case d.Group == "":
		return nil, e.invalid(`"AutoScalingGroupName" is missing`)
	case d.Message == "":
		return nil, e.invalid(`"StatusMessage" is missing`)
	}
	in.Kind, in.Group, in.Message = spot.LaunchFailed, d.Group, d.Message
	return []spot.Interruption{in}, nil
}

func (launchFailure) encode(in spot.Interruption) (any, string, error) {
	if in.Group == "" || in.Message == "" {
		return nil, "", errors.New("a failed launch needs a group and a message")
	}
	at := in.Time.UTC().Format(time.RFC3339)
	return fullLaunchDetail{launchDetail: launchDetail{Group: in.Group, Message: in.Message}, StatusCode: "Failed",
		ActivityID: in.EventID, RequestID: in.EventID, StartTime: at, EndTime: at, Origin: "EC2", Destination: "AutoScalingGroup",
		Cause:   fmt.Sprintf("At %s an instance was started in response to a difference between desired and actual capacity.", at),
		Details: map[string]string{"Availability Zone": in.Region + "a", "Subnet ID": "subnet-00000000"}}, groupARN(in, in.Group), nil
}

// groupARN returns the ARN of a group, with a placeholder for its UUID, which the events do not contain.
func groupARN(in spot.Interruption, group string) string {
	return fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:00000000-0000-0000-0000-000000000000:autoScalingGroupName/%s",
		in.Region, in.Account, group)
}
