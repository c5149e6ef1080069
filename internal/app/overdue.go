package app

import (
	"context"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// lookForOverdue finds the nodes with our marks whose instances should have ended long ago.
func (s selfChecker) lookForOverdue(found *[]spot.OverdueInstance) probe {
	return probe{"marked nodes", "the detail says which of the two could not be asked, the cluster or EC2", func(ctx context.Context) (string, error) {
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
		return fmt.Sprintf("%d marked, %d overdue", len(nodes), len(*found)), nil
	}}
}

// overdueCheck is the failed check of an overdue instance. It costs money until somebody ends it: the function never does,
// since that cannot be undone.
func overdueCheck(o spot.OverdueInstance) Check {
	return Check{
		Name: "overdue: " + o.Node,
		Detail: fmt.Sprintf("instance %s of node %s is still running; it was expected to end by %s",
			o.Instance, o.Node, o.Since.Format(time.RFC3339)),
		Advice: fmt.Sprintf("terminate the instance (aws ec2 terminate-instances --instance-ids %s), or, if it is to stay, "+
			"restore the node (kops-spot restore %s)", o.Instance, o.Node),
	}
}
