package handler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// followPods sends what the watch shows to changes, and lists the pods again when it breaks, until ctx ends.
func (c *invocation) followPods(ctx context.Context, node string, changes chan<- podUpdate) {
	send := func(u podUpdate) {
		select {
		case changes <- u:
		case <-ctx.Done():
		}
	}
	for {
		_ = toCluster.persist(ctx, func(ctx context.Context) error {
			began := time.Now()
			err := c.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) { send(podUpdate{PodChange: ch}) })
			if err != nil {
				send(podUpdate{err: err})
			}
			if time.Since(began) > relistAfter {
				return nil
			}
			return cmp.Or(err, errNotYet)
		})
		if !sleep(ctx, toCluster.first/2) { // the API server closed a watch that worked
			return
		}
	}
}

// relistAfter is how long a watch must have lasted for the next list to follow at once.
const relistAfter = 3 * time.Second

// podUpdate is a change of the pods, or an error.
type podUpdate struct {
	spot.PodChange
	err error
}

// podState is the state of one pod during the drain.
type podState struct {
	pod          spot.Pod
	plan         spot.PodPlan
	due          time.Time // when to send the next request; zero for none
	inFlight     bool      // a request is in flight
	evicted      bool      // an eviction or deletion was accepted
	forced       bool      // it was a deletion
	gone         bool
	gracePeriod  time.Duration
	requestedAt  time.Time
	terminatedAt time.Time
	refusals     int
	failures     int    // requests without a response
	refusal      string // the last of both
	held         bool   // the last response was the refusal of a budget, or an acceptance that has yet to show
	returned     bool   // its owner recreated it here
	changed      string // the version that the API server refused as outdated
}

// mustLeave reports whether the drain waits for the pod. It does not wait for a pod whose containers have stopped, even
// if a finalizer keeps it.
func (s *podState) mustLeave() bool {
	return s.plan.Action != spot.PodSkip && !s.gone && !s.pod.Finished
}

// report adds the state of the drain to the result.
func (d *podDrain) report(result *drainResult) {
	event := d.inv.in.Time
	result.Plan, result.Listed, result.Dead = d.planned, d.listed, d.dead
	result.Timings.Cordoned = spot.SecondsSince(event, d.cordon.at)
	result.Timings.LastEviction = spot.SecondsSince(event, d.lastEviction)
	result.Timings.Empty = spot.SecondsSince(event, d.empty)
	result.Cordon.At = result.Timings.Cordoned
	if d.cordon.err != nil {
		result.Cordon.Error = d.cordon.err.Error()
		result.problem("cordoning the node: %s", result.Cordon.Error)
	}
	result.Changed = d.cordon.changed || !d.lastEviction.IsZero()
	if d.recordons > 0 {
		result.problem("somebody uncordoned the node during the drain: it was cordoned again, %d times", d.recordons)
	}
	if d.listErr != nil {
		result.problem("watching the pods of the node: %v", d.listErr)
	}
	states := make([]*podState, 0, len(d.pods))
	for _, s := range d.pods {
		states = append(states, s)
	}
	slices.SortFunc(states, func(a, b *podState) int { return strings.Compare(a.pod.ID(), b.pod.ID()) })
	for _, s := range states {
		result.Pods = append(result.Pods, s.result(event, d.plan))
		if invalid := invalidAnnotations(s.pod); invalid != "" {
			result.problem("pod %s: ignored %s", s.pod.ID(), invalid)
		}
	}
}

func (s *podState) result(event time.Time, plan spot.Plan) spot.PodResult {
	r := spot.PodResult{Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.pod.UID, Reason: s.plan.Reason,
		GracePeriod: spot.ToSeconds(s.gracePeriod), RequestedAt: spot.SecondsSince(event, s.requestedAt),
		TerminatedAt: spot.SecondsSince(event, s.terminatedAt), Refusals: s.refusals + s.failures, LastRefusal: s.refusal,
		DisruptedBy: s.pod.DisruptedBy, LocalData: s.pod.EmptyDir && s.plan.Action != spot.PodSkip}
	if s.pod.Owner.Kind != "" {
		r.Owner = s.pod.Owner.Kind + "/" + s.pod.Owner.Name
	}
	switch {
	case s.gone && s.forced:
		r.Status, r.Reason = spot.PodForceDeleted, "its eviction was refused until there was just time for its grace period"
	case s.gone && s.evicted:
		r.Status = spot.PodEvicted
	case s.gone:
		r.Status, r.Reason = spot.PodTerminated, "not evicted by kops-spot"
		if s.pod.DisruptedBy != "" {
			r.Reason += ": " + s.pod.DisruptedBy
		}
	case s.plan.Action == spot.PodSkip:
		r.Status = spot.PodSkipped
	case s.pod.Finished:
		r.Status, r.Reason = spot.PodStuck, "its containers have stopped, but "+s.keptBy()
		r.Finalizers = s.pod.Finalizers
	case plan.LeftToKubelet(s.pod) && (s.pod.Terminating || s.held): // any other failure shows, though the kubelet helps
		r.Status, r.Reason = spot.PodLeftToKubelet, s.whyRunning()+"; its kubelet ends it in the shutdown window"
		r.Finalizers = s.pod.Finalizers
	default:
		r.Status, r.Reason = spot.PodStillRunning, s.whyRunning()
		r.Finalizers = s.pod.Finalizers
	}
	return r
}

func (s *podState) whyRunning() string {
	switch {
	case s.evicted && !s.pod.Terminating:
		return "its eviction was accepted, but not carried out"
	case s.evicted:
		return "evicted, and still terminating"
	case s.plan.Action == spot.PodWait:
		return "already terminating before the drain, and still terminating"
	case s.refusals == 0 && s.failures > 0:
		return "every request to evict it failed"
	case s.refusals == 0:
		return "no time left to evict it"
	case s.plan.ForceAt.IsZero() && s.plan.KubeletAt.IsZero():
		return "every eviction was refused, and it may not be force-deleted"
	}
	return "every eviction was refused"
}

// keptBy returns what keeps a pod whose containers have stopped.
func (s *podState) keptBy() string {
	if len(s.pod.Finalizers) == 0 {
		return "its kubelet has not removed it yet: it may be unmounting a volume"
	}
	return "its finalizers keep it: " + strings.Join(s.pod.Finalizers, ", ")
}

// invalidAnnotations lists kops-spot's annotations with invalid values; empty if there are none.
func invalidAnnotations(p spot.Pod) string {
	var invalid []string
	if v := p.Annotations[spot.AnnotationForce]; v != "" && !slices.Contains(spot.Forces(), spot.Force(v)) {
		invalid = append(invalid, fmt.Sprintf("%s=%q: set it to allow or never", spot.AnnotationForce, v))
	}
	if v := p.Annotations[spot.AnnotationDrain]; v != "" && !slices.Contains(spot.DrainOrders(), spot.DrainOrder(v)) {
		invalid = append(invalid, fmt.Sprintf("%s=%q: set it to first, last or never", spot.AnnotationDrain, v))
	}
	return strings.Join(invalid, "; ")
}
