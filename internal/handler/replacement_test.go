package handler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestDetachIsTriedAgain beside the drain, which it neither waits for nor holds up.
func TestDetachIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]spottest.Fault{"contention": spottest.Contention(), "throttled": spottest.Throttled(), "broken": spottest.Broken()} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pod("web-1")
				w.aws.Fail("DetachInstances", 8, fault)
				out := w.handle(spot.Drained)
				if out.Replacement.Action != spot.ReplaceDetach || *out.Timings.Empty > 5 {
					t.Errorf("%s", told(out))
				}
			})
		})
	}
}

// TestDetachRefusedForGood: the tags stay, and do not keep the next try from detaching the instance.
func TestDetachRefusedForGood(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("DetachInstances", 1, spottest.Denied())
		out := w.handle(spot.Drained)
		if out.Replacement.Action != spot.ReplaceNone || !strings.Contains(out.Replacement.Reason, "refused") {
			t.Errorf("%+v", out.Replacement)
		}
		if inst, _ := w.aws.Instance(instance); inst.Tags[spot.TagDetached] != group || inst.Tags[spot.TagInterruptedAt] == "" {
			t.Errorf("its tags are %v", inst.Tags)
		}
		if again := w.handle(spot.Drained); again.Replacement.Action != spot.ReplaceDetach {
			t.Errorf("the next try: %+v", again.Replacement)
		}
	})
}

func TestTaggingRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("CreateTags", -1, spottest.Denied())
		out := w.handle(spot.Drained)
		if out.Replacement.Action != spot.ReplaceNone || len(w.aws.Calls("DetachInstances")) != 0 {
			t.Errorf("an instance that kOps could not find again was detached: %+v", out.Replacement)
		}
	})
}

// TestCrashBetweenTagAndDetach: the tag proves nothing.
func TestCrashBetweenTagAndDetach(t *testing.T) {
	inWorld(t, func(w *world) {
		if err := w.aws.CreateTags(t.Context(), []string{instance}, map[string]string{spot.TagDetached: group}); err != nil {
			t.Fatal(err)
		}
		if out := w.handle(spot.Drained); out.Replacement.Action != spot.ReplaceDetach {
			t.Errorf("%+v", out.Replacement)
		}
	})
}

// TestDetachAnswerLost: the second try is told that the instance is no member; it is on its way out, so it was the
// first that did it.
func TestDetachAnswerLost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("DetachInstances", 1, spottest.AnswerLost())
		out := w.handle(spot.Drained)
		if out.Replacement.Action != spot.ReplaceAlready {
			t.Errorf("%+v", out.Replacement)
		}
	})
}

// TestReplacementWaitsForTheNode, whose labels may say that somebody else replaces it; but not for ever.
func TestReplacementWaitsForTheNode(t *testing.T) {
	t.Run("slow", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) { n.Labels = map[string]string{"karpenter.sh/nodepool": "spot"} })
			w.cluster.Disturb(spottest.Disturbance{Delay: 2 * time.Second})
			if out := w.handle(spot.Drained); out.Replacement.Action != spot.ReplacePending {
				t.Errorf("%+v", out.Replacement)
			}
		})
	})
	t.Run("silent", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.cluster.Disturb(spottest.Disturbance{Delay: time.Hour})
			if out := w.handle(spot.Incomplete); out.Replacement.Action != spot.ReplaceDetach || *out.Replacement.At > 5 {
				t.Errorf("%+v", out.Replacement)
			}
		})
	})
}

// TestMembershipThatLags: somebody else has just detached the instance, and Auto Scaling describes it as it was.
func TestMembershipThatLags(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Cloud = &laggingCloud{Cloud: w.aws.Cloud()}
		out := w.handle(spot.Drained)
		if out.Replacement.Action != spot.ReplaceAlready {
			t.Errorf("%+v", out.Replacement)
		}
	})
}

// laggingCloud is one in which somebody else detaches the instance just before us, which shows two seconds later.
type laggingCloud struct {
	spot.Cloud
	was      spot.Membership
	detached time.Time
}

func (c *laggingCloud) Membership(ctx context.Context, id string) (spot.Membership, error) {
	m, err := c.Cloud.Membership(ctx, id)
	if !c.detached.IsZero() && time.Since(c.detached) < 2*time.Second {
		return c.was, nil
	}
	if err == nil {
		c.was = m
	}
	return m, err
}

func (c *laggingCloud) Detach(ctx context.Context, id, group string) error {
	if err := c.Cloud.Detach(ctx, id, group); err != nil {
		return err
	}
	c.detached = time.Now()
	return spot.Permanent(errors.New("the instance is not part of the group"))
}

func TestDetachOutOfTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Fail("DetachInstances", -1, spottest.Contention())
		out := w.handle(spot.Drained)
		if out.Replacement.Action != spot.ReplaceNone {
			t.Errorf("%+v: the next invocation may still detach it", out.Replacement)
		}
		if d := time.Since(w.event); d < 110*time.Second || d > 121*time.Second {
			t.Errorf("it gave up after %s", d)
		}
	})
}

func TestFiftyInstancesOfOneGroup(t *testing.T) {
	inWorld(t, func(w *world) {
		w.aws.Delay("DetachInstances", 200*time.Millisecond)
		w.aws.Fail("DetachInstances", 200, spottest.Contention())
		var members []spottest.Instance
		for i := range 50 {
			id := "i-0" + strings.Repeat("d", 14) + string(rune('0'+i/10)) + string(rune('0'+i%10))
			members = append(members, spottest.Instance{ID: id})
			w.cluster.AddNode(node(id))
		}
		many := "spot." + cluster
		w.aws.AddGroup(spottest.Group{Name: many, Desired: 50, Max: 50, Tags: map[string]string{spot.TagCluster: cluster}}, members...)
		done := make(chan spot.ReplaceAction)
		for _, m := range members {
			in := w.warning(spot.SpotTerminate)
			in.Instance, in.EventID = m.ID, m.ID
			go func() { done <- w.handleEvent(in, spot.Drained).Replacement.Action }()
		}
		for range members {
			if a := <-done; a != spot.ReplaceDetach {
				t.Errorf("one was not detached: %s", a)
			}
		}
	})
}
