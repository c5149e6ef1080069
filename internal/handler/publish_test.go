package handler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// bus is an event bus.
type bus struct {
	publish func(ctx context.Context, n spot.Notification) error // before a notification counts; nil for none

	mu       sync.Mutex
	attempts int
	received []notification
}

type notification struct {
	spot.Notification
	at time.Time
}

func (b *bus) Publish(ctx context.Context, n spot.Notification) error {
	b.mu.Lock()
	b.attempts++
	b.mu.Unlock()
	if b.publish != nil {
		if err := b.publish(ctx, n); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.received = append(b.received, notification{n, time.Now()})
	return nil
}

// names returns the last words of the names, such as "Started Finished".
func (b *bus) names() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for _, n := range b.received {
		words := strings.Fields(string(n.Name))
		names = append(names, words[len(words)-1])
	}
	return strings.Join(names, " ")
}

// TestNotifications checks which events lead to which notifications, and when the start is published.
func TestNotifications(t *testing.T) {
	const both = "Started Finished"
	for name, c := range map[string]struct {
		prepare func(w *world, in *spot.Interruption)
		want    string
		started time.Duration // NotificationStarted, after the event
		result  spot.Result
		err     bool
	}{
		"drained": {want: both, result: spot.Drained},
		"slow API server": {prepare: func(w *world, _ *spot.Interruption) { w.cluster.Disturb(spottest.Disturbance{Delay: 4 * time.Second}) },
			want: both, started: 3 * time.Second, result: spot.Drained},
		"no API server": {prepare: func(w *world, _ *spot.Interruption) { w.cluster.Disturb(spottest.Disturbance{Err: errRefused}) },
			want: both, started: 3 * time.Second, result: spot.Incomplete},
		"slow API server, and EC2 later than that": {prepare: func(w *world, _ *spot.Interruption) {
			w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
			time.AfterFunc(20*time.Second, w.aws.Heal)
		}, want: both, started: 20 * time.Second, result: spot.Incomplete},
		"no EC2": {prepare: func(w *world, _ *spot.Interruption) { w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable()) },
			want: both, result: spot.Drained},
		"neither": {prepare: func(w *world, _ *spot.Interruption) {
			w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
			w.aws.Fail(spottest.AnyOperation, -1, spottest.Unreachable())
		}, err: true},
		"no node": {prepare: func(w *world, _ *spot.Interruption) { w.cluster.RemoveNode(instance) },
			want: both, started: 3 * time.Second, result: spot.NodeNotFound},
		"only cordoned": {prepare: func(w *world, in *spot.Interruption) {
			w.handler.Policy.Rebalance, in.Kind = spot.RespondCordon, spot.Rebalance
		}, want: both, result: spot.Cordoned},
		"too late to cordon": {prepare: func(w *world, in *spot.Interruption) {
			in.Time = in.Time.Add(-118 * time.Second)
			w.cluster.Disturb(spottest.Disturbance{Err: errRefused})
		}, want: "Finished", result: spot.Incomplete},
		"missed": {prepare: func(_ *world, in *spot.Interruption) { in.Time = in.Time.Add(-125 * time.Second) },
			want: "Finished", result: spot.Missed},
		"cleaned up": {prepare: func(w *world, in *spot.Interruption) {
			w.powerOffWithPods("terminated")
			*in = w.stateChange("terminated")
		}, want: "Finished", result: spot.CleanedUp},
		"other cluster": {prepare: func(w *world, in *spot.Interruption) { in.Instance = w.foreignInstance("", nil) },
			result: spot.OtherCluster},
		"skipped": {prepare: func(_ *world, in *spot.Interruption) { in.Kind = spot.Rebalance }, result: spot.Skipped},
		"rehearsal, only planned": {prepare: func(_ *world, in *spot.Interruption) { in.Rehearsal = true },
			result: spot.Planned},
		"rehearsal": {prepare: func(w *world, in *spot.Interruption) { in.Rehearsal, w.handler.Policy.DrainRehearsals = true, true },
			want: both, result: spot.Drained},
	} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			in := w.warning(spot.SpotTerminate)
			if c.prepare != nil {
				c.prepare(w, &in)
			}
			began := time.Now()
			out, err := w.handler.Handle(w.timeout(15*time.Minute), in)
			if c.err != (err != nil) || out.Result != c.result {
				w.Fatalf("got %s, %v; want %s", toJSON(out), err, c.result)
			}
			synctest.Wait()
			if got := w.bus.names(); got != c.want {
				w.Fatalf("got %q, want %q", got, c.want)
			}
			for _, n := range w.bus.received {
				if n.EventID != in.EventID || n.Cluster != cluster || n.Kind != in.Kind || n.Rehearsal != in.Rehearsal || n.Summary == "" {
					w.Errorf("got %+v, want the facts of the event", n)
				}
				late, slack := n.at.Sub(began)-c.started, time.Second
				if c.started > 3*time.Second {
					slack = 5 * time.Second // until EC2 is asked again
				}
				if n.Name == spot.NotificationStarted && (late < 0 || late > slack || c.started == 0 && late > 100*time.Millisecond) {
					w.Errorf("started: got %s after the event, want %s", n.at.Sub(began), c.started)
				}
			}
		})
	}
}

// TestPublishErrors checks that a bus that fails or hangs delays neither the drain nor the cordon, and that the outcome
// says what was not published.
func TestPublishErrors(t *testing.T) {
	want := map[string]time.Duration{}
	inWorld(t, func(w *world) {
		w.pod("web-1", exit(5*time.Second))
		w.handle(spot.Drained)
		want["SIGTERM"], want["return"] = w.termination("web-1").SIGTERM.Sub(w.event), time.Since(w.event)
	})
	for name, c := range map[string]struct {
		publish     func(ctx context.Context, n spot.Notification) error
		unpublished int
		delay       time.Duration // of the return
	}{
		"refused": {publish: func(context.Context, spot.Notification) error { return errors.New("AccessDenied") }, unpublished: 2},
		"hanging": {publish: func(ctx context.Context, _ spot.Notification) error { <-ctx.Done(); return ctx.Err() },
			unpublished: 2, delay: 2 * time.Second},
		"only the first attempts": {publish: func() func(context.Context, spot.Notification) error {
			tried := map[spot.NotificationName]bool{}
			return func(_ context.Context, n spot.Notification) error {
				if !tried[n.Name] {
					tried[n.Name] = true
					return errors.New("throttled")
				}
				return nil
			}
		}()},
	} {
		subtest(t, name, func(w *world) {
			w.bus.publish = c.publish
			w.pod("web-1", exit(5*time.Second))
			out := w.handle(spot.Drained)
			if got := w.termination("web-1").SIGTERM.Sub(w.event); got != want["SIGTERM"] {
				w.Errorf("SIGTERM: got %s, want %s", got, want["SIGTERM"])
			}
			if got := time.Since(w.event); got != want["return"]+c.delay {
				w.Errorf("returned: got %s, want %s", got, want["return"]+c.delay)
			}
			said := slices.DeleteFunc(slices.Clone(out.Problems), func(p string) bool { return !strings.HasPrefix(p, "publishing the event ") })
			if out.Unpublished != c.unpublished || len(said) != c.unpublished || w.bus.attempts != 4 {
				w.Errorf("got %d unpublished after %d attempts, problems %q; want %d after 4", out.Unpublished, w.bus.attempts, out.Problems, c.unpublished)
			}
		})
	}
	subtest(t, "at the end of the invocation", func(w *world) {
		w.bus.publish = func(ctx context.Context, _ spot.Notification) error { <-ctx.Done(); return ctx.Err() }
		w.pod("web-1", exit(time.Hour))
		w.cluster.Disturb(spottest.Disturbance{Verb: "create", Resource: "events", Delay: time.Hour})
		ctx := w.timeout(20 * time.Second)
		out := w.handleIn(ctx, w.warning(spot.SpotTerminate), spot.Incomplete)
		if ctx.Err() != nil || out.Unpublished != 2 {
			w.Errorf("got %v, %s; want the outcome before the invocation ends", ctx.Err(), toJSON(out))
		}
	})
}

// TestNotificationText checks what people read.
func TestNotificationText(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Force = spot.ForceNever
		w.budget("db", 5)
		for i := range 5 {
			w.pod(fmt.Sprintf("db-%d", i), notRecreated)
		}
		w.pod("web-1")
		w.handle(spot.Incomplete)
		deadline := w.event.Add(2 * time.Minute).UTC().Format("15:04:05 UTC")
		started, finished := w.bus.received[0], w.bus.received[1]
		const facts = " (m5.large, us-east-1a, " + group + ")"
		if want := "Node " + instance + " of " + cluster + ": EC2 terminates the Spot instance at " + deadline + facts; started.Summary != want {
			w.Errorf("started: got %q, want %q", started.Summary, want)
		}
		lines := strings.Split(finished.Text, "\n")
		for i, want := range []string{
			"Node " + instance + " of " + cluster + ": incomplete: 5 pods still running" + facts,
			"Pods: 5 still running, 1 evicted",
			"Still running: default/db-0, default/db-1, default/db-2, and 2 more",
			"Times: cordoned after 0.0 s, last eviction after 0.0 s",
			"Replacement: requested from group " + group,
		} {
			if i >= len(lines) || lines[i] != want {
				w.Errorf("line %d: got %q, want %q", i, lines, want)
			}
		}
		if finished.Summary != lines[0] || len(lines) > 10 || finished.Outcome == nil || finished.PodCounts[spot.PodStillRunning] != 5 {
			w.Errorf("got %+v", finished)
		}
	})
}
