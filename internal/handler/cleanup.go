package handler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// timestampLimit is how long to wait for the taint eviction controller to delete the pods. It deletes pods by name,
	// even if they are already terminating: if a pod's object is removed earlier, the controller may delete the next
	// pod of its StatefulSet. It sets a condition on the pod and deletes it some milliseconds later; timestampPause
	// covers these. It never deletes a pod that tolerates the taint, so the wait is limited.
	timestampLimit = 5 * time.Second
	timestampPause = 150 * time.Millisecond
	byTaintManager = "DeletionByTaintManager"
)

// cleanUp cleans up after a stopped instance, or uncordons the node of an instance that runs again.
func (c *invocation) cleanUp(ctx context.Context) (spot.Outcome, error) {
	if !c.limit.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.limit)
		defer cancel()
	}
	switch c.in.State {
	case spot.StateRunning:
		return c.uncordonReturned(ctx)
	case spot.StateStopped, spot.StateTerminated:
		return c.cleanUpInstance(ctx)
	}
	return c.ignored("the instance is " + c.in.State + ": clean-up starts when it has stopped"), nil
}

func (c *invocation) ignored(reason string) spot.Outcome {
	return c.newOutcome(spot.Plan{Result: spot.Ignored, Reason: reason})
}

// otherCluster returns an outcome if the instance belongs to another cluster.
func (c *invocation) otherCluster() (spot.Outcome, bool) {
	i, _ := c.instance.known()
	if i == nil {
		return spot.Outcome{}, false
	}
	why := c.Policy.OtherClusterReason(*i)
	return c.newOutcome(spot.Plan{Result: spot.OtherCluster, Reason: why}), why != ""
}

func (c *invocation) cleanUpInstance(ctx context.Context) (spot.Outcome, error) {
	finding, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	if err := c.waitForInstance(finding, func(i spot.Instance) bool {
		return i.State == spot.StateStopped || i.State == spot.StateTerminated || i.State == spot.StateRunning
	}); err != nil {
		return spot.Outcome{}, err
	}
	if out, ok := c.otherCluster(); ok {
		return out, nil
	}
	if err := c.findNode(finding, true); err != nil {
		return spot.Outcome{}, err
	}
	t := c.target()
	plan := c.Policy.Cleanup(t)
	switch {
	case !plan.CleanUp:
		return c.ignored(plan.Reason), nil
	case plan.NodeDeleted:
		return c.cleanUpDeletedNode(ctx, finding)
	}
	n := *t.Node
	err := toCluster.persist(finding, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, spot.OutOfService)
		if err == nil {
			n = after
		}
		return err
	})
	switch {
	case errors.Is(err, spot.ErrNotFound):
		t.Node = nil
		if plan = c.Policy.Cleanup(t); !plan.CleanUp {
			return c.ignored("the node is already deleted"), nil
		}
		return c.cleanUpDeletedNode(ctx, finding)
	case err != nil:
		return spot.Outcome{}, fmt.Errorf("applying the out-of-service taint to node %s: %w", n.Name, err)
	}
	c.log("out-of-service", "applied out-of-service taint", "node", n.Name)
	return c.cleanUpNode(ctx, n, plan), nil
}

// uncordonReturned uncordons a node whose instance runs again.
func (c *invocation) uncordonReturned(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	if err := c.waitForInstance(ctx, func(spot.Instance) bool { return true }); err != nil {
		return spot.Outcome{}, err
	}
	if out, ok := c.otherCluster(); ok {
		return out, nil
	}
	if err := c.findNode(ctx, false); err != nil {
		return spot.Outcome{}, err
	}
	t := c.target()
	switch {
	case t.Node == nil || !t.Node.HasReturned(c.in):
		return c.ignored("no node to uncordon"), nil
	case t.Instance == nil || t.Instance.State != spot.StateRunning:
		return c.ignored("the instance is no longer running"), nil
	}
	err := toCluster.persist(ctx, func(ctx context.Context) error {
		_, err := c.Cluster.ChangeNode(ctx, *t.Node, spot.Restore)
		return err
	})
	if err != nil {
		return spot.Outcome{}, fmt.Errorf("uncordoning node %s, whose instance runs again: %w", t.Node.Name, err)
	}
	c.log("uncordon", "uncordoned node", "node", t.Node.Name)
	return c.newOutcome(spot.Plan{Result: spot.Recovered}), nil
}

// cleanUpNode makes Kubernetes start the pods of a stopped instance elsewhere. The order matters: the taint first, so
// that volumes do not wait for a kubelet; then the pods' deletion timestamps, which the taint causes; then the pods;
// and the node last, because the volumes of a deleted node stay attached for minutes. With the taint, Kubernetes
// finishes what takes longer than the limit.
func (c *invocation) cleanUpNode(ctx context.Context, n spot.Node, plan spot.CleanupPlan) spot.Outcome {
	limit := c.in.Kind.Limit()
	work, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	since := func() *spot.Seconds { return spot.SecondsSince(c.in.Time, time.Now()) }
	result := spot.CleanupResult{Tainted: since()}
	out := c.newOutcome(spot.Plan{Result: spot.CleanedUp})
	out.Cleanup = &result
	problem := func(format string, args ...any) { out.Problems = append(out.Problems, fmt.Sprintf(format, args...)) }
	pods, err := c.remainingPods(work, n.Name)
	out.Pods = c.deletePods(work, pods)
	switch {
	case err != nil:
		problem("listing the remaining pods: %v", err)
	case countPods(out.Pods, spot.PodStillRunning) > 0:
		problem("%s could not be deleted", podCount(countPods(out.Pods, spot.PodStillRunning)))
	default:
		result.PodsDeleted = since()
	}
	attached, err := c.waitForVolumes(work, n.Name)
	switch {
	case err != nil:
		problem("listing the node's volumes: %v", err)
	case len(attached) > 0:
		out.AttachedVolumes = attached
		problem("still attached after %s: %s", limit, strings.Join(attached, ", "))
	default:
		result.VolumesDetached = since()
	}
	if plan.DeleteNode && result.VolumesDetached != nil && result.PodsDeleted != nil {
		after, cancel := c.afterWork(ctx)
		defer cancel()
		if err := c.deleteNode(after, n); err != nil {
			problem("deleting the node: %v", err)
		} else {
			result.NodeDeleted = since()
		}
	}
	out.Timings.Finished = since()
	return out
}

// cleanUpDeletedNode deletes the pods of a node that the cloud controller has deleted first: the pod garbage collector
// would take a minute. It only looks for pods on a node named after the instance, because addresses are reused. If a
// Node has that name again, it deletes nothing. finding limits the time until the first deletion.
func (c *invocation) cleanUpDeletedNode(ctx, finding context.Context) (spot.Outcome, error) {
	name := c.in.Instance
	var pods []spot.Pod
	for _, step := range []func(context.Context) error{c.nodeIsDeleted, func(ctx context.Context) (err error) {
		pods, err = c.orphanedPods(ctx, name)
		return err
	}, c.nodeIsDeleted} {
		err := toCluster.persist(finding, step)
		switch {
		case errors.Is(err, spot.ErrChanged):
			return c.ignored(err.Error()), nil
		case err != nil:
			return spot.Outcome{}, fmt.Errorf("cleaning up after the deleted node of %s: %w", name, err)
		}
	}
	if len(pods) == 0 {
		return c.ignored("the node is already deleted, and no pod is left on the name " + name +
			": Kubernetes cleans up nodes with other names"), nil
	}
	work, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	out := c.newOutcome(spot.Plan{Result: spot.CleanedUp, Reason: "the node was already deleted"})
	out.Cleanup = &spot.CleanupResult{}
	out.Pods = c.deletePods(work, pods)
	now := spot.SecondsSince(c.in.Time, time.Now())
	if n := countPods(out.Pods, spot.PodStillRunning); n > 0 {
		out.Problems = append(out.Problems, podCount(n)+" could not be deleted")
	} else {
		out.Cleanup.PodsDeleted = now
	}
	out.Timings.Finished = now
	return out, nil
}

// nodeIsDeleted returns ErrChanged if a Node with the name of the instance exists.
func (c *invocation) nodeIsDeleted(ctx context.Context) error {
	switch _, err := c.Cluster.NodeNamed(ctx, c.in.Instance); {
	case err == nil:
		return finalError{fmt.Errorf("a node has the name of the instance again: %w", spot.ErrChanged)}
	case errors.Is(err, spot.ErrNotFound):
		return nil
	default:
		return err
	}
}

// orphanedPods lists the pods to delete after their node was deleted. A pod created after the event belongs to another
// instance.
func (c *invocation) orphanedPods(ctx context.Context, node string) (pods []spot.Pod, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if listed {
			return
		}
		listed = true
		for _, p := range ch.Pods {
			if mustBeDeleted(p) && p.Created.Before(c.in.Time) {
				pods = append(pods, p)
			}
		}
		cancel()
	})
	if listed {
		return pods, nil
	}
	return nil, err
}

// remainingPods returns the pods to delete, once the taint eviction controller has deleted each, or after
// timestampLimit.
func (c *invocation) remainingPods(ctx context.Context, node string) ([]spot.Pod, error) {
	waiting, cancel := context.WithTimeout(ctx, timestampLimit)
	defer cancel()
	pods := map[string]spot.Pod{}
	listed := false
	var err error
	for waiting.Err() == nil {
		err = c.Cluster.FollowPods(waiting, node, func(ch spot.PodChange) {
			if ch.All {
				clear(pods)
				listed = true
			}
			for _, p := range ch.Pods {
				if ch.Gone {
					delete(pods, p.UID)
				} else {
					pods[p.UID] = p
				}
			}
			for _, p := range pods {
				if mustBeDeleted(p) && !(p.Terminating && p.DisruptedBy == byTaintManager) {
					return
				}
			}
			cancel()
		})
		sleep(waiting, toCluster.first)
	}
	if !listed {
		return nil, errors.Join(err, ctx.Err(), errNoResponse)
	}
	var remaining []spot.Pod
	for _, p := range pods {
		if mustBeDeleted(p) {
			remaining = append(remaining, p)
		}
	}
	if len(remaining) > 0 {
		sleep(ctx, timestampPause)
	}
	slices.SortFunc(remaining, spot.EvictionOrder)
	return remaining, nil
}

// mustBeDeleted reports whether a pod is deleted after its instance has stopped. Kubernetes deletes mirror pods and
// pods of DaemonSets with the node.
func mustBeDeleted(p spot.Pod) bool { return !p.Mirror && p.Owner.Kind != "DaemonSet" }

// deletePods deletes the pods of a stopped instance: its kubelet cannot.
func (c *invocation) deletePods(ctx context.Context, pods []spot.Pod) []spot.PodResult {
	if len(pods) == 0 {
		return nil
	}
	results := make([]spot.PodResult, len(pods))
	slots := make(chan struct{}, max(c.Policy.Parallel, 1))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s := podState{pod: p, requestedAt: time.Now()}
			err := toCluster.persist(ctx, func(ctx context.Context) error {
				err := c.Cluster.Delete(ctx, p, 0, false)
				if errors.Is(err, spot.ErrChanged) {
					return spot.ErrNotFound // another pod has its name
				}
				return err
			})
			r := s.result(c.in.Time, spot.Plan{})
			switch {
			case err == nil || errors.Is(err, spot.ErrNotFound):
				r.Status, r.Reason = spot.PodDeleted, "its instance has stopped"
				r.TerminatedAt = spot.SecondsSince(c.in.Time, time.Now())
			default:
				r.Status, r.Reason, r.LastRefusal = spot.PodStillRunning, "it could not be deleted", err.Error()
			}
			results[i] = r
		})
	}
	wg.Wait()
	return results
}

// waitForVolumes waits until no volume is attached to the node or ctx ends, and returns the attached volumes.
func (c *invocation) waitForVolumes(ctx context.Context, node string) (attached []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = toCluster.persist(ctx, func(ctx context.Context) error {
		err := c.Cluster.FollowVolumes(ctx, node, func(now []string) {
			if attached, listed = now, true; len(now) == 0 {
				cancel()
			}
		})
		return cmp.Or(err, errNotYet)
	})
	if listed {
		return attached, nil
	}
	return nil, cmp.Or(err, ctx.Err())
}

// deleteNode deletes the node if it still belongs to the instance.
func (c *invocation) deleteNode(ctx context.Context, n spot.Node) error {
	return toCluster.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		switch {
		case errors.Is(err, spot.ErrNotFound), err == nil && !now.IsInstance(c.in.Instance):
			return nil // deleted, or replaced by another instance's node
		case err != nil:
			return err
		}
		if err = c.Cluster.DeleteNode(ctx, n); errors.Is(err, spot.ErrNotFound) || errors.Is(err, spot.ErrChanged) {
			return nil
		}
		return err
	})
}
