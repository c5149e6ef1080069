package handler

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// relistFirst and relistMost bound the pause before the pods are listed again after a broken watch.
	relistFirst = 200 * time.Millisecond
	relistMost  = 3 * time.Second
)

// follow hands on what the watch shows, and begins again with a list when it breaks. Only pods that have never been listed
// can be given up: of those that were, each still has to be asked, with or without a watch.
func (c *invocation) follow(ctx context.Context, node string, changes chan<- podUpdate) {
	hand := func(news podUpdate) {
		select {
		case changes <- news:
		case <-ctx.Done():
		}
	}
	listed := false
	pause := relistFirst
	var d transientErrors
	for {
		began := time.Now()
		err := c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
			listed = listed || ch.All
			hand(podUpdate{PodChange: ch})
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > relistMost {
			pause = relistFirst // it held for a while: this is a new trouble
		}
		givenUp := err != nil && d.final(err) && !listed
		if err != nil {
			hand(podUpdate{err: err, givenUp: givenUp})
		}
		if givenUp || !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, relistMost)
	}
}

// podUpdate is a look at the pods, or why there is none just now.
type podUpdate struct {
	spot.PodChange
	err     error
	givenUp bool // there never will be one
}

// podState is one pod's way off the node.
type podState struct {
	pod          spot.Pod
	plan         spot.PodPlan
	due          time.Time // when to ask; zero for not (any more)
	inFlight     bool
	evicted      bool // an eviction or delete of ours was accepted
	forced       bool
	gone         bool
	gracePeriod  time.Duration
	requestedAt  time.Time
	terminatedAt time.Time
	refusals     int
	refusal      string
	held         string // the version that was refused as outdated: wait for another
}

// leaves reports whether the drain is not over while this pod is as it is. One whose containers have ended is nothing to
// wait for, even if a finalizer keeps its object: the end of the machine cannot harm it.
func (s *podState) mustLeave() bool {
	return s.plan.Action != spot.PodSkip && !s.gone && !s.pod.Finished
}

// tell writes down what became of the pods.
func (d *podDrain) report(told *drainResult) {
	event := d.in.Time
	told.Plan, told.Listed = d.planned, d.listed
	told.Timings.Cordoned = spot.SecondsSince(event, d.cordon.at)
	told.Timings.LastEviction = spot.SecondsSince(event, d.lastEviction)
	told.Timings.Empty = spot.SecondsSince(event, d.empty)
	told.Cordon.At = told.Timings.Cordoned
	if d.cordon.err != nil {
		told.Cordon.Error = d.cordon.err.Error()
		told.problem("cordoning the node: %s", told.Cordon.Error)
	}
	told.Changed = d.cordon.changed || !d.lastEviction.IsZero()
	if d.listErr != nil {
		told.problem("watching the pods of the node: %v", d.listErr)
	}
	states := make([]*podState, 0, len(d.pods))
	for _, s := range d.pods {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b *podState) int { return strings.Compare(a.pod.ID(), b.pod.ID()) })
	for _, s := range states {
		told.Pods = append(told.Pods, s.outcome(event))
		if wrong := invalidAnnotations(s.pod); wrong != "" {
			told.problem("the pod %s: %s: it does not count", s.pod.ID(), wrong)
		}
	}
}

func (s *podState) outcome(event time.Time) spot.PodResult {
	t := spot.PodResult{Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.pod.UID, Reason: s.plan.Reason,
		GracePeriod: spot.ToSeconds(s.gracePeriod), RequestedAt: spot.SecondsSince(event, s.requestedAt), TerminatedAt: spot.SecondsSince(event, s.terminatedAt),
		Refusals: s.refusals, LastRefusal: s.refusal}
	if s.pod.Owner.Kind != "" {
		t.Owner = s.pod.Owner.Kind + "/" + s.pod.Owner.Name
	}
	t.DisruptedBy, t.LocalData = s.pod.DisruptedBy, s.pod.EmptyDir && s.plan.Action != spot.PodSkip
	switch {
	case s.gone && s.forced:
		t.Status, t.Reason = spot.PodForceDeleted, "it was deleted past what refused its eviction: the machine ends anyway"
	case s.gone && s.evicted:
		t.Status = spot.PodEvicted
	case s.gone:
		t.Status, t.Reason = spot.PodTerminated, "it went without our asking"
		if s.pod.DisruptedBy != "" {
			t.Reason += ": " + s.pod.DisruptedBy
		}
	case s.plan.Action == spot.PodSkip:
		t.Status = spot.PodSkipped
	case s.pod.Finished:
		t.Status, t.Reason = spot.PodStuck, "its containers have ended, but its object is still there: "+s.keptBy()
		t.Finalizers = s.pod.Finalizers
	case s.evicted:
		t.Status, t.Reason = spot.PodStillRunning, "it had been told to end and was still ending"
	case s.plan.Action == spot.PodWait:
		t.Status, t.Reason = spot.PodStillRunning, "it was ending before we came and was still ending"
	case s.refusals == 0:
		t.Status, t.Reason = spot.PodStillRunning, "there was no time left to ask it to end"
	default:
		t.Status, t.Reason = spot.PodStillRunning, "every request to evict it was refused"
		if s.plan.ForceAt.IsZero() {
			t.Reason += ", and it was not to be deleted past that"
		}
	}
	if t.Status == spot.PodStillRunning {
		t.Finalizers = s.pod.Finalizers
	}
	return t
}

// keeper is what keeps the object of a pod whose containers have ended.
func (s *podState) keptBy() string {
	if len(s.pod.Finalizers) == 0 {
		return "its kubelet has not let it go, as while a volume is unmounted"
	}
	return "kept by " + strings.Join(s.pod.Finalizers, ", ")
}

// invalidAnnotations says which annotations of ours on a pod have values that mean nothing; empty if all do.
func invalidAnnotations(p spot.Pod) string {
	var wrong []string
	if v := p.Annotations[spot.AnnotationForce]; v != "" && !slices.Contains(spot.Forces(), spot.Force(v)) {
		wrong = append(wrong, fmt.Sprintf("%s=%q is neither allow nor never", spot.AnnotationForce, v))
	}
	if v := p.Annotations[spot.AnnotationDrain]; v != "" && !slices.Contains(spot.DrainOrders(), spot.DrainOrder(v)) {
		wrong = append(wrong, fmt.Sprintf("%s=%q is not first, last or never", spot.AnnotationDrain, v))
	}
	return strings.Join(wrong, "; ")
}
