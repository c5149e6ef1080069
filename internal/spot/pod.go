package spot

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// PodAction is what to do about a pod.
type PodAction string

const (
	PodSkip  PodAction = "skip"  // leave it on the node
	PodWait  PodAction = "wait"  // it is already terminating: only watch it
	PodEvict PodAction = "evict" // evict it
)

// PodPlan is what to do about a pod, and why.
type PodPlan struct {
	Action       PodAction
	Reason       string
	GracePeriod  time.Duration // PodEvict: the grace period of the eviction
	ForceAt      time.Time     // PodEvict: when it is deleted if evictions are refused; zero for never
	LatestAt     time.Time     // PodEvict: it is evicted after the other pods, but not later than this; zero for at once
	NotBefore    time.Time     // PodEvict: it is not evicted earlier; zero for at once
	KubeletAt    time.Time     // PodEvict: when its kubelet terminates it if evictions are refused; zero if uncovered
	KubeletGrace time.Duration // the grace period that the kubelet then gives
}

// DisruptionReason is the reason of the condition DisruptionTarget that Cluster.Disrupt sets.
const DisruptionReason = "SpotInterruption"

// EvictionRequest is an eviction or deletion of a pod.
type EvictionRequest struct {
	Delete      bool // delete the pod regardless of its PodDisruptionBudget
	GracePeriod time.Duration
	// Exact makes the request fail if the pod has changed. It is set for a grace period shorter than the pod's own: if
	// the pod is already terminating, a shorter grace period counts from the first request and kills the pod early.
	// Other requests are harmless, and the API server uses up the budget before it checks the version.
	Exact bool
}

const (
	// minGrace is the shortest grace period. With 0, the API server deletes the pod before its kubelet has stopped it,
	// and a StatefulSet would start the same pod twice.
	minGrace = time.Second

	retryFirst = 500 * time.Millisecond
	retryMost  = 2 * time.Second
)

// returnDelays are the delays before evicting a pod that was recreated here, by how many such pods of its owner have
// been evicted. Without them, an owner that does not heed the cordon would lose pod after pod.
var returnDelays = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}

// ForReturned decides what to do about a pod that appeared after the cordon and whose owner has lost a pod on this
// node. evicted is how many such pods of the owner have been evicted. After some, the pod stays until lastAt; where
// nothing stops the instance, it stays.
func (p Plan) ForReturned(pod Pod, now time.Time, evicted int) PodPlan {
	f := p.ForPod(pod, now)
	if f.Action != PodEvict {
		return f
	}
	owner := pod.Owner.Kind + " " + pod.Owner.Name
	again, last := now, p.lastAt(pod)
	if evicted < len(returnDelays) {
		again = now.Add(returnDelays[evicted])
	}
	switch {
	case p.NoDeadline || p.EvictOnce:
		f.NotBefore = again
	case again.Equal(now):
		f.NotBefore = last
	default:
		f.NotBefore = Earlier(again, last)
	}
	if !f.NotBefore.After(now) {
		return skipPod("%s keeps recreating it here", owner)
	}
	f.Reason = owner + " recreated it here: evicted again after a delay"
	return f
}

func skipPod(format string, args ...any) PodPlan {
	return PodPlan{Action: PodSkip, Reason: fmt.Sprintf(format, args...)}
}

// ForPod decides what to do about a pod.
func (p Plan) ForPod(pod Pod, now time.Time) PodPlan {
	order, annotated := p.policy.drainOrder(pod)
	switch {
	case pod.Finished:
		return skipPod("already finished")
	case pod.Mirror:
		return skipPod("static pod: only its kubelet can stop it")
	case order == DrainNever && annotated:
		return skipPod("annotation %s=%s", AnnotationDrain, DrainNever)
	case pod.Owner.Kind == "DaemonSet" && pod.ToleratesCordon:
		return skipPod("DaemonSet pod that tolerates the cordon: it would be recreated here")
	case order == DrainNever:
		return skipPod("DaemonSet pod: the policy is not to evict it")
	case pod.Terminating:
		return PodPlan{Action: PodWait,
			Reason: "already terminating: another request could only shorten its grace period"}
	}
	f := PodPlan{Action: PodEvict, GracePeriod: p.grace(pod, now)}
	if p.mayForce(pod) {
		f.ForceAt = p.lastAt(pod)
	}
	if p.isCovered(pod) {
		f.KubeletAt, f.KubeletGrace = p.graces, max(min(pod.GracePeriod, p.windowFor(pod)), minGrace)
	}
	if order == DrainLast && !p.EvictOnce {
		f.LatestAt = p.lastAt(pod)
	}
	switch {
	case f.GracePeriod < pod.GracePeriod:
		f.Reason = fmt.Sprintf("grace period of %s cut to the time before the deadline", pod.GracePeriod)
	case pod.Owner.Kind == "":
		f.Reason = "no controller recreates it"
	case pod.Owner.Kind == "DaemonSet":
		f.Reason = "the cordon keeps its DaemonSet from recreating it here"
	default:
		f.Reason = fmt.Sprintf("%s %s recreates it on another node", pod.Owner.Kind, pod.Owner.Name)
	}
	if !f.LatestAt.IsZero() {
		f.Reason += "; evicted after the other pods"
	}
	if p.force && f.ForceAt.IsZero() && f.KubeletAt.IsZero() {
		f.Reason += "; never force-deleted"
	}
	return f
}

// drainOrder returns when the pod is evicted, and whether its annotation says so.
func (p Policy) drainOrder(pod Pod) (order DrainOrder, annotated bool) {
	switch o := DrainOrder(pod.Annotations[AnnotationDrain]); o {
	case DrainFirst, DrainLast, DrainNever:
		return o, true
	}
	if pod.Owner.Kind == "DaemonSet" {
		return p.DaemonSets, false
	}
	return DrainFirst, false
}

// mayForce reports whether the event, and the pod's annotation or else the policy, allow force deletion, and the
// shutdown window does not make it unnecessary. An invalid annotation is reported and does not count.
func (p Plan) mayForce(pod Pod) bool {
	force := Force(pod.Annotations[AnnotationForce])
	if !slices.Contains(Forces(), force) {
		force = p.policy.Force
	}
	return p.force && force != ForceNever && !p.isCovered(pod)
}

// Request returns the next request for a pod. refusals is how many requests were refused before.
func (p Plan) Request(pod Pod, now time.Time, refusals int) EvictionRequest {
	r := EvictionRequest{GracePeriod: p.grace(pod, now)}
	if p.mayForce(pod) && refusals > 0 && !now.Before(p.lastAt(pod)) {
		r.Delete = true
		// A request may be slightly late: the reserve still leaves the pod its full time.
		if whole := p.forceGrace(pod); !now.Add(whole).After(p.graces.Add(p.windowFor(pod))) {
			r.GracePeriod = whole
		}
	}
	r.Exact = r.GracePeriod < pod.GracePeriod
	return r
}

// NextAttempt returns when to retry a refused request. retryAfter is the server's Retry-After; 0 for none. It is
// honored up to retryMost: the server sends 10 s even where milliseconds would do. NextAttempt returns false for never.
func (p Plan) NextAttempt(pod Pod, refused EvictionRequest, now time.Time, refusals int, retryAfter time.Duration) (
	time.Time, bool) {
	if p.EvictOnce {
		return time.Time{}, false
	}
	if retryAfter <= 0 {
		retryAfter = min(retryFirst<<min(refusals-1, 10), retryMost)
	}
	next := now.Add(min(retryAfter, retryMost))
	// Do not wait past the time for force deletion, whatever the Retry-After. Only a refused deletion is worth a pause.
	force := Later(p.lastAt(pod), now)
	if p.mayForce(pod) && (!refused.Delete || now.Before(force)) && next.After(force) {
		next = force
	}
	return next, next.Before(p.Until)
}

// grace returns the pod's grace period, cut to the time before the reserve. The shutdown window adds to that time, and
// the pod gets no less than its kubelet would give it at the deadline. Under a lifecycle hook, grace counts on
// heartbeats: a grace period cannot be extended after the eviction.
func (p Plan) grace(pod Pod, now time.Time) time.Duration {
	grace := pod.GracePeriod
	if !p.EvictOnce && !p.NoDeadline {
		window := p.windowFor(pod)
		left := (p.graces.Sub(now) + window - p.policy.Reserve).Truncate(time.Second)
		grace = min(grace, max(left, window))
	}
	return max(grace, minGrace)
}

func (p Plan) forceGrace(pod Pod) time.Duration {
	return max(min(pod.GracePeriod, p.policy.ForceGrace), minGrace)
}

// windowFor returns for how long the kubelet delays the shutdown for the pod. Critical pods wait for the ordinary ones
// and have a shorter window of their own, which is never relied on.
func (p Plan) windowFor(pod Pod) time.Duration {
	if pod.Critical {
		return 0
	}
	return p.window
}

// isCovered reports whether the kubelet gives the pod at least the grace period of a force deletion.
func (p Plan) isCovered(pod Pod) bool { return p.forceGrace(pod) <= p.windowFor(pod) }

// LeftToKubelet reports whether a pod that remains at the end of work can be left to its kubelet: the kubelet is yet to
// terminate it with the grace period of a force deletion, or its grace period ends in the shutdown window. A grace
// period that had to end before the reserve is over, and its kubelet is late.
func (p Plan) LeftToKubelet(pod Pod) bool {
	window, end := p.windowFor(pod), pod.DeletionTimestamp
	switch {
	case window == 0:
		return false
	case !pod.Terminating:
		return p.isCovered(pod)
	}
	return end.After(p.Deadline.Add(-p.policy.Reserve)) && (p.isCovered(pod) || !end.After(p.Deadline.Add(window)))
}

// lastAt returns the last moment at which the pod can be deleted and still gets its grace period (up to
// Policy.ForceGrace) before the reserve, or before the end of the shutdown window less the reserve. If the instance's
// time or the invocation ends earlier, it is just before that. Under a lifecycle hook, it counts on heartbeats.
func (p Plan) lastAt(pod Pod) time.Time {
	at := p.graces.Add(p.windowFor(pod) - p.policy.Reserve - p.forceGrace(pod))
	at = Earlier(at, p.graces.Add(-time.Second))
	if !p.limit.IsZero() {
		at = Earlier(at, p.limit.Add(-time.Second))
	}
	return at
}

// EvictionOrder sorts pods by when their requests are sent: pods with volumes first, because their volumes must be
// detached before the next pod can start; critical pods last, because others may need them to shut down. No pod waits
// for another.
func EvictionOrder(a, b Pod) int {
	rank := func(p Pod) int {
		switch {
		case p.Critical:
			return 2
		case p.Volumes:
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID(), b.ID()), cmp.Compare(a.UID, b.UID))
}
