package e2e

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	// notice is the time from a Spot warning to the deadline.
	notice = 2 * time.Minute

	// reserve is the time that the handler keeps before the deadline for the kubelet and volumes.
	reserve = 5 * time.Second
)

// only returns the app's single pod.
func (r *fixture) only(app string) corev1.Pod {
	r.Helper()
	pods := r.pods("app=" + app)
	if len(pods) != 1 {
		r.Fatalf("%d pods of %s, want one", len(pods), app)
	}
	return pods[0]
}

// podResult returns the outcome's result for a pod.
func (r *fixture) podResult(out spot.Outcome, pod corev1.Pod) spot.PodResult {
	r.Helper()
	for _, p := range out.Pods {
		if p.UID == string(pod.UID) {
			return p
		}
	}
	r.Fatalf("the outcome does not have %s: %+v", pod.Name, out.Pods)
	return spot.PodResult{}
}

// sigterm returns the kubelet's record of a pod's SIGTERM. It fails the test if there is none.
func (r *fixture) sigterm(pod string) (rec testenv.KubeletRecord, ok bool) {
	r.Helper()
	for _, rec := range r.kubelet(testenv.PodSigTerm) {
		if rec.Pod == pod {
			return rec, true
		}
	}
	r.Errorf("%s got no SIGTERM", pod)
	return rec, false
}

// forceDeletedOnTime fails unless a pod got SIGTERM with that grace period at the last moment at which the period still
// ends before the reserve: not earlier, and not so late that the deadline cuts it.
func (r *fixture) forceDeletedOnTime(in spot.Interruption, pod string, grace time.Duration) {
	r.Helper()
	term, ok := r.sigterm(pod)
	if !ok {
		return
	}
	if got := time.Duration(term.Grace) * time.Second; got != grace {
		r.Errorf("%s got a grace period of %s, want %s", pod, got, grace)
	}
	before := in.Time.Add(notice).Sub(term.Time)
	if want := reserve + grace; before > want+time.Second || before < want-reserve+time.Second {
		r.Errorf("%s got SIGTERM %s before the deadline, want %s", pod, before, want)
	}
}

// cappedAtDeadline fails unless a pod got SIGTERM with the time left until the reserve.
func (r *fixture) cappedAtDeadline(in spot.Interruption, pod string) {
	r.Helper()
	term, ok := r.sigterm(pod)
	if !ok {
		return
	}
	end := term.Time.Add(time.Duration(term.Grace) * time.Second)
	if before := in.Time.Add(notice).Sub(end); before < reserve-time.Second || before > reserve+3*time.Second {
		r.Errorf("the %d s of %s end %s before the deadline, want %s", term.Grace, pod, before, reserve)
	}
}

// gracePeriodsKept fails if a pod's grace period was shortened or a pod was killed.
func (r *fixture) gracePeriodsKept() {
	r.Helper()
	for _, rec := range append(r.kubelet(testenv.PodGraceShortened), r.kubelet(testenv.PodSigKill)...) {
		r.Errorf("%s on %s: %s with %d s", rec.Pod, rec.Node, rec.Event, rec.Grace)
	}
}

// evictedOnce fails if the handler evicted or deleted a pod twice: a second request could only shorten its grace
// period.
func (r *fixture) evictedOnce(node string) {
	r.Helper()
	accepted := map[string]int{}
	for _, q := range r.requests(node) {
		if q.Resource == "pods" && (q.Subresource == "eviction" || q.Verb == "delete") && q.Code/100 == 2 {
			accepted[q.Name]++
		}
	}
	for name, n := range accepted {
		if n > 1 {
			r.Errorf("%s was evicted or deleted %d times", name, n)
		}
	}
}

// neverTwice fails if a pod started on any node while an earlier pod of the same name was still running, or if a pod
// was deleted before its kubelet had stopped it. It returns the number of pods that took over a name.
func (r *fixture) neverTwice() (successors int) {
	r.Helper()
	all, err := r.cp.KubeletLog()
	must(r, err)
	running := map[string]testenv.KubeletRecord{} // by name: the start of the running pod
	known := map[string]bool{}
	for _, rec := range all {
		if rec.Namespace != r.namespace {
			continue
		}
		switch rec.Event {
		case testenv.PodStarted:
			if twin, ok := running[rec.Pod]; ok {
				r.Errorf("%s was started on %s while it still ran on %s", rec.Pod, rec.Node, twin.Node)
			}
			if known[rec.Pod] {
				successors++
			}
			running[rec.Pod], known[rec.Pod] = rec, true
		case testenv.PodExited, testenv.PodSigKill:
			if rec.Grace == 0 {
				r.Errorf("%s was deleted before it was stopped by the kubelet of %s", rec.Pod, rec.Node)
			}
			if running[rec.Pod].UID == rec.UID {
				delete(running, rec.Pod)
			}
		}
	}
	return successors
}
