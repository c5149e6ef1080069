package handler

import (
	"context"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// startedLimit is how long NotificationStarted waits for the cordon.
	startedLimit = 3 * time.Second

	// publishTimeout limits an attempt to publish a notification, publishAttempts their number.
	publishTimeout  = time.Second
	publishAttempts = 2

	// publishMargin is what the last notification leaves of the invocation.
	publishMargin = 500 * time.Millisecond
)

// publishStarted publishes NotificationStarted when the event is known to be ours and acted on: at the cordon, or after
// startedLimit.
func (c *invocation) publishStarted(ctx context.Context) {
	wait(ctx, c.cordoned, startedLimit)
	instance, node := c.instance.done, c.node.done
	for !c.isActedOn() && (instance != nil || node != nil) {
		select {
		case <-instance:
			instance = nil
		case <-node:
			node = nil
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-c.cordoned:
	default:
		if ctx.Err() != nil {
			return // over: NotificationFinished says more
		}
	}
	if c.started = c.isActedOn(); c.started {
		c.publish(context.WithoutCancel(ctx), c.newOutcome(c.plan(c.target())).Started())
	}
}

// isActedOn reports whether the instance is known to be ours and the plan is to act.
func (c *invocation) isActedOn() bool {
	t := c.target()
	return (t.Node != nil || t.Instance != nil) && c.plan(t).Result == ""
}

// publishFinished publishes NotificationFinished if NotificationStarted was due or the result is notable, and adds what
// could not be published to the outcome.
func (c *invocation) publishFinished(ctx context.Context, out *spot.Outcome) {
	report := func() {
		out.Problems = append(out.Problems, c.unpublished[out.Unpublished:]...)
		out.Unpublished = len(c.unpublished)
	}
	report()
	if !c.started && !out.IsNotable() {
		return
	}
	ctx = context.WithoutCancel(ctx) // a caller that gives up should still be notified
	if !c.limit.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, c.limit.Add(reportMargin-publishMargin))
		defer cancel()
	}
	c.publish(ctx, out.Finished())
	report()
}

// publish makes two attempts, which are short because nobody's work depends on them.
func (c *invocation) publish(ctx context.Context, n spot.Notification) {
	if c.Publisher == nil {
		return
	}
	var err error
	for range publishAttempts {
		attempt, cancel := context.WithTimeout(ctx, publishTimeout)
		err = c.Publisher.Publish(attempt, n)
		cancel()
		if err == nil {
			return
		}
	}
	c.unpublished = append(c.unpublished, fmt.Sprintf("publishing the event %q: %v", n.Name, err))
	c.log("publish-failed", "publishing an event failed", "name", n.Name, "error", err)
}
