package handler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// eventParallelism limits the Kubernetes Events that are sent at once, so that they do not delay other requests.
	eventParallelism = 8

	// eventTimeout limits sending an Event.
	eventTimeout = 3 * time.Second
)

// eventQueue holds Kubernetes Events until flush, so that no eviction waits for them.
type eventQueue struct {
	cluster spot.Cluster
	ctx     context.Context // outlives the plan's deadline
	stop    context.CancelFunc

	mu      sync.Mutex
	held    []spot.KubeEvent
	slots   chan struct{}
	sending sync.WaitGroup
	failed  int
	err     error // the first
}

func newEventQueue(ctx context.Context, cluster spot.Cluster) *eventQueue {
	q := &eventQueue{cluster: cluster, slots: make(chan struct{}, eventParallelism)}
	q.ctx, q.stop = context.WithCancel(context.WithoutCancel(ctx))
	return q
}

func (q *eventQueue) add(e spot.KubeEvent) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = append(q.held, e)
}

// flush starts sending the events and returns at once.
func (q *eventQueue) flush() {
	q.mu.Lock()
	held := q.held
	q.held = nil
	q.mu.Unlock()
	for _, e := range held {
		q.sending.Go(func() {
			q.slots <- struct{}{}
			defer func() { <-q.slots }()
			ctx, cancel := context.WithTimeout(q.ctx, eventTimeout)
			defer cancel()
			if err := q.cluster.Record(ctx, e); err != nil {
				q.mu.Lock()
				defer q.mu.Unlock()
				if q.failed++; q.err == nil {
					q.err = err
				}
			}
		})
	}
}

// close waits for events in flight until ctx ends, and returns what failed; empty if nothing did.
func (q *eventQueue) close(ctx context.Context) (problem string) {
	defer context.AfterFunc(ctx, q.stop)()
	q.sending.Wait()
	q.stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		return ""
	}
	return fmt.Sprintf("%d Kubernetes Events could not be sent: %v", q.failed, q.err)
}

// cordonEvent reports the interruption and the cordon on the node.
func cordonEvent(n spot.Node, in spot.Interruption, plan spot.Plan, cordon error) spot.KubeEvent {
	when := " at " + plan.Deadline.UTC().Format(time.RFC3339)
	switch {
	case plan.EvictOnce:
		when = " now"
	case plan.NoDeadline:
		when = ""
	}
	done := "cordoned"
	if cordon != nil {
		done = "could not be cordoned"
	}
	if plan.Drain {
		done += ", draining"
	}
	return spot.KubeEvent{Node: &n, Warning: true, Reason: eventReason(in),
		Message: fmt.Sprintf("%s%s (event %s): %s", description(in), when, in.EventID, done)}
}

// eventReason returns the reason of a Kubernetes Event.
func eventReason(in spot.Interruption) string {
	switch {
	case in.Rehearsal:
		return "InterruptionRehearsal"
	case in.Kind == spot.SpotTerminate, in.Kind == spot.SpotStop, in.Kind == spot.SpotHibernate:
		return "SpotInterruption"
	}
	return "InstanceInterruption"
}

func description(in spot.Interruption) string {
	if in.Rehearsal {
		return "Rehearsal, the instance keeps running: " + in.Kind.Description()
	}
	return in.Kind.Description()
}

// podEvent reports the eviction on the pod.
func podEvent(p spot.Pod, node string, in spot.Interruption, r spot.EvictionRequest) spot.KubeEvent {
	done := "evicted"
	if r.Delete {
		done = "force-deleted because its eviction was refused,"
	}
	return spot.KubeEvent{Pod: &p, Warning: r.Delete, Reason: eventReason(in),
		Message: fmt.Sprintf("Node %s: %s: %s with a grace period of %s", node, description(in), done, r.GracePeriod)}
}

// drainedEvent reports the end of the drain on the node.
func drainedEvent(n spot.Node, result drainResult) spot.KubeEvent {
	remaining, left := countPods(result.Pods, spot.PodStillRunning), leftToKubelet(result.Pods)
	e := spot.KubeEvent{Node: &n, Warning: true, Reason: "SpotDrainIncomplete"}
	switch {
	case !result.Listed:
		e.Message = "The node's pods could not be listed"
	case remaining > 0:
		e.Message = podCount(remaining) + " still running"
	case left != "":
		e = spot.KubeEvent{Node: &n, Reason: "SpotDrained", Message: "Drained, except for " + left}
	default:
		e = spot.KubeEvent{Node: &n, Reason: "SpotDrained", Message: "Drained"}
	}
	return e
}
