package spot

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// tellAtOnce is how many Kubernetes Events are sent at once: they must not crowd out what matters.
	tellAtOnce = 8

	// tellLimit is how long the end of a call waits for Kubernetes Events that are not sent yet.
	tellLimit = 3 * time.Second
)

// Note is told where operators look first: as a Kubernetes Event on a node or a pod.
type Note struct {
	Node    *Node // what it is about: a node,
	Pod     *Pod  // or a pod
	Warning bool
	Reason  string // in one word, as Kubernetes writes them
	Message string
}

// Teller sends notes.
type Teller interface {
	// Tell sends one. It is tried once: what it tells stands in the outcome too.
	Tell(ctx context.Context, n Note) error
}

// notes are the notes of one call. They are held back until release, so that no eviction waits behind them.
type notes struct {
	teller Teller
	ctx    context.Context // outlives the plan's: the machine's end is no reason not to tell of it
	stop   context.CancelFunc

	mu      sync.Mutex
	held    []Note
	slots   chan struct{}
	sending sync.WaitGroup
	failed  int
	err     error // the first
}

func newNotes(ctx context.Context, t Teller) *notes {
	n := &notes{teller: t, slots: make(chan struct{}, tellAtOnce)}
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	return n
}

func (n *notes) add(note Note) {
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
			ctx, cancel := context.WithTimeout(n.ctx, tellLimit)
			defer cancel()
			if err := n.teller.Tell(ctx, note); err != nil {
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
	defer time.AfterFunc(tellLimit, n.stop).Stop()
	n.sending.Wait()
	n.stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return ""
	}
	return fmt.Sprintf("%d Kubernetes Events could not be sent: %v", n.failed, n.err)
}

// cordonNote tells what is going to happen to a node, and what was done about it.
func cordonNote(n Node, in Interruption, plan Plan, cordon error) Note {
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
	return Note{Node: &n, Warning: true, Reason: noteReason(in), Message: fmt.Sprintf("%s%s (event %s): %s", notice(in), when, in.EventID, done)}
}

// noteReason is the reason of a Kubernetes Event, in one word.
func noteReason(in Interruption) string {
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
		return "a rehearsal, nobody takes the machine: " + in.Kind.Notice()
	}
	return in.Kind.Notice()
}

// podNote tells why a pod ends.
func podNote(p Pod, node string, in Interruption, ask Ask) Note {
	n := Note{Pod: &p, Reason: noteReason(in), Message: fmt.Sprintf("of its node %s, %s: evicted with %s to end", node, notice(in), ask.Grace)}
	if ask.Delete {
		n.Warning = true
		n.Message = fmt.Sprintf("of its node %s, %s, and the eviction was refused to the last: deleted with %s to end", node, notice(in), ask.Grace)
	}
	return n
}

// endNote tells how a node's drain ended.
func endNote(n Node, told nodeDrain) Note {
	remaining := 0
	for _, p := range told.Pods {
		if p.End == PodRemaining {
			remaining++
		}
	}
	note := Note{Node: &n, Warning: true, Reason: "SpotDrainIncomplete"}
	switch {
	case !told.Listed:
		note.Message = "its pods could not be listed"
	case remaining > 0:
		note.Message = "still there at the end: " + podCount(remaining)
	default:
		note = Note{Node: &n, Reason: "SpotDrained", Message: "every pod that had to leave has left"}
	}
	return note
}
