package handler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// target is what is known by now.
func (c *invocation) target() (t spot.Target) {
	t.Node, t.NodeErr = c.node.known()
	t.Instance, t.InstanceErr = c.instance.known()
	t.Membership, t.MembershipErr = c.membership.known()
	t.Hook = c.hook
	return t
}

// ask begins the three lookups, side by side, and returns at once. nodeCannotCome says whether a node that is not there
// is worth waiting for.
func (c *invocation) startLookups(ctx context.Context, nodeCannotCome func() bool) {
	go c.instance.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (spot.Instance, error) {
		return c.Cloud.Instance(ctx, c.in.Instance)
	}, always)
	go c.node.run(ctx, backoff{500 * time.Millisecond, time.Second}, c.nodeFinder(), nodeCannotCome)
	if !c.in.AllowsDetach() {
		c.membership.err = errors.New("not asked: the event does not call for a replacement")
		close(c.membership.done)
		return
	}
	go c.membership.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (spot.Membership, error) {
		return c.Cloud.Membership(ctx, c.in.Instance)
	}, always)
}

// nodeFinder is one round of looking for the instance's node, to be called again for a node that may still register.
//
// The name that is right on most clusters is tried beside the question to EC2; the others need EC2's answer. Listing all
// nodes grows with the cluster, so it is done in the first round only after every name has failed, and rarely after.
func (c *invocation) nodeFinder() func(context.Context) (spot.Node, error) {
	const listEvery = 10
	round := -1
	return func(ctx context.Context) (spot.Node, error) {
		round++
		n, err := c.Cluster.NodeNamed(ctx, c.in.Instance)
		if err == nil && n.IsInstance(c.in.Instance) {
			return n, nil
		}
		if err != nil && !errors.Is(err, spot.ErrNotFound) {
			if inst, _ := c.instance.known(); inst != nil && c.Policy.OtherClusterReason(*inst) != "" && round > 2 {
				return n, spot.Permanent(err) // EC2 says that it is none of ours: not worth two minutes
			}
			return n, err
		}
		select {
		case <-c.instance.first:
		case <-ctx.Done():
			return n, errUnasked
		}
		inst, instErr := c.instance.known()
		switch {
		case inst == nil && errors.Is(instErr, spot.ErrNotFound), inst != nil && c.Policy.OtherClusterReason(*inst) != "":
			return n, fmt.Errorf("node %s: %w", c.in.Instance, spot.ErrNotFound)
		case inst != nil && err == nil && isAt(n, *inst):
			return n, nil
		case inst != nil:
			for _, name := range inst.NodeNames(c.in.Region)[1:] {
				n, err := c.Cluster.NodeNamed(ctx, name)
				if err == nil && (n.IsInstance(inst.ID) || isAt(n, *inst)) || err != nil && !errors.Is(err, spot.ErrNotFound) {
					return n, err
				}
			}
		}
		if round%listEvery == 0 && !c.unlisted {
			return c.Cluster.NodeOf(ctx, c.in.Instance)
		}
		return n, fmt.Errorf("a node of %s: %w", c.in.Instance, spot.ErrNotFound)
	}
}

// isAt reports whether a node that does not say which instance it is has the instance's address. A node that does say
// so is believed instead: names made of addresses are used again.
func isAt(n spot.Node, i spot.Instance) bool {
	return n.ProviderID == "" && i.PrivateIP != "" && n.InternalIP == i.PrivateIP
}

// nodeCannotCome reports whether there is no use in waiting for a node that is not there: it is not our instance, or no
// machine that could still register.
func (c *invocation) nodeCannotCome() bool {
	inst, err := c.instance.known()
	if inst == nil {
		return errors.Is(err, spot.ErrNotFound)
	}
	return c.Policy.OtherClusterReason(*inst) != "" || inst.State == "terminated"
}

// failure is why neither half of the work could be begun.
func (c *invocation) failure() error {
	t := c.target()
	return errors.Join(
		nilOr(t.Node == nil, "finding the node of %s: %w", c.in.Instance, t.NodeErr),
		nilOr(t.Instance == nil, "asking EC2 for %s: %w", c.in.Instance, t.InstanceErr))
}

func nilOr(is bool, format string, args ...any) error {
	if !is {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// lookup is a question to the world that is asked until it is answered.
type lookup[T any] struct {
	first chan struct{} // closed when the first try has ended, whatever came of it
	done  chan struct{} // closed when it is answered or given up

	mu    sync.Mutex
	value *T
	err   error
}

func newLookup[T any]() *lookup[T] {
	return &lookup[T]{first: make(chan struct{}), done: make(chan struct{}), err: errUnasked}
}

// run asks until there is an answer; absent says whether "there is none" is one.
func (l *lookup[T]) run(ctx context.Context, b backoff, ask func(context.Context) (T, error), absent func() bool) {
	defer close(l.done)
	var once sync.Once
	defer once.Do(func() { close(l.first) })
	try := func(ctx context.Context) error {
		v, err := ask(ctx)
		gaveUp := ctx.Err() != nil // what is said then is about us, not about the world
		l.mu.Lock()
		switch {
		case err == nil:
			l.value, l.err = &v, nil
		case !gaveUp || errors.Is(l.err, errUnasked):
			l.err = err
		}
		l.mu.Unlock()
		once.Do(func() { close(l.first) })
		if errors.Is(err, spot.ErrNotFound) && !absent() {
			return errAbsentYet
		}
		return err
	}
	_ = b.persist(ctx, try) // what came of it is in l
}

// errAbsentYet is ErrNotFound where waiting may change it.
var errAbsentYet = errors.New("not there yet")

var errUnasked = errors.New("there was no answer in time")

// note keeps an answer that may still change.
func (l *lookup[T]) store(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.err = &v, nil
}

// known is the answer so far: a value, or nil and why there is none.
func (l *lookup[T]) known() (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.err
}

// waitForInstance asks EC2 until it says something certain of the instance, for as long as it may go on to describe it as it
// was: that there is none, that it is not ours, or what is certain.
func (c *invocation) waitForInstance(ctx context.Context, certain func(spot.Instance) bool) error {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	c.instance.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (spot.Instance, error) {
		i, err := c.Cloud.Instance(ctx, c.in.Instance)
		if err == nil && !certain(i) && c.Policy.OtherClusterReason(i) == "" {
			c.instance.store(i)
			return i, errUncertain
		}
		return i, err
	}, always)
	t := c.target()
	if t.Instance == nil && !errors.Is(t.InstanceErr, spot.ErrNotFound) {
		return c.failure()
	}
	return nil
}

// errUncertain is an answer that may still change.
var errUncertain = errors.New("on its way to another state")

// findNode looks for the node; listing says whether all nodes may be listed for it.
func (c *invocation) findNode(ctx context.Context, listing bool) error {
	c.unlisted = !listing
	c.node.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, c.nodeFinder(), always)
	if _, err := c.node.known(); err != nil && !errors.Is(err, spot.ErrNotFound) {
		return c.failure()
	}
	return nil
}

// foreign is the outcome where the instance is not ours, as far as EC2 knows it.
func (c *invocation) otherCluster() (spot.Outcome, bool) {
	i, _ := c.instance.known()
	if i == nil {
		return spot.Outcome{}, false
	}
	why := c.Policy.OtherClusterReason(*i)
	if why == "" {
		return spot.Outcome{}, false
	}
	return c.newOutcome(spot.Plan{Verdict: spot.Foreign, Reason: why}), true
}
