package app

import (
	"context"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// lookForOverdue finds nodes cordoned by kops-spot whose instance still runs long after its deadline.
func (s selfChecker) lookForOverdue(found *[]spot.OverdueInstance) probe {
	return probe{"overdue instances", "see the detail: it names the failing request, to the cluster or to EC2", func(ctx context.Context) (string, error) {
		now := time.Now()
		nodes, err := s.cluster.CordonedNodes(ctx)
		if err != nil {
			return "", err
		}
		instances := map[string]spot.Instance{}
		if due := spot.OverdueCandidates(nodes, now); len(due) > 0 {
			if instances, err = s.cloud.InstancesOf(ctx, due); err != nil {
				return "", err
			}
		}
		*found = spot.Overdue(nodes, instances, now)
		return fmt.Sprintf("%d cordoned nodes, %d overdue", len(nodes), len(*found)), nil
	}}
}

// overdueCheck returns the failed check of an overdue instance. The instance costs money, but only people terminate it:
// that cannot be undone.
func overdueCheck(o spot.OverdueInstance) Check {
	return Check{
		Name: "overdue: " + o.Node,
		Detail: fmt.Sprintf("instance %s of node %s is still running; its deadline was %s",
			o.Instance, o.Node, o.Since.Format(time.RFC3339)),
		Advice: fmt.Sprintf("terminate the instance (aws ec2 terminate-instances --instance-ids %s), or keep it and "+
			"restore the node (kops-spot restore %s)", o.Instance, o.Node),
	}
}
