package spot

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Verb is what is done about a pod.
type PodAction string

const (
	PodSkip  PodAction = "skip"  // it stays on the node
	PodWait  PodAction = "wait"  // it is going already; only watched
	PodEvict PodAction = "evict" // it is asked to go
)

// PodPlan is what becomes of one pod, and why in words for the operator.
type PodPlan struct {
	Action      PodAction
	Reason      string
	GracePeriod time.Duration // Evict: the grace period it is asked with
	ForceAt     time.Time     // Evict: when it is deleted past its budget if nothing else helps; zero for never
	LatestAt    time.Time     // Evict: it is asked when all others have gone, but not later than this; zero for at once
}

// Ask is one request about one pod.
type EvictionRequest struct {
	Delete      bool // past every budget
	GracePeriod time.Duration
	// Exact binds the request to the pod as it was seen. A second request with a shorter grace period than the first
	// would count from the first and kill the pod early, so one that asks for less than the pod's own grace period must
	// not reach a pod that somebody else has just begun to end. Others are harmless, and the API server takes a
	// budget's allowance before it looks at the version, so they are not bound.
	Exact bool
}

const (
	// minGrace is the shortest grace period asked for: with 0 the API server forgets the pod before its kubelet has
	// stopped it, and a StatefulSet would start its twin.
	minGrace = time.Second

	retryFirst = 500 * time.Millisecond
	retryMost  = 2 * time.Second
)

// PodPlan decides what becomes of a pod at the moment now. returned says that the pod came after the cordon and that its
// owner has lost a pod on this node to us before.
func (p Plan) ForPod(pod Pod, now time.Time, returned bool) PodPlan {
	switch {
	case pod.Finished:
		return PodPlan{Action: PodSkip, Reason: "it has finished"}
	case pod.Mirror:
		return PodPlan{Action: PodSkip, Reason: "it is a static pod: only the node's kubelet can end it"}
	}
	turn, own := p.policy.turn(pod)
	switch {
	case turn == DrainNever && own:
		return PodPlan{Action: PodSkip, Reason: "its annotation " + AnnotationDrain + " asks to leave it until the machine ends"}
	case pod.Owner.Kind == "DaemonSet" && pod.ToleratesCordon:
		return PodPlan{Action: PodSkip, Reason: "its DaemonSet would bring it straight back"}
	case turn == DrainNever:
		return PodPlan{Action: PodSkip, Reason: "it belongs to a DaemonSet: the policy is to leave it until the machine ends"}
	case pod.Terminating:
		return PodPlan{Action: PodWait, Reason: "it is ending already: another request could only shorten its grace period"}
	case returned && pod.ToleratesCordon:
		return PodPlan{Action: PodSkip, Reason: fmt.Sprintf("it tolerates the cordon and its %s %s put it straight back", pod.Owner.Kind, pod.Owner.Name)}
	}
	f := PodPlan{Action: PodEvict, GracePeriod: p.grace(pod, now)}
	if p.forces(pod) {
		f.ForceAt = p.forceAt(pod)
	}
	if turn == DrainLast && !p.EvictOnce {
		f.LatestAt = p.forceAt(pod)
	}
	switch {
	case f.GracePeriod < pod.GracePeriod:
		f.Reason = fmt.Sprintf("its grace period of %s is cut to what is left of the machine", pod.GracePeriod)
	case pod.Owner.Kind == "":
		f.Reason = "it ends with the machine; it has no controller, so nothing starts it elsewhere"
	case pod.Owner.Kind == "DaemonSet":
		f.Reason = "the machine ends, and the cordon keeps its DaemonSet from putting another there"
	default:
		f.Reason = fmt.Sprintf("its %s %s starts another elsewhere", pod.Owner.Kind, pod.Owner.Name)
	}
	if !f.LatestAt.IsZero() {
		f.Reason += "; it is asked after all others"
	}
	if p.forced && f.ForceAt.IsZero() {
		f.Reason += "; it is never deleted past what refuses its eviction"
	}
	return f
}

// forces is whether the pod may be deleted past its budget: the event allows it, and so do its owners.
func (p Plan) forces(pod Pod) bool { return p.forced && p.policy.force(pod) }

// Ask is the next request about a pod that is to be evicted and has been asked for in vain so many times.
func (p Plan) Request(pod Pod, now time.Time, refusals int) EvictionRequest {
	ask := EvictionRequest{GracePeriod: p.grace(pod, now)}
	if p.forces(pod) && refusals > 0 && !now.Before(p.forceAt(pod)) {
		ask.Delete = true
		// A request may come a little late: the reserve is there to let the pod have its time all the same.
		if whole := p.forceGrace(pod); !now.Add(whole).After(p.Deadline) {
			ask.GracePeriod = whole
		}
	}
	ask.Exact = ask.GracePeriod < pod.GracePeriod
	return ask
}

// Again is when to ask again after the refusals-th refusal, of what was asked, honouring the Retry-After that came with it (0
// for none); false for never.
func (p Plan) NextAttempt(pod Pod, asked EvictionRequest, now time.Time, refusals int, after time.Duration) (time.Time, bool) {
	if p.EvictOnce {
		return time.Time{}, false
	}
	if after <= 0 {
		after = min(retryFirst<<min(refusals-1, 10), retryMost)
	}
	next := now.Add(after)
	// No Retry-After is worth a pod's SIGTERM, nor is one that came with an eviction's refusal when its time to be forced had
	// come. Only a deletion that is refused is worth a pause.
	if force := Later(p.forceAt(pod), now); p.forces(pod) && (!asked.Delete || now.Before(force)) && next.After(force) {
		next = force
	}
	return next, next.Before(p.Until)
}

// grace is the pod's own grace period, cut to what is left before the reserve. Under a lifecycle hook that is as much as
// heartbeats can bring: a pod that was told to end with less could not be given more when they have.
func (p Plan) grace(pod Pod, now time.Time) time.Duration {
	own := pod.GracePeriod
	if !p.EvictOnce && !p.NoDeadline {
		left := p.graces.Sub(now) - p.policy.Reserve
		own = min(own, left.Truncate(time.Second))
	}
	return max(own, minGrace)
}

func (p Plan) forceGrace(pod Pod) time.Duration {
	return max(min(pod.GracePeriod, p.policy.ForceGrace), minGrace)
}

// forceAt is the last moment at which the pod can be deleted past its budget and still have its time: SIGTERM, its grace
// period (up to Policy.ForceGrace), and the reserve. An invocation that ends sooner forces it while it still can.
func (p Plan) forceAt(pod Pod) time.Time {
	return Earlier(p.Deadline.Add(-p.policy.Reserve-p.forceGrace(pod)), p.Until.Add(-time.Second))
}

// submissionOrder sorts pods so that those whose successors wait longest are asked for first: those with volumes, which
// must be detached before they can be attached elsewhere; and critical ones, which others may need to end well, last.
// It is the order of asking only: no pod waits for another.
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

// Fates are the fates of all the pods of a node, in the order in which they are asked.
func (p Plan) ForPods(pods []Pod, now time.Time) []PlanOfPod {
	pods = slices.SortedFunc(slices.Values(pods), EvictionOrder)
	fates := make([]PlanOfPod, len(pods))
	for i, pod := range pods {
		fates[i] = PlanOfPod{pod, p.ForPod(pod, now, false)}
	}
	return fates
}

// PlanOfPod is a pod and its fate.
type PlanOfPod struct {
	Pod  Pod
	Plan PodPlan
}
