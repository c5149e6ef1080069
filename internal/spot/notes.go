package spot

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// eventParallelism is how many Kubernetes Events are sent at once: they must not crowd out what matters.
	eventParallelism = 8

	// eventTimeout is how long the end of a call waits for Kubernetes Events that are not sent yet.
	eventTimeout = 3 * time.Second
)

// Note is told where operators look first: as a Kubernetes Event on a node or a pod.
type KubeEvent struct {
	Node    *Node // what it is about: a node,
	Pod     *Pod  // or a pod
	Warning bool
	Reason  string // in one word, as Kubernetes writes them
	Message string
}

// EventRecorder sends notes.
type EventRecorder interface {
	// Record sends one. It is tried once: what it tells stands in the outcome too.
	Record(ctx context.Context, n KubeEvent) error
}

// notes are the notes of one call. They are held back until release, so that no eviction waits behind them.
type notes struct {
	teller EventRecorder
	ctx    context.Context // outlives the plan's: the machine's end is no reason not to tell of it
	stop   context.CancelFunc

	mu      sync.Mutex
	held    []KubeEvent
	slots   chan struct{}
	sending sync.WaitGroup
	failed  int
	err     error // the first
}

func newEventQueue(ctx context.Context, t EventRecorder) *notes {
	n := &notes{teller: t, slots: make(chan struct{}, eventParallelism)}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	return n
}

func (n *notes) add(note KubeEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = append(n.held, note)
}

// release sends what is held, and returns at once.
func (n *notes) release() {
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
func (n *notes) end() (problem string) {
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
func cordonEvent(n Node, in Interruption, plan Plan, cordon error) KubeEvent {
	when := " at " + plan.Deadline.UTC().Format(time.RFC3339)
	switch {
	case plan.once:
		when = " now"
	case plan.open:
		when = ""
	}
	done := "cordoned"
	if cordon != nil {
		done = "could not be cordoned"
	}
	if plan.Drain {
		done += ", and its pods are asked to leave"
	}
	return KubeEvent{Node: &n, Warning: true, Reason: eventReason(in), Message: fmt.Sprintf("%s%s (event %s): %s", notice(in), when, in.EventID, done)}
}

// eventReason is the reason of a Kubernetes Event, in one word.
func eventReason(in Interruption) string {
	switch {
	case in.Rehearsal:
		return "InterruptionRehearsal"
	case in.Kind == SpotTerminate, in.Kind == SpotStop, in.Kind == SpotHibernate:
		return "SpotInterruption"
	}
	return "InstanceInterruption"
}

// notice is the event in words.
func notice(in Interruption) string {
	if in.Rehearsal {
		return "a rehearsal, nobody takes the machine: " + in.Kind.Description()
	}
	return in.Kind.Description()
}

// podEvent tells why a pod ends.
func podEvent(p Pod, node string, in Interruption, ask EvictionRequest) KubeEvent {
	n := KubeEvent{Pod: &p, Reason: eventReason(in), Message: fmt.Sprintf("of its node %s, %s: evicted with %s to end", node, notice(in), ask.GracePeriod)}
	if ask.Delete {
		n.Warning = true
		n.Message = fmt.Sprintf("of its node %s, %s, and the eviction was refused to the last: deleted with %s to end", node, notice(in), ask.GracePeriod)
	}
	return n
}

// drainedEvent tells how a node's drain ended.
func drainedEvent(n Node, told drainResult) KubeEvent {
	remaining := 0
	for _, p := range told.Pods {
		if p.Status == PodStillRunning {
			remaining++
		}
	}
	note := KubeEvent{Node: &n, Warning: true, Reason: "SpotDrainIncomplete"}
	switch {
	case !told.Listed:
		note.Message = "its pods could not be listed"
	case remaining > 0:
		note.Message = "still there at the end: " + podCount(remaining)
	default:
		note = KubeEvent{Node: &n, Reason: "SpotDrained", Message: "every pod that had to leave has left"}
	}
	return note
}
