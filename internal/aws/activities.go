package aws

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/castai/kops-spot/internal/spot"
)

// clockSkew is by how much a launch may seem to have begun too early: the clock that since was read from and that of
// Auto Scaling are not the same, and some of these times are whole seconds.
const clockSkew = 2 * time.Second

// activityPage is how many activities one call describes: as many as AWS allows, so that there are few calls.
const activityPage = 100

// Launches reads the group's activities until it meets one that is over and began before since. AWS describes those that
// go on first, however long ago they began, then the others, sorted by their start (API reference,
// DescribeScalingActivities). That the newest are first is unverified: AWS does not say so, but all that users show is so.
func (c *Cloud) Launches(ctx context.Context, group string, since time.Time) ([]spot.Launch, error) {
	since = since.Add(-clockSkew)
	in := &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String(group), MaxRecords: aws.Int32(activityPage)}
	var found []spot.Launch
	for {
		out, err := attempt(ctx, c, "autoscaling:DescribeScalingActivities", "describing scaling activities of Auto Scaling group "+group, "",
			c.scale.DescribeScalingActivities, in)
		if err != nil {
			return nil, err
		}
		older := false
		for _, a := range out.Activities {
			if aws.ToTime(a.StartTime).Before(since) {
				older = older || a.StatusCode == types.ScalingActivityStatusCodeSuccessful || hasFailed(a.StatusCode)
			} else if l, ok := launch(a); ok {
				found = append(found, l)
			}
		}
		if older || aws.ToString(out.NextToken) == "" {
			slices.Reverse(found)
			slices.SortStableFunc(found, func(a, b spot.Launch) int { return a.At.Compare(b.At) })
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

// hasFailed: "If an attempt to launch instances failed, the StatusCode value is Failed or Cancelled and the StatusMessage
// element in the response indicates the cause of the failure" (API reference, DescribeScalingActivities).
func hasFailed(s types.ScalingActivityStatusCode) bool {
	return s == types.ScalingActivityStatusCodeFailed || s == types.ScalingActivityStatusCodeCancelled
}

// What an activity is stands in no field but its description, whose words AWS shows in examples but does not promise
// (unverified). These are from the user guide and from users:
//
//	Launching a new EC2 instance: i-0123456789abcdef0
//	Launching a new EC2 instance.  Status Reason: …                        (it failed, or there is none yet)
//	Launching a new EC2 instance: i-0123456789abcdef0.  Status Reason: …   (it was launched, and then given up)
//	Launching a new EC2 instance from warm pool: i-0123456789abcdef0
//	Launching a new EC2 instance into warm pool: i-0123456789abcdef0       (it replaces nothing)
//	Terminating EC2 instance: i-0123456789abcdef0
const (
	launching    = "Launching a new EC2 instance"
	intoWarmPool = " into warm pool"
	statusReason = "Status Reason:"
)

// instanceID finds an id in a description. It is asked of what stands before the reason, which may name other instances.
var instanceID = regexp.MustCompile(`\bi-[0-9a-f]{8,17}\b`)

// launch is what an activity says of a launch; false if it is none that brings the group an instance.
func launch(a types.Activity) (spot.Launch, bool) {
	what, ok := strings.CutPrefix(aws.ToString(a.Description), launching)
	if !ok || strings.HasPrefix(what, intoWarmPool) {
		return spot.Launch{}, false
	}
	what, reason, _ := strings.Cut(what, statusReason)
	l := spot.Launch{Instance: instanceID.FindString(what), At: aws.ToTime(a.StartTime), Failed: hasFailed(a.StatusCode)}
	if l.Failed {
		l.Reason = cmp.Or(aws.ToString(a.StatusMessage), strings.TrimSpace(reason), string(a.StatusCode))
	}
	return l, true
}
