package handler_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

var update = flag.Bool("update", false, "write docs/faults.md")

// fault is a way in which requests fail. inject lets the first request fail if d is 0, those of the next d, or all if d
// is negative.
type fault struct {
	name   string
	lost   bool // only the response is lost
	inject func(w *world, d time.Duration)
}

// faultsOf returns the faults of a request.
func faultsOf(r spottest.FaultRequest) (faults []fault) {
	switch {
	case r.Request == spottest.CASTAIEvent:
		return castaiFaults()
	case r.Request == spottest.AnyRequest:
		return []fault{{name: "refused", inject: func(w *world, d time.Duration) {
			clusterFaults(spottest.AnyKubernetes)[0].inject(w, d)
			awsFaults(spottest.AnyOperation)[0].inject(w, d)
		}}}
	case r.Request == spottest.AnyAWS:
		return awsFaults(spottest.AnyOperation)
	case r.IsAWS():
		return awsFaults(r.Request)
	}
	return clusterFaults(r.Request)
}

func clusterFaults(request string) (faults []fault) {
	verb, resource, found := strings.Cut(request, " ")
	if request == spottest.AnyKubernetes {
		verb, resource = "", ""
	}
	limit := 15 * time.Second // of a write
	if verb == "get" || verb == "list" || verb == "watch" || !found {
		limit = 5 * time.Second
	}
	add := func(name string, dist spottest.Disturbance) {
		dist.Verb, dist.Resource = verb, resource
		faults = append(faults, fault{name: name, lost: dist.Lost, inject: func(w *world, d time.Duration) {
			dist.Times = 0
			if d == 0 {
				dist.Times = 1
			}
			heal := w.cluster.Disturb(dist)
			if d > 0 {
				time.AfterFunc(d, heal)
			}
		}})
	}
	add("refused", spottest.Disturbance{Err: errors.New("connection refused")})
	add("response lost", spottest.Disturbance{Lost: true, Err: errors.New("connection reset by peer")})
	add("response truncated", spottest.Disturbance{Lost: true, Err: io.ErrUnexpectedEOF})
	for _, r := range []spot.Refusal{{Code: 429}, {Code: 429, RetryAfter: 10 * time.Second}, {Code: 500}, {Code: 503}, {Code: 504}} {
		r.Message = fmt.Sprint(r.Code)
		if r.RetryAfter > 0 {
			r.Message += ", Retry-After 10 s"
		}
		add(r.Message, spottest.Disturbance{Err: &r})
	}
	add("409", spottest.Disturbance{Err: fmt.Errorf("409: %w", spot.ErrChanged)})
	add("slow", spottest.Disturbance{Delay: limit, Err: context.DeadlineExceeded})
	add("401", spottest.Disturbance{Err: spot.Permanent(errors.New("401"))})
	add("403", spottest.Disturbance{Err: spot.Permanent(errors.New("403"))})
	if verb == "watch" {
		add("410", spottest.Disturbance{Err: errors.New("410: too old resource version")})
		for _, c := range []struct {
			name  string
			after time.Duration
		}{{"closed by the server", time.Second}, {"410 as an event", time.Millisecond}} {
			faults = append(faults, fault{name: c.name, inject: func(w *world, d time.Duration) {
				c := &closedWatches{Cluster: w.cluster, after: c.after, once: d == 0}
				if d > 0 {
					c.until = time.Now().Add(d)
				}
				w.handler.Cluster = c
			}})
		}
	}
	return faults
}

// closedWatches is a cluster that ends watches early, without an error.
type closedWatches struct {
	spot.Cluster
	after time.Duration
	once  bool
	until time.Time // zero for never
}

func (c *closedWatches) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	if c.after == 0 || !c.until.IsZero() && time.Now().After(c.until) {
		return c.Cluster.FollowPods(ctx, node, see)
	}
	watch, cancel := context.WithTimeout(ctx, c.after)
	defer cancel()
	if c.once {
		c.after = 0
	}
	err := c.Cluster.FollowPods(watch, node, see)
	if ctx.Err() == nil {
		return nil
	}
	return err
}

func awsFaults(op string) (faults []fault) {
	for _, f := range []struct {
		name  string
		fault spottest.Fault
		delay time.Duration
	}{
		{name: "refused", fault: spottest.Unreachable()},
		{name: "response lost", fault: spottest.AnswerLost()},
		{name: "throttled", fault: spottest.Throttled()},
		{name: "contention", fault: spottest.Contention()},
		{name: "500", fault: spottest.Broken()},
		{name: "slow", fault: spottest.Unreachable(), delay: 5 * time.Second},
		{name: "403", fault: spottest.Denied()},
	} {
		faults = append(faults, fault{f.name, f.name == "response lost", func(w *world, d time.Duration) {
			w.aws.Delay(op, f.delay)
			if d == 0 {
				w.aws.Fail(op, 1, f.fault)
				time.AfterFunc(f.delay+time.Second, func() { w.aws.Delay(op, 0) })
				return
			}
			w.aws.Fail(op, -1, f.fault)
			if d > 0 {
				time.AfterFunc(d, w.aws.Heal)
			}
		}})
	}
	return faults
}

func castaiFaults() (faults []fault) {
	for _, f := range []faultyAutoscaler{
		{name: "refused", err: errors.New("connection refused")},
		{name: "response lost", err: errReset, lost: true},
		{name: "429, Retry-After 10 s", err: throttled{10 * time.Second}},
		{name: "500", err: errors.New("500")},
		{name: "slow", err: errors.New("no response within 5 s"), delay: 5 * time.Second},
		{name: "401", err: spot.Permanent(errors.New("401"))},
		{name: "403", err: spot.Permanent(errors.New("403"))},
	} {
		faults = append(faults, fault{f.name, f.lost, func(w *world, d time.Duration) {
			a := f
			if a.once = d == 0; d > 0 {
				a.until = time.Now().Add(d)
			}
			a.autoscaler = w.handler.Autoscaler.(*autoscaler)
			w.handler.Autoscaler = &a
		}})
	}
	return faults
}

// faultyAutoscaler is an autoscaler whose first calls fail.
type faultyAutoscaler struct {
	*autoscaler
	name  string
	err   error
	lost  bool
	delay time.Duration
	once  bool
	until time.Time // zero for never
}

func (a *faultyAutoscaler) Notify(ctx context.Context, event, nodeID, providerID string) error {
	err := a.err
	if err == nil || !a.until.IsZero() && time.Now().After(a.until) {
		return a.autoscaler.Notify(ctx, event, nodeID, providerID)
	}
	if a.once {
		a.err = nil
	}
	time.Sleep(a.delay)
	if a.lost {
		_ = a.autoscaler.Notify(ctx, event, nodeID, providerID)
	}
	return err
}

var faultDurations = []struct {
	name string
	d    time.Duration
}{{"once", 0}, {"8 s", 8 * time.Second}, {"always", -1}}

// TestFaults lets each request fail in each way.
func TestFaults(t *testing.T) {
	var table spottest.FaultTable
	for _, r := range spottest.FaultRequests {
		for _, f := range faultsOf(r) {
			for _, duration := range faultDurations {
				t.Run(r.Request+"/"+f.name+"/"+duration.name, func(t *testing.T) {
					want := r.Want(duration.d < 0, f.lost)
					got, seconds := runCell(t, r, func(w *world) { f.inject(w, duration.d) })
					if got != want || seconds > 121 {
						t.Errorf("got %s after %.0f s, want %s", got, seconds, want)
					}
					table.Add(r, f.name, got, seconds)
				})
			}
		}
	}
	if *update && !t.Failed() {
		if err := spottest.WriteSection("../../docs/faults.md", "In memory", faultsText+table.String()); err != nil {
			t.Fatal(err)
		}
	}
}

// invocationContext has the deadline of an invocation, but never ends: nothing may need its end to stop.
type invocationContext struct {
	context.Context
	deadline time.Time
}

func (c invocationContext) Deadline() (time.Time, bool) { return c.deadline, true }

// runCell interrupts a node with an ordinary pod and one whose budget never allows its eviction. synctest fails if a
// goroutine remains, such as one with a request in flight.
func runCell(t *testing.T, r spottest.FaultRequest, inject func(w *world)) (got string, seconds float64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pod("web-1")
		w.pod("db-0", notRecreated)
		w.budget("db", 1)
		a := &autoscaler{}
		if r.Request == spottest.CASTAIEvent {
			a = w.withAutoscaler()
		}
		inject(w)
		ctx := invocationContext{context.Background(), time.Now().Add(15 * time.Minute)}
		out, err := w.handler.Handle(ctx, w.warning(spot.SpotTerminate))
		seconds = time.Since(w.event).Seconds()
		if err == nil {
			w.roundTrip(out)
		}
		is := spottest.Actual{Cordoned: w.node().Unschedulable, Replaced: len(a.events) > 0}
		if g := w.aws.Group(group); r.Request != spottest.CASTAIEvent {
			is.Replaced = g.Desired == len(g.Members) && !w.isMember()
		}
		for _, name := range []string{"web-1", "db-0"} {
			if p, exists := w.cluster.Pod("default/" + name); exists && p.Node == instance {
				is.Pods = append(is.Pods, name)
			}
		}
		var wrong []string
		if got, wrong = r.Judge(out, err, is); wrong != nil {
			t.Error(strings.Join(wrong, "\n"))
		}
	})
	return got, seconds
}

// isMember reports whether the interrupted instance is still in its group.
func (w *world) isMember() bool {
	for _, m := range w.aws.Group(group).Members {
		if m.ID == instance && m.State != "Detaching" {
			return true
		}
	}
	return false
}

const faultsText = `A fault lasts for one request, for 8 s from the event, or always. The guarded pod is force-deleted 85 s after the event.

Written by ` + "`go test ./internal/handler -run TestFaults -update`" + `.

| request | fault | once | 8 s | always |
|---|---|---|---|---|
`
