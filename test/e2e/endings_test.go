package e2e

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	// notice is from a Spot warning to the machine's end.
	notice = 2 * time.Minute

	// reserve is what the handler keeps before that end, for the kubelet and for volumes.
	reserve = 5 * time.Second
)

// only is the app's one pod.
func (r *fixture) only(app string) corev1.Pod {
	r.Helper()
	pods := r.pods("app=" + app)
	if len(pods) != 1 {
		r.Fatalf("%d pods of %s, want one", len(pods), app)
	}
	return pods[0]
}

// told is what the outcome says of a pod.
func (r *fixture) told(out spot.Outcome, pod corev1.Pod) spot.PodResult {
	r.Helper()
	for _, p := range out.Pods {
		if p.UID == string(pod.UID) {
			return p
		}
	}
	r.Fatalf("the outcome does not tell of %s: %+v", pod.Name, out.Pods)
	return spot.PodResult{}
}

// sigterm is what the kubelet noted of a pod's SIGTERM, once the drain is over; that there was none is an error.
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

// forcedInTime demands that a pod got SIGTERM with that grace period, at the last moment at which the period still ends
// before the reserve does: not sooner, and not so late that the machine's end would cut it.
func (r *fixture) forcedInTime(in spot.Interruption, pod string, grace time.Duration) {
	r.Helper()
	term, ok := r.sigterm(pod)
	if !ok {
		return
	}
	if got := time.Duration(term.Grace) * time.Second; got != grace {
		r.Errorf("%s got %s to end, want %s", pod, got, grace)
	}
	before := in.Time.Add(notice).Sub(term.Time)
	if want := reserve + grace; before > want+time.Second || before < want-reserve+time.Second {
		r.Errorf("%s got SIGTERM %s before the machine's end, want %s", pod, before, want)
	}
}

// cutToTheEnd demands that a pod got SIGTERM with what was left until the reserve.
func (r *fixture) cutToTheEnd(in spot.Interruption, pod string) {
	r.Helper()
	term, ok := r.sigterm(pod)
	if !ok {
		return
	}
	end := term.Time.Add(time.Duration(term.Grace) * time.Second)
	if before := in.Time.Add(notice).Sub(end); before < reserve-time.Second || before > reserve+3*time.Second {
		r.Errorf("the %d s of %s end %s before the machine does, want %s", term.Grace, pod, before, reserve)
	}
}

// gracesStand demands that no pod had its grace period shortened and none was killed.
func (r *fixture) gracesStand() {
	r.Helper()
	for _, rec := range append(r.kubelet(testenv.PodGraceShortened), r.kubelet(testenv.PodSigKill)...) {
		r.Errorf("%s on %s: %s with %d s", rec.Pod, rec.Node, rec.Event, rec.Grace)
	}
}

// askedOnce demands that the handler told no pod twice to end: a second request could only take from what the first gave.
func (r *fixture) askedOnce(node string) {
	r.Helper()
	accepted := map[string]int{}
	for _, q := range r.requests(node) {
		if q.Resource == "pods" && (q.Subresource == "eviction" || q.Verb == "delete") && q.Code/100 == 2 {
			accepted[q.Name]++
		}
	}
	for name, n := range accepted {
		if n > 1 {
			r.Errorf("%s was told to end %d times", name, n)
		}
	}
}

// neverTwice demands that a pod of a name that had been there before, on whichever node, was started only after the
// containers of the one before had ended, and that no pod was deleted from under its kubelet. It returns how many pods
// took a name over.
func (r *fixture) neverTwice() (successors int) {
	r.Helper()
	all, err := r.cp.KubeletLog()
	if err != nil {
		r.Fatal(err)
	}
	running := map[string]testenv.KubeletRecord{} // by name, the start of what runs
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
				r.Errorf("%s was deleted from under the kubelet of %s", rec.Pod, rec.Node)
			}
			if running[rec.Pod].UID == rec.UID {
				delete(running, rec.Pod)
			}
		}
	}
	return successors
}
