package handler

import (
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
	// cleanUpLimit bounds all of a clean-up.
	cleanUpLimit = 5 * time.Minute

	// stateLimit is how long EC2 may go on to describe an instance as it was before the event.
	stateLimit = time.Minute

	// timestampLimit is how long the taint-eviction controller is given to delete the pods. It deletes by name, pods that
	// are ending already too: one whose object is deleted before that, and whose StatefulSet has started the next, costs
	// the next its life. It says on the pod that it deletes it, and does so some milliseconds after; timestampPause is for
	// those. A pod that tolerates the taint is never deleted by it, and is waited for in vain.
	timestampLimit = 5 * time.Second
	timestampPause = 150 * time.Millisecond
	byTaintManager = "DeletionByTaintManager"

	// detachLimit is how long volumes are waited for.
	detachLimit = 2 * time.Minute
)

// clean-up sees to what an instance leaves behind, or to a node that is back.
func (c *invocation) cleanUp(ctx context.Context) (spot.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanUpLimit)
	defer cancel()
	if !c.limit.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, c.limit)
		defer cancel()
	}
	switch c.in.State {
	case spot.StateRunning:
		return c.uncordonReturned(ctx)
	case spot.StateStopped, spot.StateTerminated:
		return c.cleanUpInstance(ctx)
	}
	return c.ignored("the instance is only " + c.in.State + ": nothing is given free before its end is certain"), nil
}

// previewCleanUp says what a clean-up would do now. What EC2 says is taken as it is: nothing is waited for.
func (c *invocation) previewCleanUp(ctx context.Context) (spot.Outcome, error) {
	c.startLookups(ctx, always)
	for _, done := range []<-chan struct{}{c.instance.done, c.node.done} {
		wait(ctx, done, previewLimit)
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	t := c.target()
	switch {
	case t.Node == nil && !errors.Is(t.NodeErr, spot.ErrNotFound), t.Instance == nil && !errors.Is(t.InstanceErr, spot.ErrNotFound):
		return spot.Outcome{}, c.failure()
	case c.in.State == spot.StateRunning && t.Node != nil && t.Node.HasReturned(c.in):
		return c.planned("our marks would be taken off the node, whose instance is back"), nil
	case c.in.State != spot.StateStopped && c.in.State != spot.StateTerminated:
		return c.ignored("the instance is only " + c.in.State + ": nothing would be given free"), nil
	}
	switch r := c.Policy.Cleanup(t); {
	case !r.CleanUp:
		return c.ignored(r.Reason), nil
	case r.DeleteNode:
		return c.planned("its pods and volumes would be given free, and its node deleted"), nil
	}
	return c.planned("its pods and volumes would be given free"), nil
}

func (c *invocation) planned(what string) spot.Outcome {
	out := c.newOutcome(spot.Plan{Reason: what})
	out.Result = spot.Planned
	return out
}

// nothing is the outcome of an event that there is nothing to do about.
func (c *invocation) ignored(why string) spot.Outcome {
	out := c.newOutcome(spot.Plan{Reason: why})
	out.Result = spot.Ignored
	return out
}

func (c *invocation) cleanUpInstance(ctx context.Context) (spot.Outcome, error) {
	if err := c.waitForInstance(ctx, func(i spot.Instance) bool {
		return i.State == spot.StateStopped || i.State == spot.StateTerminated || i.State == spot.StateRunning
	}); err != nil {
		return spot.Outcome{}, err
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	if err := c.findNode(ctx, true); err != nil {
		return spot.Outcome{}, err
	}
	t := c.target()
	r := c.Policy.Cleanup(t)
	if !r.CleanUp {
		return c.ignored(r.Reason), nil
	}
	return c.cleanUpNode(ctx, *t.Node, r)
}

// uncordonReturned takes our marks off a node that has come back with its instance.
func (c *invocation) uncordonReturned(ctx context.Context) (spot.Outcome, error) {
	if err := c.waitForInstance(ctx, func(spot.Instance) bool { return true }); err != nil {
		return spot.Outcome{}, err
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	if err := c.findNode(ctx, false); err != nil {
		return spot.Outcome{}, err
	}
	t := c.target()
	switch {
	case t.Node == nil || !t.Node.HasReturned(c.in):
		return c.ignored("there are no marks to take off a node"), nil
	case t.Instance == nil || t.Instance.State != spot.StateRunning:
		return c.ignored("the instance does not run any more"), nil
	}
	err := backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		_, err := c.Cluster.ChangeNode(ctx, *t.Node, spot.Restore)
		return err
	})
	if err != nil {
		return spot.Outcome{}, fmt.Errorf("taking our marks off node %s, whose instance is back: %w", t.Node.Name, err)
	}
	c.log("uncordon", "uncordoned node", "node", t.Node.Name)
	out := c.newOutcome(spot.Plan{})
	out.Result = spot.Recovered
	return out, nil
}

// cleanUpNode has Kubernetes start what ran on the machine elsewhere. The order matters: the taint first, so that volumes
// need not wait for a kubelet; then the pods' deletion timestamps, which come from that; only then their objects; and the
// node last, since volumes of a node that is gone wait for minutes.
func (c *invocation) cleanUpNode(ctx context.Context, n spot.Node, r spot.CleanupPlan) (spot.Outcome, error) {
	var told spot.CleanupResult
	err := backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, spot.OutOfService)
		if err == nil {
			n = after
		}
		return err
	})
	switch {
	case errors.Is(err, spot.ErrNotFound):
		return c.ignored("its node has gone already"), nil
	case err != nil:
		return spot.Outcome{}, fmt.Errorf("marking node %s as out of service: %w", n.Name, err)
	}
	told.Tainted = spot.SecondsSince(c.in.Time, time.Now())
	c.log("out-of-service", "applied out-of-service taint", "node", n.Name)

	out := c.newOutcome(spot.Plan{})
	out.Result, out.Cleanup = spot.CleanedUp, &told
	problem := func(format string, args ...any) { out.Problems = append(out.Problems, fmt.Sprintf(format, args...)) }
	pods, err := c.remainingPods(ctx, n.Name)
	out.Pods = c.deletePods(ctx, pods)
	switch {
	case err != nil:
		problem("listing the pods that are left: %v", err)
	case slices.ContainsFunc(out.Pods, func(p spot.PodResult) bool { return p.Status == spot.PodStillRunning }):
		problem("not every pod's object could be deleted")
	default:
		told.PodsDeleted = spot.SecondsSince(c.in.Time, time.Now())
	}
	attached, err := c.waitForVolumes(ctx, n.Name)
	switch {
	case err != nil:
		problem("asking for the volumes of the node: %v", err)
	case len(attached) > 0:
		out.AttachedVolumes = attached
		problem("still attached after %s: %s", detachLimit, strings.Join(attached, ", "))
	default:
		told.VolumesDetached = spot.SecondsSince(c.in.Time, time.Now())
	}
	if r.DeleteNode && told.VolumesDetached != nil && told.PodsDeleted != nil {
		if err := c.deleteNode(ctx, n); err != nil {
			problem("deleting the node: %v", err)
		} else {
			told.NodeDeleted = spot.SecondsSince(c.in.Time, time.Now())
		}
	}
	out.Timings.Finished = spot.SecondsSince(c.in.Time, time.Now())
	return out, nil
}

// remainingPods are the pods that the machine held, once the taint-eviction controller has deleted each of them, or after
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
		if err != nil && errors.Is(err, spot.ErrPermanent) {
			break
		}
		sleep(waiting, relistFirst)
	}
	if !listed {
		return nil, errors.Join(err, ctx.Err(), errUnlisted)
	}
	var left []spot.Pod
	for _, p := range pods {
		if mustBeDeleted(p) {
			left = append(left, p)
		}
	}
	if len(left) > 0 {
		sleep(ctx, timestampPause)
	}
	slices.SortFunc(left, spot.EvictionOrder)
	return left, nil
}

var errUnlisted = errors.New("there was no list in time")

// freed reports whether a pod's object is deleted after its machine's end. A static pod's is its kubelet's, and a
// DaemonSet's has nowhere else to go: Kubernetes deletes both with the node.
func mustBeDeleted(p spot.Pod) bool { return !p.Mirror && p.Owner.Kind != "DaemonSet" }

// deletePods deletes the objects of pods whose machine has stopped: no kubelet will.
func (c *invocation) deletePods(ctx context.Context, pods []spot.Pod) []spot.PodResult {
	if len(pods) == 0 {
		return nil
	}
	told := make([]spot.PodResult, len(pods))
	slots := make(chan struct{}, max(c.Policy.Parallel, 1))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s := podState{pod: p, requestedAt: time.Now()}
			err := backoff{200 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
				err := c.Cluster.Delete(ctx, p, 0, false)
				if errors.Is(err, spot.ErrChanged) {
					return spot.ErrNotFound // another has its name: this one has gone
				}
				return err
			})
			told[i] = s.outcome(c.in.Time)
			switch {
			case err == nil || errors.Is(err, spot.ErrNotFound):
				told[i].Status, told[i].Reason = spot.PodDeleted, "its machine has stopped: it can be started elsewhere"
				told[i].TerminatedAt = spot.SecondsSince(c.in.Time, time.Now())
			default:
				told[i].Status, told[i].Reason, told[i].LastRefusal = spot.PodStillRunning, "its object could not be deleted", err.Error()
			}
		})
	}
	wg.Wait()
	return told
}

// waitForVolumes waits until no volume is attached to the node, and returns those that are.
func (c *invocation) waitForVolumes(ctx context.Context, node string) (attached []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, detachLimit)
	defer cancel()
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		now, nowErr := c.Cluster.VolumeAttachments(ctx, node)
		if nowErr == nil || ctx.Err() == nil {
			attached, err = now, nowErr
		}
		if err == nil && len(attached) == 0 || err != nil && errors.Is(err, spot.ErrPermanent) || !sleep(ctx, pause) {
			return attached, err
		}
	}
}

// deleteNode deletes the node of a machine that never comes back, if it is still that machine's.
func (c *invocation) deleteNode(ctx context.Context, n spot.Node) error {
	return backoff{200 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		switch {
		case errors.Is(err, spot.ErrNotFound), err == nil && !now.IsInstance(c.in.Instance):
			return nil // its machine's node has gone; what has its name is another's
		case err != nil:
			return err
		}
		if err = c.Cluster.DeleteNode(ctx, n); errors.Is(err, spot.ErrNotFound) || errors.Is(err, spot.ErrChanged) {
			return nil
		}
		return err
	})
}
