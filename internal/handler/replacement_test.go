package handler_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

func TestDetachRetries(t *testing.T) {
	for name, fault := range map[string]spottest.Fault{"contention": spottest.Contention(),
		"throttled": spottest.Throttled(), "internal error": spottest.Broken()} {
		subtest(t, name, func(w *world) {
			w.pod("web-1")
			w.aws.Fail("DetachInstances", 4, fault)
			out := w.handle(spot.Drained)
			w.wantReplacement(out, spot.ReplaceDetach)
			if got := *out.Timings.Empty; got > 5 {
				w.Errorf("got empty after %vs, want at most 5s", got)
			}
		})
	}
}

// TestDetachRefused checks that a retry detaches the instance, although it is tagged.
func TestDetachRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		const reason = "could not be detached"
		w.aws.Fail("DetachInstances", -1, spottest.Denied())
		if r := w.wantReplacement(w.handle(spot.Drained), spot.ReplaceNone); !strings.Contains(r.Reason, reason) {
			w.Errorf("got reason %q, want %q", r.Reason, reason)
		}
		w.aws.Heal()
		if i, _ := w.aws.Instance(instance); i.Tags[spot.TagDetached] != group || i.Tags[spot.TagInterruptedAt] == "" {
			w.Errorf("got tags %v, want those of a detach", i.Tags)
		}
		w.wantReplacement(w.handle(spot.Drained), spot.ReplaceDetach)
	})
}

func TestTaggingRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("CreateTags", -1, spottest.Denied())
		const reason = "could not be tagged"
		if r := w.wantReplacement(w.handle(spot.Drained), spot.ReplaceDetach); !strings.Contains(r.Reason, reason) {
			w.Errorf("got reason %q, want %q", r.Reason, reason)
		}
	})
}

// TestTaggedNotDetached handles an event after an invocation that crashed between the tag and the detach.
func TestTaggedNotDetached(t *testing.T) {
	inWorld(t, func(w *world) {
		tags := map[string]string{spot.TagDetached: group}
		if err := w.aws.CreateTags(w.Context(), []string{instance}, tags); err != nil {
			w.Fatal(err)
		}
		w.wantReplacement(w.handle(spot.Drained), spot.ReplaceDetach)
	})
}

func TestDetachResponseLost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("DetachInstances", 1, spottest.AnswerLost())
		if r := w.wantReplacement(w.handle(spot.Drained), spot.ReplaceDetach); r.At == nil {
			w.Errorf("got %+v, want a time", r)
		}
	})
}

// TestReplacementWaitsForNode checks that the detach waits some seconds for the node's labels.
func TestReplacementWaitsForNode(t *testing.T) {
	subtest(t, "slow", func(w *world) {
		w.cluster.WriteNode(instance, func(n *spot.Node) {
			n.Labels = map[string]string{"karpenter.sh/nodepool": "spot"}
		})
		w.cluster.Disturb(spottest.Disturbance{Delay: 2 * time.Second})
		w.wantReplacement(w.handle(spot.Drained), spot.ReplacePending)
	})
	subtest(t, "no response", func(w *world) {
		w.cluster.Disturb(spottest.Disturbance{Delay: time.Hour})
		if r := w.wantReplacement(w.handle(spot.Incomplete), spot.ReplaceDetach); *r.At > 5 {
			w.Errorf("got detach after %vs, want at most 5s", *r.At)
		}
	})
}

// staleMembership lets somebody else detach the instance just before us, and shows it two seconds later.
type staleMembership struct {
	spot.Cloud
	before   spot.Membership
	detached time.Time
}

func (c *staleMembership) Membership(ctx context.Context, id string) (spot.Membership, error) {
	m, err := c.Cloud.Membership(ctx, id)
	if !c.detached.IsZero() && time.Since(c.detached) < 2*time.Second {
		return c.before, nil
	}
	if err == nil {
		c.before = m
	}
	return m, err
}

func (c *staleMembership) Detach(ctx context.Context, id, group string) error {
	if err := c.Cloud.Detach(ctx, id, group); err != nil {
		return err
	}
	c.detached = time.Now()
	return spot.Permanent(errors.New("the instance is not part of the group"))
}

func TestStaleMembership(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cloud = &staleMembership{Cloud: w.aws.Cloud()}
		w.wantReplacement(w.handle(spot.Drained), spot.ReplaceAlready)
	})
}

// TestDetachUntilEmpty checks that a detach is retried for 15 s after the node is empty.
func TestDetachUntilEmpty(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("DetachInstances", -1, spottest.Contention())
		w.wantReplacement(w.handle(spot.Drained), spot.ReplaceNone)
		if got := time.Since(w.event); got < 15*time.Second || got > 19*time.Second {
			w.Errorf("got finished after %s, want 17s", got)
		}
	})
}

func TestFiftyInterruptions(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Delay("DetachInstances", 200*time.Millisecond)
		w.aws.Fail("DetachInstances", 200, spottest.Contention())
		var members []spottest.Instance
		for i := range 50 {
			id := fmt.Sprintf("i-0dddddddddddddd%02d", i)
			members = append(members, spottest.Instance{ID: id})
			w.cluster.AddNode(newNode(id, id))
		}
		w.aws.AddGroup(spottest.Group{Name: "spot." + cluster, Desired: 50, Max: 50,
			Tags: map[string]string{spot.TagCluster: cluster}}, members...)
		done := make(chan spot.Outcome)
		for _, m := range members {
			in := w.warning(spot.SpotTerminate)
			in.Instance, in.EventID = m.ID, m.ID
			go func() { done <- w.handleEvent(in, spot.Drained) }()
		}
		for range members {
			w.wantReplacement(<-done, spot.ReplaceDetach)
		}
	})
}
