package e2e

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// start is send for an interruption.
func (r *fixture) start(s *fakelambda.Service, in spot.Interruption) <-chan fakelambda.Result {
	r.Helper()
	return r.send(s, r.encode(in))
}

// TestLaterInvocations: when later invocations handle the same instance a minute closer to its deadline, all pods are
// already terminating. The later invocations must not shorten any grace period.
func TestLaterInvocations(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, exit: 9 * time.Second},
		app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 9 * time.Second},
		app{name: "guarded", replicas: 1, grace: 5 * time.Minute, exit: 6 * time.Second})
	r.guard("guarded", 1)
	guarded, long := r.only("guarded"), r.only("long")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 52*time.Second) // 68 s left; force-deleted in 3 s
	first := r.start(s, in)
	r.record(guarded.Name, testenv.PodSigTerm) // the last pod to get it
	ends := r.ends()
	if len(ends) != 4 {
		t.Fatalf("%d pods are terminating, want 4", len(ends))
	}

	// About 4 s have passed. For these invocations, 56 s more.
	later, other, newer := in, in, in
	later.Time = in.Time.Add(-56 * time.Second)
	other.Time, other.EventID = later.Time, in.EventID+"-other"
	newer.Time, newer.EventID = in.Time.Add(20*time.Second), in.EventID+"-newer"
	since := time.Now()
	again := []<-chan fakelambda.Result{r.start(s, later), r.start(s, other), r.start(s, newer)}

	var ended fakelambda.Result
	for going := true; going; {
		for uid, end := range r.ends() {
			if was, ok := ends[uid]; ok && !end.Equal(&was) {
				t.Fatalf("a pod's deletion timestamp changed from %s to %s", was, end)
			}
		}
		select {
		case ended = <-first:
			going = false
		case <-time.After(200 * time.Millisecond):
		}
	}
	if out := r.outcome(ended, spot.Drained); !out.Deadline.Equal(in.Time.Add(notice)) {
		t.Errorf("the deadline is %v", out.Deadline)
	}
	for _, ended := range again {
		out := r.outcome(<-ended, spot.Drained)
		for _, p := range out.Pods {
			if _, ending := ends[p.UID]; ending && (p.Status != spot.PodTerminated || p.RequestedAt != nil) {
				t.Errorf("a later invocation evicted a terminating pod: %+v", p)
			}
		}
	}
	r.forceDeletedOnTime(in, guarded.Name, time.Minute)
	r.cappedAtDeadline(in, long.Name)
	r.gracePeriodsKept()
	for _, q := range r.requests(victim) {
		if q.Received.After(since) && (q.Subresource == "eviction" || q.Verb == "delete") {
			t.Errorf("%s %s: a terminating pod was evicted or deleted again", q.Verb, q.URI)
		}
	}
	if n := r.detached(); n != 1 {
		t.Errorf("the instance was detached %d times", n)
	}
}

// ends returns the deletion timestamps of the terminating pods by UID.
func (r *fixture) ends() map[string]metav1.Time {
	r.Helper()
	ends := map[string]metav1.Time{}
	for _, p := range r.pods("") {
		// The kubelet deletes a pod with 0 s after its containers exit. This can be visible for a moment.
		if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds > 0 {
			ends[string(p.UID)] = *p.DeletionTimestamp
		}
	}
	return ends
}

// detached returns the number of successful detaches.
func (r *fixture) detached() (n int) {
	for _, c := range r.aws.Calls("DetachInstances") {
		if c.Err == nil {
			n++
		}
	}
	return n
}

// changes returns the number of times that the handler patched the node.
func (r *fixture) changes(node string) (n int) {
	r.Helper()
	for _, q := range r.requests(node) {
		if q.Resource == "nodes" && q.Verb == "patch" && q.Code == 200 {
			n++
		}
	}
	return n
}

// kill aborts the invocation as if its host were lost.
func (r *fixture) kill(s *fakelambda.Service, ended <-chan fakelambda.Result) {
	r.Helper()
	s.KillAll()
	if res := <-ended; res.FunctionError == "" {
		r.Fatalf("it had finished before: %s", res.Payload)
	}
}

// TestResumesAfterKill: the first invocation is killed between tagging and detaching, the second while pods terminate
// and one is still refused. Only the refused pod is left for the third.
func TestResumesAfterKill(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, grace: 4 * time.Minute, exit: 8 * time.Second},
		app{name: "guarded", replicas: 1, grace: 3 * time.Second, exit: 2 * time.Second})
	r.guard("guarded", 1)
	guarded, web := r.only("guarded"), r.pods("app=web")
	r.aws.Delay("DetachInstances", 5*time.Second)
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 94*time.Second) // 26 s left; the guarded pod is force-deleted in 18 s

	first := r.start(s, in)
	r.eventually("the tags and the cordon",
		func() bool { return len(r.aws.Calls("CreateTags")) == 1 && r.changes(victim) == 1 })
	r.kill(s, first)
	if n := r.detached(); n != 0 {
		t.Fatalf("it was killed too late: %d detaches", n)
	}
	cordoned := r.getNode(victim).Annotations["kops-spot.cast.ai/deadline"]

	r.aws.Heal()
	second := r.start(s, in)
	r.eventually("the detach, and SIGTERM for two pods",
		func() bool { return r.detached() == 1 && len(r.kubelet(testenv.PodSigTerm)) == 2 })
	r.kill(s, second)
	if n := len(r.kubelet(testenv.PodSigTerm)); n != 2 {
		t.Fatalf("it was killed too late: %d pods got SIGTERM", n)
	}

	out := r.outcome(<-r.start(s, in), spot.Drained)
	if !out.Deadline.Equal(in.Time.Add(notice)) || cordoned != out.Deadline.Format(time.RFC3339) {
		t.Errorf("the deadline is %v, was %s", out.Deadline, cordoned)
	}
	if n := r.detached(); n != 1 || out.Replacement.Action != spot.ReplaceAlready {
		t.Errorf("the instance was detached %d times: %+v", n, out.Replacement)
	}
	if n := r.changes(victim); n != 1 {
		t.Errorf("the node was changed %d times", n)
	}
	for _, p := range web {
		r.cappedAtDeadline(in, p.Name)
		if got := r.podResult(out, p); got.Status != spot.PodTerminated {
			t.Errorf("%+v", got)
		}
	}
	r.forceDeletedOnTime(in, guarded.Name, 3*time.Second)
	r.gracePeriodsKept()
	r.evictedOnce(victim)
}

// TestDeadlineIsKeptOnTheNode: an event with a time in the future counts as sent when it arrived. The next invocation
// uses the deadline in the node's annotation.
func TestDeadlineIsKeptOnTheNode(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 1, exit: 4 * time.Second})
	web := r.only("web")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, -time.Minute)
	latest := time.Now().Add(notice + 2*time.Second)
	first := r.start(s, in)
	r.record(web.Name, testenv.PodSigTerm)
	r.kill(s, first)
	cordoned, err := time.Parse(time.RFC3339, r.getNode(victim).Annotations["kops-spot.cast.ai/deadline"])
	if err != nil || cordoned.After(latest) {
		t.Errorf("the node's annotation has the deadline %v: %v", cordoned, err)
	}
	time.Sleep(time.Second) // the annotation has whole seconds
	if out := r.outcome(<-r.start(s, in), spot.Drained); !out.Deadline.Equal(cordoned) {
		t.Errorf("the next invocation moved the deadline from %v to %v", cordoned, out.Deadline)
	}
	r.gracePeriodsKept()
}
