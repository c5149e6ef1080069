package spot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// cleanUpLimit bounds all of an aftermath.
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

// CleanupResult is when the parts of an aftermath were done, in seconds after the event.
type CleanupResult struct {
	Tainted         *Seconds `json:"tainted,omitempty"`          // Kubernetes was told that the machine has stopped
	PodsDeleted     *Seconds `json:"pods_deleted,omitempty"`     // the last pod's object was gone
	VolumesDetached *Seconds `json:"volumes_detached,omitempty"` // the last volume could be attached elsewhere
	NodeDeleted     *Seconds `json:"node_deleted,omitempty"`
}

// aftermath sees to what an instance leaves behind, or to a node that is back.
func (c *call) cleanUp(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanUpLimit)
	defer cancel()
	if !c.limit.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, c.limit)
		defer cancel()
	}
	switch c.in.State {
	case stateRunning:
		return c.uncordonReturned(ctx)
	case stateStopped, stateTerminated:
		return c.release(ctx)
	}
	return c.nothing("the instance is only " + c.in.State + ": nothing is given free before its end is certain"), nil
}

// previewCleanUp says what an aftermath would do now. What EC2 says is taken as it is: nothing is waited for.
func (c *call) previewCleanUp(ctx context.Context) (Outcome, error) {
	c.ask(ctx, always)
	for _, done := range []<-chan struct{}{c.instance.done, c.node.done} {
		wait(ctx, done, previewLimit)
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	t := c.target()
	switch {
	case t.Node == nil && !errors.Is(t.NodeErr, ErrNotFound), t.Instance == nil && !errors.Is(t.InstanceErr, ErrNotFound):
		return Outcome{}, c.failure()
	case c.in.State == stateRunning && t.Node != nil && t.Node.hasReturned(c.in):
		return c.planned("our marks would be taken off the node, whose instance is back"), nil
	case c.in.State != stateStopped && c.in.State != stateTerminated:
		return c.nothing("the instance is only " + c.in.State + ": nothing would be given free"), nil
	}
	switch r := c.Policy.Cleanup(t); {
	case !r.CleanUp:
		return c.nothing(r.Reason), nil
	case r.DeleteNode:
		return c.planned("its pods and volumes would be given free, and its node deleted"), nil
	}
	return c.planned("its pods and volumes would be given free"), nil
}

func (c *call) planned(what string) Outcome {
	out := c.end(Plan{Reason: what})
	out.Result = Planned
	return out
}

// nothing is the outcome of an event that there is nothing to do about.
func (c *call) nothing(why string) Outcome {
	out := c.end(Plan{Reason: why})
	out.Result = Ignored
	return out
}

func (c *call) release(ctx context.Context) (Outcome, error) {
	if err := c.waitForInstance(ctx, func(i Instance) bool {
		return i.State == stateStopped || i.State == stateTerminated || i.State == stateRunning
	}); err != nil {
		return Outcome{}, err
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	if err := c.findNode(ctx, true); err != nil {
		return Outcome{}, err
	}
	t := c.target()
	r := c.Policy.Cleanup(t)
	if !r.CleanUp {
		return c.nothing(r.Reason), nil
	}
	return c.cleanUpNode(ctx, *t.Node, r)
}

// uncordonReturned takes our marks off a node that has come back with its instance.
func (c *call) uncordonReturned(ctx context.Context) (Outcome, error) {
	if err := c.waitForInstance(ctx, func(Instance) bool { return true }); err != nil {
		return Outcome{}, err
	}
	if out, done := c.otherCluster(); done {
		return out, nil
	}
	if err := c.findNode(ctx, false); err != nil {
		return Outcome{}, err
	}
	t := c.target()
	switch {
	case t.Node == nil || !t.Node.hasReturned(c.in):
		return c.nothing("there are no marks to take off a node"), nil
	case t.Instance == nil || t.Instance.State != stateRunning:
		return c.nothing("the instance does not run any more"), nil
	}
	err := backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		_, err := c.Cluster.ChangeNode(ctx, *t.Node, Restore)
		return err
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("taking our marks off node %s, whose instance is back: %w", t.Node.Name, err)
	}
	c.log("uncordon", "uncordoned node", "node", t.Node.Name)
	out := c.end(Plan{})
	out.Result = Recovered
	return out, nil
}

// waitForInstance asks EC2 until it says something certain of the instance, for as long as it may go on to describe it as it
// was: that there is none, that it is not ours, or what is certain.
func (c *call) waitForInstance(ctx context.Context, certain func(Instance) bool) error {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	c.instance.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (Instance, error) {
		i, err := c.Cloud.Instance(ctx, c.in.Instance)
		if err == nil && !certain(i) && c.Policy.otherClusterReason(i) == "" {
			c.instance.note(i)
			return i, errUncertain
		}
		return i, err
	}, always)
	t := c.target()
	if t.Instance == nil && !errors.Is(t.InstanceErr, ErrNotFound) {
		return c.failure()
	}
	return nil
}

// errUncertain is an answer that may still change.
var errUncertain = errors.New("on its way to another state")

// findNode looks for the node; listing says whether all nodes may be listed for it.
func (c *call) findNode(ctx context.Context, listing bool) error {
	c.unlisted = !listing
	c.node.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, c.nodeFinder(), always)
	if _, err := c.node.known(); err != nil && !errors.Is(err, ErrNotFound) {
		return c.failure()
	}
	return nil
}

// foreign is the outcome where the instance is not ours, as far as EC2 knows it.
func (c *call) otherCluster() (Outcome, bool) {
	i, _ := c.instance.known()
	if i == nil {
		return Outcome{}, false
	}
	why := c.Policy.otherClusterReason(*i)
	if why == "" {
		return Outcome{}, false
	}
	return c.end(Plan{Verdict: Foreign, Reason: why}), true
}

// cleanUpNode has Kubernetes start what ran on the machine elsewhere. The order matters: the taint first, so that volumes
// need not wait for a kubelet; then the pods' deletion timestamps, which come from that; only then their objects; and the
// node last, since volumes of a node that is gone wait for minutes.
func (c *call) cleanUpNode(ctx context.Context, n Node, r CleanupPlan) (Outcome, error) {
	var told CleanupResult
	err := backoff{100 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		after, err := c.Cluster.ChangeNode(ctx, n, OutOfService)
		if err == nil {
			n = after
		}
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return c.nothing("its node has gone already"), nil
	case err != nil:
		return Outcome{}, fmt.Errorf("marking node %s as out of service: %w", n.Name, err)
	}
	told.Tainted = since(c.in.Time, time.Now())
	c.log("out-of-service", "applied out-of-service taint", "node", n.Name)

	out := c.end(Plan{})
	out.Result, out.Cleanup = CleanedUp, &told
	problem := func(format string, args ...any) { out.Problems = append(out.Problems, fmt.Sprintf(format, args...)) }
	pods, err := c.remainingPods(ctx, n.Name)
	out.Pods = c.deletePods(ctx, pods)
	switch {
	case err != nil:
		problem("listing the pods that are left: %v", err)
	case slices.ContainsFunc(out.Pods, func(p PodResult) bool { return p.Status == PodStillRunning }):
		problem("not every pod's object could be deleted")
	default:
		told.PodsDeleted = since(c.in.Time, time.Now())
	}
	attached, err := c.waitForVolumes(ctx, n.Name)
	switch {
	case err != nil:
		problem("asking for the volumes of the node: %v", err)
	case len(attached) > 0:
		out.AttachedVolumes = attached
		problem("still attached after %s: %s", detachLimit, strings.Join(attached, ", "))
	default:
		told.VolumesDetached = since(c.in.Time, time.Now())
	}
	if r.DeleteNode && told.VolumesDetached != nil && told.PodsDeleted != nil {
		if err := c.deleteNode(ctx, n); err != nil {
			problem("deleting the node: %v", err)
		} else {
			told.NodeDeleted = since(c.in.Time, time.Now())
		}
	}
	out.Timings.Finished = since(c.in.Time, time.Now())
	return out, nil
}

// remainingPods are the pods that the machine held, once the taint-eviction controller has deleted each of them, or after
// timestampLimit.
func (c *call) remainingPods(ctx context.Context, node string) ([]Pod, error) {
	waiting, cancel := context.WithTimeout(ctx, timestampLimit)
	defer cancel()
	pods := map[string]Pod{}
	listed := false
	var err error
	for waiting.Err() == nil {
		err = c.Cluster.FollowPods(waiting, node, func(ch PodChange) {
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
		if err != nil && errors.Is(err, ErrPermanent) {
			break
		}
		sleep(waiting, relistFirst)
	}
	if !listed {
		return nil, errors.Join(err, ctx.Err(), errUnlisted)
	}
	var left []Pod
	for _, p := range pods {
		if mustBeDeleted(p) {
			left = append(left, p)
		}
	}
	if len(left) > 0 {
		sleep(ctx, timestampPause)
	}
	slices.SortFunc(left, submissionOrder)
	return left, nil
}

var errUnlisted = errors.New("there was no list in time")

// freed reports whether a pod's object is deleted after its machine's end. A static pod's is its kubelet's, and a
// DaemonSet's has nowhere else to go: Kubernetes deletes both with the node.
func mustBeDeleted(p Pod) bool { return !p.Mirror && p.Owner.Kind != "DaemonSet" }

// deletePods deletes the objects of pods whose machine has stopped: no kubelet will.
func (c *call) deletePods(ctx context.Context, pods []Pod) []PodResult {
	if len(pods) == 0 {
		return nil
	}
	told := make([]PodResult, len(pods))
	slots := make(chan struct{}, max(c.Policy.Parallel, 1))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s := podState{pod: p, askedAt: time.Now()}
			err := backoff{200 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
				err := c.Cluster.Delete(ctx, p, 0, false)
				if errors.Is(err, ErrChanged) {
					return ErrNotFound // another has its name: this one has gone
				}
				return err
			})
			told[i] = s.outcome(c.in.Time)
			switch {
			case err == nil || errors.Is(err, ErrNotFound):
				told[i].Status, told[i].Reason = PodDeleted, "its machine has stopped: it can be started elsewhere"
				told[i].TerminatedAt = since(c.in.Time, time.Now())
			default:
				told[i].Status, told[i].Reason, told[i].LastRefusal = PodStillRunning, "its object could not be deleted", err.Error()
			}
		})
	}
	wg.Wait()
	return told
}

// waitForVolumes waits until no volume is attached to the node, and returns those that are.
func (c *call) waitForVolumes(ctx context.Context, node string) (attached []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, detachLimit)
	defer cancel()
	for pause := 250 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		now, nowErr := c.Cluster.VolumeAttachments(ctx, node)
		if nowErr == nil || ctx.Err() == nil {
			attached, err = now, nowErr
		}
		if err == nil && len(attached) == 0 || err != nil && errors.Is(err, ErrPermanent) || !sleep(ctx, pause) {
			return attached, err
		}
	}
}

// deleteNode deletes the node of a machine that never comes back, if it is still that machine's.
func (c *call) deleteNode(ctx context.Context, n Node) error {
	return backoff{200 * time.Millisecond, 2 * time.Second}.persist(ctx, func(ctx context.Context) error {
		now, err := c.Cluster.NodeNamed(ctx, n.Name)
		switch {
		case errors.Is(err, ErrNotFound), err == nil && !now.IsInstance(c.in.Instance):
			return nil // its machine's node has gone; what has its name is another's
		case err != nil:
			return err
		}
		if err = c.Cluster.DeleteNode(ctx, n); errors.Is(err, ErrNotFound) || errors.Is(err, ErrChanged) {
			return nil
		}
		return err
	})
}
