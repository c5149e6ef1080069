package handler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// target returns what is known so far.
func (c *invocation) target() (t spot.Target) {
	t.Node, t.NodeErr = c.node.known()
	t.Instance, t.InstanceErr = c.instance.known()
	t.Membership, t.MembershipErr = c.membership.known()
	t.Hook = c.hook
	return t
}

// startLookups starts the lookups. nodeAbsent reports whether waiting for a missing node is pointless.
func (c *invocation) startLookups(ctx context.Context, nodeAbsent func() bool) {
	misses := 0
	go c.instance.run(ctx, toAWS, func(ctx context.Context) (spot.Instance, error) {
		return c.Cloud.Instance(ctx, c.in.Instance)
	}, func() bool { misses++; return misses > 1 }) // EC2 may not know a new instance yet
	go c.node.run(ctx, toCluster, c.nodeFinder(true), nodeAbsent)
	go c.lookUpMembership(ctx)
}

// lookUpMembership reads the Auto Scaling group of an instance of this cluster. It waits while the instance joins its
// group: only a member can be detached.
func (c *invocation) lookUpMembership(ctx context.Context) {
	select {
	case <-c.instance.done:
	case <-ctx.Done():
	}
	inst, err := c.instance.known()
	switch {
	case !c.in.AllowsDetach():
		c.membership.giveUp(errors.New("not read: the event does not call for a replacement"))
	case inst == nil:
		c.membership.giveUp(err)
	case c.Policy.OtherClusterReason(*inst) != "":
		c.membership.giveUp(errors.New("not read: the instance is not of this cluster"))
	default:
		c.membership.run(ctx, toAWS, func(ctx context.Context) (spot.Membership, error) {
			m, err := c.Cloud.Membership(ctx, c.in.Instance)
			if err == nil && m.IsJoining() {
				c.membership.store(m)
				return m, errUncertain
			}
			return m, err
		}, always)
	}
}

func always() bool { return true }

// nodeFinder returns a function that searches for the instance's node. Call it again for a node that may still
// register.
//
// Most nodes are named after the instance, so that name is tried while EC2 is asked. The other names need EC2's
// response. The cost of listing all nodes grows with the cluster, and fifty nodes may be interrupted at once. So nodes
// are listed only if EC2 says that the instance is ours and no name matches, or once if EC2 does not respond.
func (c *invocation) nodeFinder(mayList bool) func(context.Context) (spot.Node, error) {
	const listEvery = 10
	listAt := c.began.Add(10*time.Second + rand.N(20*time.Second)) // without a response from EC2
	named := 0
	return func(ctx context.Context) (spot.Node, error) {
		n, err := c.Cluster.NodeNamed(ctx, c.in.Instance)
		if err == nil && n.IsInstance(c.in.Instance) {
			return n, nil
		}
		if err != nil && !errors.Is(err, spot.ErrNotFound) {
			if c.notOurs() {
				return n, fmt.Errorf("%w: %w", spot.ErrNotFound, err) // not worth two minutes
			}
			return n, err
		}
		select {
		case <-c.instance.first:
		case <-ctx.Done():
			return n, errNoResponse
		}
		absent := fmt.Errorf("node of %s: %w", c.in.Instance, spot.ErrNotFound)
		inst, _ := c.instance.known()
		switch {
		case c.notOurs():
			return n, absent
		case inst == nil && mayList && !time.Now().Before(listAt):
			mayList = false
			return c.Cluster.NodeOf(ctx, c.in.Instance)
		case inst == nil:
			return n, absent
		case err == nil && hasAddressOf(n, *inst):
			return n, nil
		}
		for _, name := range inst.NodeNames(c.in.Region)[1:] {
			n, err := c.Cluster.NodeNamed(ctx, name)
			if err == nil && (n.IsInstance(inst.ID) || hasAddressOf(n, *inst)) ||
				err != nil && !errors.Is(err, spot.ErrNotFound) {
				return n, err
			}
		}
		if named++; named%listEvery == 1 && mayList {
			return c.Cluster.NodeOf(ctx, c.in.Instance)
		}
		return n, absent
	}
}

// notOurs reports whether the instance is certainly not one of this cluster, or unknown to EC2.
func (c *invocation) notOurs() bool {
	inst, err := c.instance.known()
	if inst != nil {
		return c.Policy.OtherClusterReason(*inst) != ""
	}
	select {
	case <-c.instance.done:
		return errors.Is(err, spot.ErrNotFound)
	default:
		return false
	}
}

// hasAddressOf reports whether a node without a provider ID has the instance's address. A provider ID takes precedence,
// because addresses are reused.
func hasAddressOf(n spot.Node, i spot.Instance) bool {
	return n.ProviderID == "" && i.PrivateIP != "" && n.InternalIP == i.PrivateIP
}

// nodeCannotRegister reports whether no node can register for the instance any more.
func (c *invocation) nodeCannotRegister() bool {
	inst, _ := c.instance.known()
	return c.notOurs() || inst != nil && inst.State == spot.StateTerminated
}

// failure returns why the node and the instance could not be found.
func (c *invocation) failure() error {
	var errs []error
	t := c.target()
	if t.Node == nil {
		errs = append(errs, fmt.Errorf("finding the node of %s: %w", c.in.Instance, t.NodeErr))
	}
	if t.Instance == nil {
		errs = append(errs, fmt.Errorf("reading instance %s from EC2: %w", c.in.Instance, t.InstanceErr))
	}
	return errors.Join(errs...)
}

// lookup is a read that is retried until it succeeds.
type lookup[T any] struct {
	first chan struct{} // closed after the first attempt
	done  chan struct{} // closed after the last attempt

	mu    sync.Mutex
	value *T
	err   error
}

func newLookup[T any]() *lookup[T] {
	return &lookup[T]{first: make(chan struct{}), done: make(chan struct{}), err: errNoResponse}
}

// run calls read until it succeeds or ctx ends. absent reports whether ErrNotFound is final.
func (l *lookup[T]) run(ctx context.Context, b backoff, read func(context.Context) (T, error), absent func() bool) {
	defer close(l.done)
	var once sync.Once
	defer once.Do(func() { close(l.first) })
	try := func(ctx context.Context) error {
		v, err := read(ctx)
		cutOff := ctx.Err() != nil // then err is about ctx, and an earlier error says more
		l.mu.Lock()
		switch {
		case err == nil:
			l.value, l.err = &v, nil
		case !cutOff || errors.Is(l.err, errNoResponse):
			l.err = err
		}
		l.mu.Unlock()
		once.Do(func() { close(l.first) })
		if errors.Is(err, spot.ErrNotFound) && !absent() {
			return errNotYet
		}
		return err
	}
	_ = b.persist(ctx, try) // the result is in l
}

var (
	errNotYet     = errors.New("not there yet") // ErrNotFound that may change
	errNoResponse = errors.New("no response in time")
	errUncertain  = errors.New("the state may still change")
)

// giveUp ends a lookup that makes no read.
func (l *lookup[T]) giveUp(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	close(l.first)
	close(l.done)
}

// store sets a value that may still change.
func (l *lookup[T]) store(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.err = &v, nil
}

// known returns the value so far, or nil and why there is none.
func (l *lookup[T]) known() (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.err
}

// waitForInstance reads the instance until certain accepts its state, it belongs to another cluster, or EC2 does not
// know it. It returns an error if ctx ends before that.
func (c *invocation) waitForInstance(ctx context.Context, certain func(spot.Instance) bool) error {
	c.instance.run(ctx, toAWS, func(ctx context.Context) (spot.Instance, error) {
		i, err := c.Cloud.Instance(ctx, c.in.Instance)
		if err == nil && !certain(i) && c.Policy.OtherClusterReason(i) == "" {
			c.instance.store(i)
			return i, errUncertain
		}
		return i, err
	}, always)
	switch i, err := c.instance.known(); {
	case i == nil && !errors.Is(err, spot.ErrNotFound):
		return c.failure()
	case i != nil && !certain(*i) && c.Policy.OtherClusterReason(*i) == "":
		return fmt.Errorf("the instance is %s although the event says %s: %w", i.State, c.in.State, errUncertain)
	}
	return nil
}

// findNode searches for the node. mayList allows listing all nodes.
func (c *invocation) findNode(ctx context.Context, mayList bool) error {
	c.node.run(ctx, toCluster, c.nodeFinder(mayList), always)
	if _, err := c.node.known(); err != nil && !errors.Is(err, spot.ErrNotFound) {
		return c.failure()
	}
	return nil
}
