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
		return c.cleanUpDeletedNode(ctx, finding, c.in.Instance, false)
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
		if plan.DeleteNode {
			return c.cleanUpDeletedNode(ctx, finding, n.Name, true)
		}
		out := c.newOutcome(spot.Plan{Result: spot.CleanedUp, Reason: deletedMeanwhile + ": Kubernetes deletes its pods"})
		out.Cleanup = &spot.CleanupResult{NodeDeletedBy: spot.DeletedByCloudController}
		return out, nil
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
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return c.ignored("no node to uncordon"), nil
	case err != nil:
		return spot.Outcome{}, fmt.Errorf("uncordoning node %s, whose instance runs again: %w", t.Node.Name, err)
	}
	c.log("uncordon", "uncordoned node", "node", t.Node.Name)
	return c.newOutcome(spot.Plan{Result: spot.Recovered}), nil
}

// cleanUpNode makes Kubernetes start the pods of a stopped instance elsewhere. The order matters: the taint first, so
// that volumes do not wait for a kubelet; then the pods' deletion timestamps, which the taint causes; then the pods;
// and the node last, because the volumes of a deleted node stay attached for minutes. With the taint, Kubernetes
// finishes what takes longer than the limit. The cloud controller may delete the node at any moment.
func (c *invocation) cleanUpNode(ctx context.Context, n spot.Node, plan spot.CleanupPlan) spot.Outcome {
	work, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	out := c.newOutcome(spot.Plan{Result: spot.CleanedUp})
	out.Cleanup = &spot.CleanupResult{Tainted: spot.SecondsSince(c.in.Time, time.Now())}
	pods, err := c.remainingPods(work, n.Name)
	if err != nil {
		out.Problems = append(out.Problems, fmt.Sprintf("listing the remaining pods: %v", err))
	} else if len(pods) > 0 {
		// If the node still exists, the pods are its own, whatever happens to it afterwards.
		err = toCluster.persist(work, func(ctx context.Context) error { return c.nodeExists(ctx, n) })
	}
	switch {
	case errors.Is(err, spot.ErrChanged):
		return c.nodeReplaced(out, n.Name)
	case errors.Is(err, spot.ErrNotFound):
		if !plan.DeleteNode {
			c.leave(&out, pods, spot.PodSkipped, "Kubernetes deletes it with its node")
		} else {
			c.deleteOrphans(work, &out, n.Name, c.createdBefore(pods))
		}
	case err != nil && len(pods) > 0:
		out.Problems = append(out.Problems, fmt.Sprintf("checking that the node exists before deleting its pods: %v", err))
		c.leave(&out, pods, spot.PodStillRunning, "it was not deleted: another instance may have the name of its node")
	case err == nil:
		c.deleteRemaining(work, &out, pods)
	}
	c.awaitVolumes(work, &out, n.Name)
	after, cancelAfter := c.afterWork(ctx)
	defer cancelAfter()
	if r := out.Cleanup; plan.DeleteNode && r.VolumesDetached != nil && r.PodsDeleted != nil {
		deleted := false
		switch deleted, err = c.deleteNode(after, n); {
		case err != nil:
			out.Problems = append(out.Problems, fmt.Sprintf("deleting the node: %v", err))
		case deleted:
			r.NodeDeletedBy, r.NodeDeleted = spot.DeletedByKopsSpot, spot.SecondsSince(c.in.Time, time.Now())
		default:
			r.NodeDeletedBy, out.Reason = spot.DeletedByCloudController, deletedMeanwhile
		}
	} else if err := c.nodeExists(after, n); errors.Is(err, spot.ErrChanged) {
		return c.nodeReplaced(out, n.Name)
	} else if errors.Is(err, spot.ErrNotFound) {
		r.NodeDeletedBy, out.Reason = spot.DeletedByCloudController, deletedMeanwhile
	}
	return c.finishCleanup(out)
}

const deletedMeanwhile = "the node was deleted during the clean-up, probably by the cloud controller"

// cleanUpDeletedNode deletes the pods of a node that the cloud controller has deleted first: the pod garbage collector
// would take a minute. name is the node's, or the instance ID if it is not known: if nothing is found under that name,
// the node may have had another one. seen is whether this invocation has seen the node: otherwise an earlier one for the
// same event may have deleted it, if nothing is left to clean up. finding limits the time until the first deletion.
func (c *invocation) cleanUpDeletedNode(ctx, finding context.Context, name string, seen bool) (spot.Outcome, error) {
	out := c.newOutcome(spot.Plan{Result: spot.CleanedUp})
	out.Cleanup = &spot.CleanupResult{}
	var pods []spot.Pod
	found := seen
	absent := func(ctx context.Context) error { return c.nodeIsDeleted(ctx, name) }
	for _, step := range []func(context.Context) error{absent, func(ctx context.Context) (err error) {
		var all []spot.Pod
		if all, err = c.podsOn(ctx, name); err == nil {
			found = found || len(all) > 0
			pods = c.createdBefore(slices.DeleteFunc(all, func(p spot.Pod) bool { return !mustBeDeleted(p) }))
		}
		return err
	}, absent} {
		err := toCluster.persist(finding, step)
		switch {
		case errors.Is(err, spot.ErrChanged):
			return c.nodeReplaced(out, name), nil
		case err != nil:
			return spot.Outcome{}, fmt.Errorf("cleaning up after the deleted node of %s: %w", c.in.Instance, err)
		}
	}
	work, cancel := context.WithTimeout(ctx, c.in.Kind.Limit())
	defer cancel()
	c.deleteOrphans(work, &out, name, pods)
	volumes := c.awaitVolumes(work, &out, name)
	if len(out.AttachedVolumes) > 0 && errors.Is(c.nodeIsDeleted(ctx, name), spot.ErrChanged) {
		return c.nodeReplaced(out, name), nil
	}
	if seen || volumes || len(pods) > 0 { // kops-spot deletes these before the node
		out.Cleanup.NodeDeletedBy, out.Reason = spot.DeletedByCloudController, "the node was already deleted, probably by the cloud controller"
	} else {
		out.Reason = "the node was already deleted, by the cloud controller or an earlier invocation"
	}
	if !found && !volumes {
		out.Cleanup.PodsDeleted, out.Cleanup.VolumesDetached = nil, nil
		out.Reason += ", and nothing is left under the name " + name + ": if the node had another name, Kubernetes cleans up alone"
	}
	return c.finishCleanup(out), nil
}

// nodeReplaced returns the outcome of a clean-up after which another Node has the name: what is on it is not reported.
func (c *invocation) nodeReplaced(out spot.Outcome, name string) spot.Outcome {
	out.Cleanup.NodeDeletedBy, out.AttachedVolumes = spot.DeletedByCloudController, nil
	out.Reason = "the node was deleted, and another node has the name " + name + ": the pods and volumes on it are left alone"
	return c.finishCleanup(out)
}

// finishCleanup reports the volumes that are waiting, and the time.
func (c *invocation) finishCleanup(out spot.Outcome) spot.Outcome {
	if len(out.AttachedVolumes) > 0 {
		text := fmt.Sprintf("still attached after %s: %s", c.in.Kind.Limit(), strings.Join(out.AttachedVolumes, ", "))
		if out.Cleanup.NodeDeletedBy != "" {
			text += ": Kubernetes may take six minutes to detach the volumes of a deleted node"
		}
		out.Problems = append(out.Problems, text)
	}
	out.Timings.Finished = spot.SecondsSince(c.in.Time, time.Now())
	return out
}

// deleteRemaining deletes the pods.
func (c *invocation) deleteRemaining(ctx context.Context, out *spot.Outcome, pods []spot.Pod) {
	out.Pods = c.deletePods(ctx, pods)
	if n := countPods(out.Pods, spot.PodStillRunning); n > 0 {
		out.Problems = append(out.Problems, podCount(n)+" could not be deleted")
	} else {
		out.Cleanup.PodsDeleted = spot.SecondsSince(c.in.Time, time.Now())
	}
}

// deleteOrphans deletes the pods of a deleted node, if its name is the instance ID: another instance may have any other
// name already, and the pod garbage collector checks that.
func (c *invocation) deleteOrphans(ctx context.Context, out *spot.Outcome, node string, pods []spot.Pod) {
	if node == c.in.Instance || len(pods) == 0 {
		c.deleteRemaining(ctx, out, pods)
		return
	}
	c.leave(out, pods, spot.PodSkipped, "Kubernetes deletes it: another instance may reuse the name of its deleted node")
}

// leave reports pods that were not deleted. The pod garbage collector deletes them.
func (c *invocation) leave(out *spot.Outcome, pods []spot.Pod, status spot.PodStatus, reason string) {
	for _, p := range pods {
		r := (&podState{pod: p}).result(c.in.Time, spot.Plan{})
		r.Status, r.Reason = status, reason
		out.Pods = append(out.Pods, r)
	}
}

// awaitVolumes waits until no volume is attached to the node, and reports whether one was.
func (c *invocation) awaitVolumes(ctx context.Context, out *spot.Outcome, node string) (found bool) {
	attached, found, err := c.waitForVolumes(ctx, node)
	switch {
	case err != nil:
		out.Problems = append(out.Problems, fmt.Sprintf("listing the node's volumes: %v", err))
	case len(attached) > 0:
		out.AttachedVolumes = attached
	default:
		out.Cleanup.VolumesDetached = spot.SecondsSince(c.in.Time, time.Now())
	}
	return found
}

// nodeExists returns ErrNotFound if the node is deleted, and ErrChanged if another one has its name.
func (c *invocation) nodeExists(ctx context.Context, n spot.Node) error {
	now, err := c.Cluster.NodeNamed(ctx, n.Name)
	if err == nil && now.UID != n.UID {
		return finalError{fmt.Errorf("another node has the name %s: %w", n.Name, spot.ErrChanged)}
	}
	return err
}

// nodeIsDeleted returns ErrChanged if a Node has the name.
func (c *invocation) nodeIsDeleted(ctx context.Context, name string) error {
	switch _, err := c.Cluster.NodeNamed(ctx, name); {
	case err == nil:
		return finalError{fmt.Errorf("a node has the name %s again: %w", name, spot.ErrChanged)}
	case errors.Is(err, spot.ErrNotFound):
		return nil
	default:
		return err
	}
}

// createdBefore returns the pods that are older than the event: a later one belongs to another instance.
func (c *invocation) createdBefore(pods []spot.Pod) []spot.Pod {
	return slices.DeleteFunc(pods, func(p spot.Pod) bool { return !p.Created.Before(c.in.Time) })
}

// podsOn lists the pods with the node's name.
func (c *invocation) podsOn(ctx context.Context, node string) (pods []spot.Pod, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if listed {
			return
		}
		listed, pods = true, slices.Clone(ch.Pods)
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

// waitForVolumes waits until no volume is attached to the node or ctx ends, and returns the attached volumes, and
// whether any was attached.
func (c *invocation) waitForVolumes(ctx context.Context, node string) (attached []string, found bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = toCluster.persist(ctx, func(ctx context.Context) error {
		err := c.Cluster.FollowVolumes(ctx, node, func(now []string) {
			attached, listed, found = now, true, found || len(now) > 0
			if len(now) == 0 {
				cancel()
			}
		})
		return cmp.Or(err, errNotYet)
	})
	if listed {
		return attached, found, nil
	}
	return nil, false, cmp.Or(err, ctx.Err())
}

// deleteNode deletes the node and reports whether it did: the cloud controller may have deleted it.
func (c *invocation) deleteNode(ctx context.Context, n spot.Node) (deleted bool, err error) {
	err = toCluster.persist(ctx, func(ctx context.Context) error {
		if err := c.nodeExists(ctx, n); err != nil {
			return err
		}
		err := c.Cluster.DeleteNode(ctx, n)
		if errors.Is(err, spot.ErrChanged) {
			return finalError{err}
		}
		return err
	})
	if errors.Is(err, spot.ErrNotFound) || errors.Is(err, spot.ErrChanged) {
		return false, nil
	}
	return err == nil, err
}
