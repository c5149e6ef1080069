package e2e

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// start runs the function on an event, and hands over the result when it has ended.
func (r *fixture) start(s *fakelambda.Service, in spot.Interruption) <-chan fakelambda.Result {
	r.Helper()
	event, ended := r.encode(in), make(chan fakelambda.Result, 1)
	go func() {
		res, err := s.Invoke(r.Context(), function, fakelambda.RequestResponse, event)
		if err != nil {
			r.Error(err)
		}
		ended <- res
	}()
	return ended
}

// TestLaterInvocations find the same machine a minute nearer to its end, when every pod is ending. They could only take
// from what the first invocation gave.
func TestLaterInvocations(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, exit: 9 * time.Second}, app{name: "long", replicas: 1, grace: 5 * time.Minute, exit: 9 * time.Second},
		app{name: "guarded", replicas: 1, grace: 5 * time.Minute, exit: 6 * time.Second})
	r.guard("guarded", 1)
	guarded, long := r.only("guarded"), r.only("long")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 52*time.Second) // 68 s are left; to be forced 3 s from now
	first := r.start(s, in)
	r.record(guarded.Name, testenv.PodSigTerm) // the last to get it
	ends := r.ends()
	if len(ends) != 4 {
		t.Fatalf("%d pods are ending, want 4", len(ends))
	}

	// Some 4 s have passed, and to these 56 s more.
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
				t.Fatalf("the end of a pod was moved from %s to %s", was, end)
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
				t.Errorf("a later invocation told a pod to end that was ending: %+v", p)
			}
		}
	}
	r.forcedInTime(in, guarded.Name, time.Minute)
	r.cutToTheEnd(in, long.Name)
	r.gracesStand()
	for _, q := range r.requests(victim) {
		if q.Received.After(since) && (q.Subresource == "eviction" || q.Verb == "delete") {
			t.Errorf("%s %s: a pod that was ending was asked again", q.Verb, q.URI)
		}
	}
	if n := r.detached(); n != 1 {
		t.Errorf("the instance was detached %d times", n)
	}
}

// ends are the deletion timestamps of the pods that are ending, by UID.
func (r *fixture) ends() map[string]metav1.Time {
	r.Helper()
	ends := map[string]metav1.Time{}
	for _, p := range r.pods("") {
		// With 0 seconds it is the kubelet that deletes a pod whose containers have ended: for a moment that can be seen.
		if p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds > 0 {
			ends[string(p.UID)] = *p.DeletionTimestamp
		}
	}
	return ends
}

// detached is how often the instance was detached.
func (r *fixture) detached() (n int) {
	for _, c := range r.aws.Calls("DetachInstances") {
		if c.Err == nil {
			n++
		}
	}
	return n
}

// changes is how often the handler has changed the node.
func (r *fixture) changes(node string) (n int) {
	r.Helper()
	for _, q := range r.requests(node) {
		if q.Resource == "nodes" && q.Verb == "patch" && q.Code == 200 {
			n++
		}
	}
	return n
}

// kill ends the invocation as the loss of its host does.
func (r *fixture) kill(s *fakelambda.Service, ended <-chan fakelambda.Result) {
	r.Helper()
	s.KillAll()
	if res := <-ended; res.FunctionError == "" {
		r.Fatalf("it had ended before: %s", res.Payload)
	}
}

// TestTakenUpWhereItStopped: one invocation is killed between the tags and the detach, the next while pods are ending and
// one is still refused; the third has one thing left to do.
func TestTakenUpWhereItStopped(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, grace: 4 * time.Minute, exit: 8 * time.Second}, app{name: "guarded", replicas: 1, grace: 3 * time.Second, exit: 2 * time.Second})
	r.guard("guarded", 1)
	guarded, web := r.only("guarded"), r.pods("app=web")
	r.aws.Delay("DetachInstances", 5*time.Second)
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 94*time.Second) // 26 s are left; the guarded pod is force-deleted in 18 s

	first := r.start(s, in)
	r.eventually("the tags and the cordon", func() bool { return len(r.aws.Calls("CreateTags")) == 1 && r.changes(victim) == 1 })
	r.kill(s, first)
	if n := r.detached(); n != 0 {
		t.Fatalf("it was killed too late: %d detaches", n)
	}
	marked := r.getNode(victim).Annotations["kops-spot.cast.ai/deadline"]

	r.aws.Heal()
	second := r.start(s, in)
	r.eventually("the detach, and the pods to be told to end", func() bool { return r.detached() == 1 && len(r.kubelet(testenv.PodSigTerm)) == 2 })
	r.kill(s, second)
	if n := len(r.kubelet(testenv.PodSigTerm)); n != 2 {
		t.Fatalf("it was killed too late: %d pods got SIGTERM", n)
	}

	out := r.outcome(<-r.start(s, in), spot.Drained)
	if !out.Deadline.Equal(in.Time.Add(notice)) || marked != out.Deadline.Format(time.RFC3339) {
		t.Errorf("the deadline is %v, was %s", out.Deadline, marked)
	}
	if n := r.detached(); n != 1 || out.Replacement.Action != spot.ReplaceAlready {
		t.Errorf("the instance was detached %d times: %+v", n, out.Replacement)
	}
	if n := r.changes(victim); n != 1 {
		t.Errorf("the node was changed %d times", n)
	}
	for _, p := range web {
		r.cutToTheEnd(in, p.Name)
		if told := r.told(out, p); told.Status != spot.PodTerminated {
			t.Errorf("%+v", told)
		}
	}
	r.forcedInTime(in, guarded.Name, 3*time.Second)
	r.gracesStand()
	r.askedOnce(victim)
}

// TestDeadlineOutlivesTheInvocation: an event that seems to come from the future counts as sent when it came, and for the
// next invocation that is what stands on the node.
func TestDeadlineOutlivesTheInvocation(t *testing.T) {
	r := newRig(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 1, exit: 4 * time.Second})
	web := r.only("web")
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, -time.Minute)
	latest := time.Now().Add(notice + 2*time.Second)
	first := r.start(s, in)
	r.record(web.Name, testenv.PodSigTerm)
	r.kill(s, first)
	marked, err := time.Parse(time.RFC3339, r.getNode(victim).Annotations["kops-spot.cast.ai/deadline"])
	if err != nil || marked.After(latest) {
		t.Errorf("the node is marked with the deadline %v: %v", marked, err)
	}
	time.Sleep(time.Second) // the deadline stands in whole seconds
	if out := r.outcome(<-r.start(s, in), spot.Drained); !out.Deadline.Equal(marked) {
		t.Errorf("the next invocation moved the deadline from %v to %v", marked, out.Deadline)
	}
	r.gracesStand()
}
