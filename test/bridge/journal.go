package bridge

import (
	"slices"
	"sync"
)

// Delivery is what became of an event at one target of one rule; of a rule that did not want it, there is one without a
// target. A rule that has only a schedule is not asked.
type Delivery struct {
	EventID   string
	Rule      string // its ARN; empty if there is no such bus
	Target    string // its id
	TargetARN string

	Delivered bool
	Reason    string // why not, or not yet

	Attempts   int
	RequestID  string // of the invocation
	DeadLetter string // ARN of the queue in which the event ended
}

// Deliveries is the journal so far, in the order in which things were first tried.
func (b *Bridge) Deliveries() []Delivery {
	b.journal.mu.Lock()
	defer b.journal.mu.Unlock()
	return slices.Clone(b.journal.entries)
}

type journal struct {
	mu      sync.Mutex
	entries []Delivery
}

// add returns the entry's number, for change.
func (j *journal) add(d Delivery) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, d)
	return len(j.entries) - 1
}

func (j *journal) change(number int, with func(*Delivery)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	with(&j.entries[number])
}
