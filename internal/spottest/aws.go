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

// AWS is the EC2 instances and Auto Scaling groups of one account in one region. Methods with a context are AWS API
// calls and return the errors that AWS returns (*AWSError); the other methods set up and inspect the account. It is
// safe for concurrent use.
//
// It follows the AWS documentation. Where that is silent, error texts are as users reported them, and assumptions are
// marked "unverified".
type AWS struct {
	region string

	mu        sync.Mutex
	instances map[string]*Instance
	groups    map[string]*Group
	faults    []*plannedFault
	latency   map[string]time.Duration // by operation; AnyOperation is added to each
	calls     []AWSCall
	launched  func(Instance)
	serial    int // number of instances so far
	firstID   int // offset of generated IDs

	times    InstanceTimes
	retries  map[string]*launchRetry  // of failed launches, by group
	actions  map[string]*activeAction // active lifecycle actions, by token
	actionNo int                      // number of lifecycle actions so far
}

// NewAWS returns an empty account.
func NewAWS(region string) *AWS {
	return &AWS{
		region:    region,
		instances: map[string]*Instance{},
		groups:    map[string]*Group{},
		latency:   map[string]time.Duration{},
		times:     InstanceTimes{Start: 10 * time.Second, ShutDown: 20 * time.Second},
		retries:   map[string]*launchRetry{},
		actions:   map[string]*activeAction{},
	}
}

// CountIDsFrom makes generated IDs start at n, so that instances of two accounts can have nodes in one cluster.
func (a *AWS) CountIDsFrom(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.firstID = n
}

// Region returns the region of the account.
func (a *AWS) Region() string { return a.region }

// AWSCall is a logged call.
type AWSCall struct {
	Operation string // as AWS spells it, e.g. DetachInstances
	Group     string
	Hook      string   // of a lifecycle action
	IDs       []string // instances
	Keys      []string // of tags, sorted
	Time      time.Time
	Err       error // nil, an *AWSError or the context error
}

// Calls returns the calls of these operations, or all calls, in the order of their responses.
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

// call makes one call: it waits for the latency, then applies the next planned fault or the effect (with the lock
// held), and logs the call.
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
	err := effect()
	switch {
	case planned:
		return fault.says(op)
	case err != nil:
		return err
	}
	return nil
}

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

// OnLaunch registers f to be called, in its own goroutine, with every instance that a group has launched.
func (a *AWS) OnLaunch(f func(Instance)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.launched = f
}

// awsSorted returns the values of m in key order.
func awsSorted[K cmp.Ordered, V any](m map[K]V) []V {
	var vs []V
	for _, k := range slices.Sorted(maps.Keys(m)) {
		vs = append(vs, m[k])
	}
	return vs
}

func awsRequire(ok bool, format string, args ...any) {
	if !ok {
		panic("spottest: " + fmt.Sprintf(format, args...))
	}
}
