package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
	fakelambda "github.com/castai/kops-spot/test/fakes/lambda"
	"github.com/castai/kops-spot/test/testenv"
)

// TestBudgetRefusesThenAllows: the API server refuses with 429 until a successor is Ready.
func TestBudgetRefusesThenAllows(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, ready: 2 * time.Second})
	r.guard("web", 1)
	r.node() // for the successors
	out := r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	refusals := 0
	for _, p := range out.Pods {
		refusals += p.Refusals
		if p.Status != spot.PodEvicted {
			t.Errorf("%+v", p)
		}
		if p.Refusals > 0 && (!strings.Contains(p.LastRefusal, "429") ||
			!strings.Contains(p.LastRefusal, "disruption budget web needs 1 healthy")) {
			t.Errorf("the last refusal is %q", p.LastRefusal)
		}
	}
	if refusals == 0 {
		t.Error("no eviction was refused")
	}
	by429 := 0
	for _, q := range r.requests(victim) {
		if q.Subresource == "eviction" && q.Code == 429 {
			by429++
		}
	}
	if by429 != refusals {
		t.Errorf("the outcome counts %d refusals, the audit log %d", refusals, by429)
	}
	r.waitReady("web", 2)
}

// TestForcedPastTheBudget: a pod whose budget never allows an eviction gets SIGTERM and its full grace period. The
// forced delete is neither early nor late.
func TestForcedPastTheBudget(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "db", replicas: 1, grace: 10 * time.Second, exit: 8 * time.Second})
	r.guard("db", 1)
	in := r.warning(spot.SpotTerminate, victim, 98*time.Second) // 22 s left; force-deleted in 7 s
	out := r.handle(in, spot.Drained)
	name := out.Pods[0].Name
	term := r.record(name, testenv.PodSigTerm)
	if term.Grace != 10 {
		t.Errorf("it got a grace period of %d s, want 10 s", term.Grace)
	}
	if at := term.Time.Sub(in.Time); at < 104500*time.Millisecond || at > 107*time.Second {
		t.Errorf("SIGTERM came %s after the event, want 105 s", at)
	}
	if exited := r.record(name, testenv.PodExited); exited.Time.After(in.Time.Add(115 * time.Second)) {
		t.Errorf("it exited after the reserve began, %s after the event", exited.Time.Sub(in.Time))
	}
	if len(r.kubelet(testenv.PodSigKill)) != 0 {
		t.Error("a pod got SIGKILL")
	}
	if p := out.Pods[0]; p.Status != spot.PodForceDeleted || p.Refusals == 0 {
		t.Errorf("%+v", p)
	}
}

// TestTerminatingPodIsOnlyWatched: the pod was already deleted with a longer grace period than an eviction would get.
func TestTerminatingPodIsOnlyWatched(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "slow", replicas: 1, grace: 60 * time.Second, exit: 6 * time.Second})
	name := r.pods("app=slow")[0].Name
	r.delete(name)
	r.record(name, testenv.PodSigTerm)
	out := r.handle(r.warning(spot.SpotTerminate, victim, 90*time.Second), spot.Drained)
	if recs := r.kubelet(testenv.PodGraceShortened); len(recs) != 0 {
		t.Errorf("a grace period was shortened: %v", recs)
	}
	for _, p := range out.Pods {
		if p.Name == name && p.Status != spot.PodTerminated {
			t.Errorf("%+v", p)
		}
	}
	for _, q := range r.requests(victim) {
		if q.Name == name && (q.Subresource == "eviction" || q.Verb == "delete") {
			t.Errorf("a terminating pod was evicted or deleted again: %s %s", q.Verb, q.URI)
		}
	}
}

// TestDuplicateEvents: the same event in two concurrent invocations and a later one does nothing twice.
func TestDuplicateEvents(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 3, exit: 4 * time.Second},
		app{name: "long", replicas: 2, grace: 4 * time.Minute, exit: 5 * time.Second},
		app{name: "guarded", replicas: 1, grace: 3 * time.Second})
	r.guard("guarded", 1)
	s := r.service()
	in := r.warning(spot.SpotTerminate, victim, 95*time.Second)
	event := r.encode(in)
	results := make(chan fakelambda.Result)
	for _, delay := range []time.Duration{0, 0, 2 * time.Second} {
		go func() {
			time.Sleep(delay)
			results <- r.invoke(s, event)
		}()
	}
	for range 3 {
		out := r.outcome(<-results, spot.Drained)
		if !out.Deadline.Equal(in.Time.Add(2 * time.Minute)) {
			t.Errorf("the deadline is %v", out.Deadline)
		}
	}
	if recs := r.kubelet(testenv.PodGraceShortened); len(recs) != 0 {
		t.Errorf("grace periods were shortened: %v", recs)
	}
	if recs := r.kubelet(testenv.PodSigKill); len(recs) != 0 {
		t.Errorf("pods got SIGKILL: %v", recs)
	}
	if n := r.detached(); n != 1 {
		t.Errorf("the instance was detached %d times", n)
	}
	if n := r.changes(victim); n != 1 {
		t.Errorf("the node was changed %d times", n)
	}
}

// TestRetryAfterCrash: the host of the first invocation is lost during the drain. Lambda's retry resumes from the state
// of the cluster.
func TestRetryAfterCrash(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 2, grace: 4 * time.Minute, exit: 6 * time.Second})
	s := r.service()
	if _, err := s.Invoke(t.Context(), function, fakelambda.Event,
		r.encode(r.warning(spot.SpotTerminate, victim, 60*time.Second))); err != nil {
		t.Fatal(err)
	}
	r.eventually("SIGTERM for two pods", func() bool { return len(r.kubelet(testenv.PodSigTerm)) == 2 })
	s.KillAll()
	must(t, s.Drain(t.Context()))
	rec := r.onlyRecord()
	if rec.RequestContext.Condition != fakelambda.Success || rec.RequestContext.ApproximateInvokeCount != 2 {
		t.Errorf("%+v", rec.RequestContext)
	}
	var out spot.Outcome
	if err := json.Unmarshal(rec.ResponsePayload, &out); err != nil || out.Result != spot.Drained {
		t.Errorf("%s, %v", rec.ResponsePayload, err)
	}
	if recs := append(r.kubelet(testenv.PodGraceShortened), r.kubelet(testenv.PodSigKill)...); len(recs) != 0 {
		t.Errorf("the retry shortened a grace period: %v", recs)
	}
}

func (r *fixture) onlyRecord() fakelambda.Record {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.records) != 1 {
		r.Fatalf("%d records: %+v", len(r.records), r.records)
	}
	return r.records[0]
}

// TestAsynchronousFailure: Lambda retries after an error, then sends the failure to the destination.
func TestAsynchronousFailure(t *testing.T) {
	r := newFixture(t)
	s := r.service()
	if _, err := s.Invoke(t.Context(), function, fakelambda.Event, []byte(`{"source":"aws.ec2"}`)); err != nil {
		t.Fatal(err)
	}
	must(t, s.Drain(t.Context()))
	if rec := r.onlyRecord(); rec.RequestContext.Condition != fakelambda.RetriesExhausted ||
		!strings.Contains(string(rec.ResponsePayload), "detail-type") {
		t.Errorf("%+v: %s", rec.RequestContext, rec.ResponsePayload)
	}
}

// closedPort is an address without a listener. Another test could get a free port above 1024 in the meantime.
const closedPort = "127.0.0.1:1"

// blackHole returns an address that accepts connections and never responds.
func blackHole(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// TestOneSideUnreachable: the drain and the replacement work without each other. If neither works, the function fails
// with an error that names both.
func TestOneSideUnreachable(t *testing.T) {
	t.Parallel()
	for how, address := range map[string]func(*testing.T) string{"refused": func(*testing.T) string { return closedPort }, "swallowed": blackHole} {
		t.Run("the API server is "+how, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.env["KOPS_SPOT_SERVER"] = "https://" + address(t)
			out := r.handle(r.warning(spot.SpotTerminate, victim, 105*time.Second), spot.Incomplete)
			if out.Replacement.Action != spot.ReplaceDetach || len(r.aws.Calls("DetachInstances")) != 1 {
				t.Errorf("the instance was not detached: %+v", out.Replacement)
			}
			if !strings.Contains(strings.Join(out.Problems, " "), "finding the node of "+victim) {
				t.Errorf("the outcome does not say what failed: %v", out.Problems)
			}
		})
		t.Run("EC2 is "+how, func(t *testing.T) {
			r := newFixture(t)
			victim := r.node()
			r.deploy(app{name: "web", replicas: 2})
			r.env["AWS_ENDPOINT_URL"] = "http://" + address(t)
			out := r.handle(r.warning(spot.SpotTerminate, victim, 105*time.Second), spot.Drained)
			if drained := *out.Timings.Empty - *out.Timings.Started; drained > 5 || len(r.podsOn(victim)) != 0 {
				t.Errorf("the drain waited for EC2: %v s", drained)
			}
			if !strings.Contains(out.Replacement.Reason, "could not be read from EC2") {
				t.Errorf("%+v", out.Replacement)
			}
		})
		t.Run("both are "+how, func(t *testing.T) {
			r := newFixture(t)
			r.env["KOPS_SPOT_SERVER"], r.env["AWS_ENDPOINT_URL"] = "https://"+address(t), "http://"+address(t)
			said := r.failure(r.encode(r.warning(spot.SpotTerminate, "i-1234567890abcdef0", 105*time.Second)))
			if !strings.Contains(said, "finding the node of i-1234567890abcdef0: ") ||
				!strings.Contains(said, "reading instance i-1234567890abcdef0 from EC2: ") {
				t.Errorf("the error does not name both: %s", said)
			}
		})
	}
}

// TestDetachDuringContention: the group is busy for a while. The detach is retried during the drain.
func TestDetachDuringContention(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "web", replicas: 1})
	r.aws.Fail("DetachInstances", 4, spottest.Contention())
	out := r.handle(r.warning(spot.SpotTerminate, victim, 0), spot.Drained)
	if out.Replacement.Action != spot.ReplaceDetach || *out.Timings.Empty > *out.Replacement.At {
		t.Errorf("empty after %v s, detached after %v s", *out.Timings.Empty, out.Replacement)
	}
}

// TestPodsThatTolerateTheCordon: they come back to the node at once. They are evicted again after growing delays, and
// once more in time for their grace period.
func TestPodsThatTolerateTheCordon(t *testing.T) {
	r := newFixture(t)
	victim := r.node()
	r.deploy(app{name: "agent", replicas: 2, tolerate: true, grace: 2 * time.Second})
	out := r.handle(r.warning(spot.SpotTerminate, victim, 95*time.Second), spot.Drained)
	if n := len(r.kubelet(testenv.PodSigTerm)); n < 4 || n > 12 || len(out.Pods) > 14 {
		t.Errorf("%d SIGTERMs, %d pods in the outcome; want a few of each pod", n, len(out.Pods))
	}
	if at := *out.Timings.LastEviction; at < 112 || at > 115 {
		t.Errorf("the last eviction came %v s after the event, want 113", at)
	}
}
