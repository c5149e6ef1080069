package spot

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// podState is one pod's way off the node.
type podState struct {
	pod      Pod
	fate     PodPlan
	due      time.Time // when to ask; zero for not (any more)
	asking   bool
	told     bool // an eviction or delete of ours was accepted
	forced   bool
	gone     bool
	grace    time.Duration
	askedAt  time.Time
	goneAt   time.Time
	refusals int
	refusal  string
	held     string // the version that was refused as outdated: wait for another
}

// leaves reports whether the drain is not over while this pod is as it is. One whose containers have ended is nothing to
// wait for, even if a finalizer keeps its object: the end of the machine cannot harm it.
func (s *podState) leaves() bool { return s.fate.Action != PodSkip && !s.gone && !s.pod.Finished }

// tell writes down what became of the pods.
func (d *podDrain) tell(told *drainResult) {
	event := d.in.Time
	told.Plan, told.Listed = d.planned, d.listed
	told.Timings.Cordoned = since(event, d.cordon.at)
	told.Timings.LastEviction = since(event, d.lastEviction)
	told.Timings.Empty = since(event, d.empty)
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

func (s *podState) outcome(event time.Time) PodResult {
	t := PodResult{Namespace: s.pod.Namespace, Name: s.pod.Name, UID: s.pod.UID, Reason: s.fate.Reason,
		GracePeriod: seconds(s.grace), RequestedAt: since(event, s.askedAt), TerminatedAt: since(event, s.goneAt),
		Refusals: s.refusals, LastRefusal: s.refusal}
	if s.pod.Owner.Kind != "" {
		t.Owner = s.pod.Owner.Kind + "/" + s.pod.Owner.Name
	}
	t.DisruptedBy, t.LocalData = s.pod.DisruptedBy, s.pod.EmptyDir && s.fate.Action != PodSkip
	switch {
	case s.gone && s.forced:
		t.Status, t.Reason = PodForceDeleted, "it was deleted past what refused its eviction: the machine ends anyway"
	case s.gone && s.told:
		t.Status = PodEvicted
	case s.gone:
		t.Status, t.Reason = PodTerminated, "it went without our asking"
		if s.pod.DisruptedBy != "" {
			t.Reason += ": " + s.pod.DisruptedBy
		}
	case s.fate.Action == PodSkip:
		t.Status = PodSkipped
	case s.pod.Finished:
		t.Status, t.Reason = PodStuck, "its containers have ended, but its object is still there: "+s.keptBy()
		t.Finalizers = s.pod.Finalizers
	case s.told:
		t.Status, t.Reason = PodStillRunning, "it had been told to end and was still ending"
	case s.fate.Action == PodWait:
		t.Status, t.Reason = PodStillRunning, "it was ending before we came and was still ending"
	case s.refusals == 0:
		t.Status, t.Reason = PodStillRunning, "there was no time left to ask it to end"
	default:
		t.Status, t.Reason = PodStillRunning, "every request to evict it was refused"
		if s.fate.ForceAt.IsZero() {
			t.Reason += ", and it was not to be deleted past that"
		}
	}
	if t.Status == PodStillRunning {
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
func invalidAnnotations(p Pod) string {
	var wrong []string
	if v := p.Annotations[AnnotationForce]; v != "" && !slices.Contains(Forces(), Force(v)) {
		wrong = append(wrong, fmt.Sprintf("%s=%q is neither allow nor never", AnnotationForce, v))
	}
	if v := p.Annotations[AnnotationDrain]; v != "" && !slices.Contains(DrainOrders(), DrainOrder(v)) {
		wrong = append(wrong, fmt.Sprintf("%s=%q is not first, last or never", AnnotationDrain, v))
	}
	return strings.Join(wrong, "; ")
}
