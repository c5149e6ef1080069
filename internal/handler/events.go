package handler

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// eventParallelism is how many Kubernetes Events are sent at once: they must not crowd out what matters.
	eventParallelism = 8

	// eventTimeout is how long the end of a call waits for Kubernetes Events that are not sent yet.
	eventTimeout = 3 * time.Second
)

// notes are the notes of one call. They are held back until release, so that no eviction waits behind them.
type eventQueue struct {
	teller spot.EventRecorder
	ctx    context.Context // outlives the plan's: the machine's end is no reason not to tell of it
	stop   context.CancelFunc

	mu      sync.Mutex
	held    []spot.KubeEvent
	slots   chan struct{}
	sending sync.WaitGroup
	failed  int
	err     error // the first
}

func newEventQueue(ctx context.Context, t spot.EventRecorder) *eventQueue {
	n := &eventQueue{teller: t, slots: make(chan struct{}, eventParallelism)}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	return n
}

func (n *eventQueue) add(note spot.KubeEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = append(n.held, note)
}

// release sends what is held, and returns at once.
func (n *eventQueue) flush() {
	n.mu.Lock()
	held := n.held
	n.held = nil
	n.mu.Unlock()
	for _, note := range held {
		n.sending.Go(func() {
			n.slots <- struct{}{}
			defer func() { <-n.slots }()
			ctx, cancel := context.WithTimeout(n.ctx, eventTimeout)
			defer cancel()
			if err := n.teller.Record(ctx, note); err != nil {
				n.mu.Lock()
				defer n.mu.Unlock()
				if n.failed++; n.err == nil {
					n.err = err
				}
			}
		})
	}
}

// end gives what is under way a little more time, and says what could not be told; empty if nothing.
func (n *eventQueue) close() (problem string) {
	defer time.AfterFunc(eventTimeout, n.stop).Stop()
	n.sending.Wait()
	n.stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return ""
	}
	return fmt.Sprintf("%d Kubernetes Events could not be sent: %v", n.failed, n.err)
}

// cordonEvent tells what is going to happen to a node, and what was done about it.
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
		done += ", and its pods are asked to leave"
	}
	return spot.KubeEvent{Node: &n, Warning: true, Reason: eventReason(in), Message: fmt.Sprintf("%s%s (event %s): %s", notice(in), when, in.EventID, done)}
}

// eventReason is the reason of a Kubernetes Event, in one word.
func eventReason(in spot.Interruption) string {
	switch {
	case in.Rehearsal:
		return "InterruptionRehearsal"
	case in.Kind == spot.SpotTerminate, in.Kind == spot.SpotStop, in.Kind == spot.SpotHibernate:
		return "SpotInterruption"
	}
	return "InstanceInterruption"
}

// notice is the event in words.
func notice(in spot.Interruption) string {
	if in.Rehearsal {
		return "a rehearsal, nobody takes the machine: " + in.Kind.Description()
	}
	return in.Kind.Description()
}

// podEvent tells why a pod ends.
func podEvent(p spot.Pod, node string, in spot.Interruption, ask spot.EvictionRequest) spot.KubeEvent {
	n := spot.KubeEvent{Pod: &p, Reason: eventReason(in), Message: fmt.Sprintf("of its node %s, %s: evicted with %s to end", node, notice(in), ask.GracePeriod)}
	if ask.Delete {
		n.Warning = true
		n.Message = fmt.Sprintf("of its node %s, %s, and the eviction was refused to the last: deleted with %s to end", node, notice(in), ask.GracePeriod)
	}
	return n
}

// drainedEvent tells how a node's drain ended.
func drainedEvent(n spot.Node, told drainResult) spot.KubeEvent {
	remaining := 0
	for _, p := range told.Pods {
		if p.Status == spot.PodStillRunning {
			remaining++
		}
	}
	note := spot.KubeEvent{Node: &n, Warning: true, Reason: "SpotDrainIncomplete"}
	switch {
	case !told.Listed:
		note.Message = "its pods could not be listed"
	case remaining > 0:
		note.Message = "still there at the end: " + podCount(remaining)
	default:
		note = spot.KubeEvent{Node: &n, Reason: "SpotDrained", Message: "every pod that had to leave has left"}
	}
	return note
}
