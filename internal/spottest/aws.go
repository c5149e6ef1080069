package spottest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// AWS is an account's EC2 instances and Auto Scaling groups in one region. Its methods with a context are the calls of
// the AWS APIs, and answer as those do, errors included (*AWSError); the others set it up and look at it. It is safe
// for concurrent use.
//
// The contract is AWS's documentation. Where that is silent, error texts are those that users have reported, and what
// is nobody's word is marked "unverified" in a comment.
type AWS struct {
	region string

	mu        sync.Mutex
	instances map[string]*Instance
	groups    map[string]*Group
	faults    []*plannedFault
	latency   map[string]time.Duration // by operation; AnyOperation is added to each
	calls     []AWSCall
	launched  func(Instance)
	serial    int // of instances made so far
	firstID   int // of the ids that are made up

	times      InstanceTimes
	activities []*Activity             // in the order in which they began
	retries    map[string]*launchRetry // of launches that failed, by group
	actions    map[string]*heldByHook  // lifecycle actions that go on, by token
	actionNo   int                     // of lifecycle actions made so far
}

// NewAWS is an empty account.
func NewAWS(region string) *AWS {
	return &AWS{
		region:    region,
		instances: map[string]*Instance{},
		groups:    map[string]*Group{},
		latency:   map[string]time.Duration{},
		times:     InstanceTimes{Start: 10 * time.Second, ShutDown: 20 * time.Second},
		retries:   map[string]*launchRetry{},
		actions:   map[string]*heldByHook{},
	}
}

// CountIDsFrom has the ids that are made up count from n on, so that instances of two accounts may have nodes in one
// cluster.
func (a *AWS) CountIDsFrom(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.firstID = n
}

// Region is the region of the account.
func (a *AWS) Region() string { return a.region }

// AWSCall is one call that was made, in the order in which they were answered.
type AWSCall struct {
	Operation string // as AWS spells it, e.g. DetachInstances
	Group     string
	Hook      string   // of a lifecycle action
	IDs       []string // instances
	Keys      []string // of tags, sorted
	Time      time.Time
	Err       error // what came back: nil, an *AWSError, or the error of a context that ended
}

// Calls is the log of calls of these operations, or of all if none is named.
func (a *AWS) Calls(operations ...string) []AWSCall {
	for _, op := range operations {
		mustKnow(op)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []AWSCall
	for _, c := range a.calls {
		if len(operations) == 0 || slices.Contains(operations, c.Operation) {
			found = append(found, c)
		}
	}
	return found
}

// call runs one call: the latency, then the fault that is planned for it or, under the lock, its effect; and the log.
func (a *AWS) call(ctx context.Context, c AWSCall, effect func() *AWSError) error {
	c.Time = time.Now()
	c.IDs = slices.Clone(c.IDs)
	a.mu.Lock()
	wait := a.latency[AnyOperation] + a.latency[c.Operation]
	a.mu.Unlock()

	err := awsSleep(ctx, wait)

	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		err = a.answer(c.Operation, effect)
	}
	c.Err = err
	a.calls = append(a.calls, c)
	return err
}

func (a *AWS) answer(op string, effect func() *AWSError) error {
	fault, planned := a.takeFault(op)
	if planned && !fault.lost {
		return fault.says(op)
	}
	if err := effect(); err != nil {
		return err
	}
	if planned {
		return fault.says(op)
	}
	return nil
}

// awsSleep waits for d, or until ctx ends.
func awsSleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// OnLaunch has f called with every instance that a group launches, once it runs; in a goroutine of its own, so f may
// call the account.
func (a *AWS) OnLaunch(f func(Instance)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.launched = f
}

// awsSorted are the values of m in the order of their keys.
func awsSorted[K cmp.Ordered, V any](m map[K]V) []V {
	var vs []V
	for _, k := range slices.Sorted(maps.Keys(m)) {
		vs = append(vs, m[k])
	}
	return vs
}

func awsMust(ok bool, format string, args ...any) {
	if !ok {
		panic("sim: " + fmt.Sprintf(format, args...))
	}
}
