package spot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// reportMargin is what an invocation keeps for telling its outcome.
	reportMargin = 5 * time.Second

	// previewLimit bounds the questions of a Preview, which has no deadline of its own to ask until.
	previewLimit = 15 * time.Second

	// expiredLimit bounds the one question that is worth asking about an event whose deadline has passed.
	expiredLimit = 5 * time.Second
)

// Handler handles interruptions of the nodes of one cluster. It keeps nothing between two calls: what it remembers is in
// the node's marks, in the instance's tags and lifecycle state and in the pods' deletion timestamps, so that an event
// that comes twice, or is taken up by another invocation, does no harm.
type Handler struct {
	Cluster Cluster
	Cloud   Cloud
	Policy  Policy

	// Autoscaler is CAST AI's autoscaler; nil if there is none. Policy.Autoscaler says the same.
	Autoscaler Autoscaler

	Log *slog.Logger // one line a step; nil for none
}

// Preview says what Handle would do now, and changes nothing.
func (h *Handler) Preview(ctx context.Context, in Interruption) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, previewLimit)
	defer cancel()
	c := h.open(in)
	switch {
	case in.Replayed:
		return c.end(c.plan()), nil
	case eventRules[in.Kind].after:
		return c.previewCleanUp(ctx)
	case in.Kind == LifecycleTerminate && c.plan().Verdict != Noted:
		if err := c.readHook(ctx); err != nil {
			return Outcome{}, err
		}
	}
	c.ask(ctx, always)
	for _, done := range []<-chan struct{}{c.node.done, c.instance.done, c.membership.done} {
		wait(ctx, done, previewLimit)
	}
	plan := c.plan()
	switch plan.Verdict {
	case Act:
	case Noted:
		return c.left(plan), nil
	default:
		return c.end(plan), nil
	}
	t := c.target()
	if t.Node == nil && !errors.Is(t.NodeErr, ErrNotFound) {
		return Outcome{}, c.failure()
	}
	out := c.end(plan)
	out.Result = Planned
	if t.Node == nil {
		out.Reason = "no node of the instance has registered yet"
		out.Plan = plan.told(c.in, false, nil)
		return out, nil
	}
	if !plan.Drain {
		out.Plan = plan.told(c.in, true, nil)
		return out, nil
	}
	pods, err := h.Cluster.PodsOn(ctx, t.Node.Name)
	if err != nil {
		return Outcome{}, fmt.Errorf("listing the pods of node %s: %w", t.Node.Name, err)
	}
	out.Plan = plan.told(c.in, true, plan.ForPods(pods, c.began))
	return out, nil
}

// Handle carries out the plan for an interruption: it cordons and drains the node and asks for its replacement, side by
// side, and returns when the node is empty, or when the machine or the invocation ends. An error means that nothing was
// done and that another try may help; whatever was done stands in the Outcome.
func (h *Handler) Handle(ctx context.Context, in Interruption) (Outcome, error) {
	if in.Rehearsal && !h.Policy.DrainRehearsals {
		return h.Preview(ctx, in)
	}
	c := h.open(in)
	if in.Replayed {
		return c.end(c.plan()), nil
	}
	if end, ok := ctx.Deadline(); ok {
		c.limit = end.Add(-reportMargin)
		if !c.began.Before(c.limit) {
			return Outcome{}, fmt.Errorf("the invocation ends in %s, and %s of that are kept for telling its outcome: set the function's timeout to 150 s or more", end.Sub(c.began).Round(time.Second), reportMargin)
		}
	}
	switch {
	case eventRules[in.Kind].after:
		return c.cleanUp(ctx)
	case in.Kind == LifecycleTerminate:
		return c.lifecycle(ctx)
	}
	if deadline := c.plan().Deadline; !c.began.Before(deadline) {
		return c.stale(ctx)
	}
	ctx, cancel := context.WithDeadline(ctx, c.plan().Until)
	defer cancel()
	if c.plan().Verdict == Noted {
		return c.note(ctx)
	}
	c.ask(ctx, c.nodeCannotCome)

	following, stopFollowing := context.WithCancel(ctx)
	defer stopFollowing()
	replaced := make(chan ReplacementResult, 1)
	go func() { replaced <- c.replace(ctx, following) }()
	drained := c.drainNode(ctx, nil)
	if drained.Node == "" && !c.mustAct() {
		cancel() // nothing of ours: the other half has nothing to do either
	}
	defer time.AfterFunc(c.Policy.FollowLaunch, stopFollowing).Stop()
	return c.outcome(drained, <-replaced)
}

// stale asks the one question that is worth asking about an event whose deadline has passed.
func (c *call) stale(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, expiredLimit)
	defer cancel()
	c.ask(ctx, always)
	wait(ctx, c.instance.first, expiredLimit)
	return c.end(c.plan()), nil
}

// note finds out what an event hits that the policy is to leave alone, and tells the autoscaler if there is one to tell.
func (c *call) note(ctx context.Context) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, previewLimit)
	defer cancel()
	c.ask(ctx, always)
	for _, done := range []<-chan struct{}{c.node.done, c.instance.done} {
		wait(ctx, done, previewLimit)
	}
	if t := c.target(); t.Node == nil && t.Instance == nil && c.plan().Verdict != Foreign {
		return Outcome{}, c.failure()
	}
	plan := c.plan()
	if plan.Verdict != Noted {
		return c.end(plan), nil
	}
	out := c.left(plan)
	out.told(c.replace(ctx, ctx))
	return out, nil
}

// left is the outcome of an event that the policy leaves alone.
func (c *call) left(plan Plan) Outcome {
	out := c.end(plan)
	out.Result = Skipped
	return out
}

func always() bool { return true }

// call is one call of a handler.
type call struct {
	*Handler
	in    Interruption
	began time.Time
	limit time.Time // the end of the invocation; zero if nothing ends it

	node       *lookup[Node]
	instance   *lookup[Instance]
	membership *lookup[Membership]
	hook       *Hook
	unlisted   bool // all nodes are not to be listed for the one that is looked for
}

func (h *Handler) open(in Interruption) *call {
	c := &call{Handler: h, in: in, began: time.Now(),
		node: newLookup[Node](), instance: newLookup[Instance](), membership: newLookup[Membership]()}
	// EC2's clock and ours may differ: nobody is given more than the whole time.
	c.in.Time = earlier(in.Time, c.began).UTC().Round(0)
	return c
}

func (c *call) log(action, msg string, args ...any) {
	if c.Log != nil {
		c.Log.Info(msg, append([]any{"action", action, "event", c.in.EventID, "instance", c.in.Instance,
			"at", seconds(time.Since(c.in.Time))}, args...)...)
	}
}

// target is what is known by now.
func (c *call) target() (t Target) {
	t.Node, t.NodeErr = c.node.known()
	t.Instance, t.InstanceErr = c.instance.known()
	t.Membership, t.MembershipErr = c.membership.known()
	t.Hook = c.hook
	return t
}

// plan is the decision on what is known by now, as of the beginning of the call: what comes later must not be judged
// by another clock.
func (c *call) plan() Plan { return c.Policy.Plan(c.in, c.target(), c.began, c.limit) }

// mustAct reports whether the interruption is one to act on, as far as is known by now.
func (c *call) mustAct() bool { return c.plan().Verdict == Act }

// ask begins the three lookups, side by side, and returns at once. nodeCannotCome says whether a node that is not there
// is worth waiting for.
func (c *call) ask(ctx context.Context, nodeCannotCome func() bool) {
	go c.instance.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (Instance, error) {
		return c.Cloud.Instance(ctx, c.in.Instance)
	}, always)
	go c.node.run(ctx, backoff{500 * time.Millisecond, time.Second}, c.nodeFinder(), nodeCannotCome)
	if !ruleFor(c.in).detach {
		c.membership.err = errors.New("not asked: the event does not call for a replacement")
		close(c.membership.done)
		return
	}
	go c.membership.run(ctx, backoff{250 * time.Millisecond, 4 * time.Second}, func(ctx context.Context) (Membership, error) {
		return c.Cloud.Membership(ctx, c.in.Instance)
	}, always)
}

// nodeFinder is one round of looking for the instance's node, to be called again for a node that may still register.
//
// The name that is right on most clusters is tried beside the question to EC2; the others need EC2's answer. Listing all
// nodes grows with the cluster, so it is done in the first round only after every name has failed, and rarely after.
func (c *call) nodeFinder() func(context.Context) (Node, error) {
	const listEvery = 10
	round := -1
	return func(ctx context.Context) (Node, error) {
		round++
		n, err := c.Cluster.NodeNamed(ctx, c.in.Instance)
		if err == nil && n.IsInstance(c.in.Instance) {
			return n, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			if inst, _ := c.instance.known(); inst != nil && c.Policy.otherClusterReason(*inst) != "" && round > 2 {
				return n, Permanent(err) // EC2 says that it is none of ours: not worth two minutes
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
		case inst == nil && errors.Is(instErr, ErrNotFound), inst != nil && c.Policy.otherClusterReason(*inst) != "":
			return n, fmt.Errorf("node %s: %w", c.in.Instance, ErrNotFound)
		case inst != nil && err == nil && isAt(n, *inst):
			return n, nil
		case inst != nil:
			for _, name := range inst.NodeNames(c.in.Region)[1:] {
				n, err := c.Cluster.NodeNamed(ctx, name)
				if err == nil && (n.IsInstance(inst.ID) || isAt(n, *inst)) || err != nil && !errors.Is(err, ErrNotFound) {
					return n, err
				}
			}
		}
		if round%listEvery == 0 && !c.unlisted {
			return c.Cluster.NodeOf(ctx, c.in.Instance)
		}
		return n, fmt.Errorf("a node of %s: %w", c.in.Instance, ErrNotFound)
	}
}

// isAt reports whether a node that does not say which instance it is has the instance's address. A node that does say
// so is believed instead: names made of addresses are used again.
func isAt(n Node, i Instance) bool {
	return n.ProviderID == "" && i.PrivateIP != "" && n.InternalIP == i.PrivateIP
}

// nodeCannotCome reports whether there is no use in waiting for a node that is not there: it is not our instance, or no
// machine that could still register.
func (c *call) nodeCannotCome() bool {
	inst, err := c.instance.known()
	if inst == nil {
		return errors.Is(err, ErrNotFound)
	}
	return c.Policy.otherClusterReason(*inst) != "" || inst.State == "terminated"
}

// failure is why neither half of the work could be begun.
func (c *call) failure() error {
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
