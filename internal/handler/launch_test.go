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

// TestTheAnswerToADetachIsFollowed: the new instance, and its node once that registers.
func TestTheAnswerToADetachIsFollowed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.FollowLaunch = 2 * time.Minute
		w.pod("web-1")
		w.aws.OnLaunch(func(i spottest.Instance) {
			time.AfterFunc(30*time.Second, func() { w.cluster.AddNode(node(i.ID)) })
		})
		out := w.handle(spot.Drained)
		r := out.Replacement
		if r.Instance == "" || r.Instance == instance || r.Node != r.Instance || r.LaunchedAt == nil || r.RegisteredAt == nil {
			t.Fatalf("%+v", r)
		}
		w.after("the launch", w.event.Add(time.Duration(float64(*r.LaunchedAt)*1e9)), 0)
		if at := *r.RegisteredAt; at < 50 || at > 54 { // 20 s to launch and 30 s to register
			t.Errorf("the node was seen %v s after the event", at)
		}
		if at := *out.Timings.Empty; at > 10 {
			t.Errorf("the drain waited for the replacement: empty after %v s", at)
		}
	})
}

// TestANodeByItsOtherName is found too.
func TestANewNodeByItsOtherNameIsFound(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.FollowLaunch = 2 * time.Minute
		w.aws.OnLaunch(func(i spottest.Instance) {
			n := node(i.ID)
			n.Name = i.PrivateDNSName
			w.cluster.AddNode(n)
		})
		if r := w.handle(spot.Drained).Replacement; r.Node == "" || r.Node == r.Instance {
			t.Errorf("%+v", r)
		}
	})
}

// TestReportsTheGroupsReason where it cannot launch.
func TestReportsTheGroupsReason(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.FollowLaunch = 2 * time.Minute
		const why = "InsufficientInstanceCapacity - There is no Spot capacity available that matches your request"
		w.aws.SetGroup(group, func(g *spottest.Group) { g.LaunchError = why })
		out := w.handle(spot.Drained)
		if r := out.Replacement; r.Action != spot.ReplaceDetach || r.Instance != "" || !strings.Contains(r.GroupMessage, "InsufficientInstanceCapacity") {
			t.Errorf("%+v", r)
		}
		w.after("the end", w.event.Add(time.Duration(float64(*out.Timings.Finished)*1e9)), 2*time.Minute)
	})
}

// TestTheAnswerIsNotWaitedForLongerThanThePolicySays.
func TestTheAnswerIsNotWaitedForLongerThanThePolicySays(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.FollowLaunch = 10 * time.Second
		w.pod("web-1") // ends after 3 s; two more are watched
		out := w.handle(spot.Drained)
		w.after("the end", w.event.Add(time.Duration(float64(*out.Timings.Finished)*1e9)), 15*time.Second)
	})
}

// TestFollowingIsNoReasonToFail: what cannot be asked is told, and changes nothing else.
func TestFollowingIsNoReasonToFail(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.FollowLaunch = 2 * time.Minute
		w.aws.Fail("DescribeScalingActivities", 100, spottest.Denied())
		out := w.handle(spot.Drained)
		if r := out.Replacement; r.Action != spot.ReplaceDetach || !strings.Contains(r.GroupMessage, "could not be read") {
			t.Errorf("%+v", r)
		}
		if *out.Timings.Finished > 30 {
			t.Errorf("it went on asking until %v s", *out.Timings.Finished)
		}
	})
}

// autoscaler plays CAST AI's.
type autoscaler struct {
	errs []error // of the next calls
	told []string
}

func (a *autoscaler) Notify(_ context.Context, what, nodeID, providerID string) error {
	if len(a.errs) > 0 {
		err := a.errs[0]
		a.errs = a.errs[1:]
		return err
	}
	a.told = append(a.told, what+" "+nodeID+" "+providerID)
	return nil
}

func (w *world) castai(errs ...error) *autoscaler {
	a := &autoscaler{errs: errs}
	w.handler.Autoscaler, w.handler.Policy.HasAutoscaler = a, true
	w.cluster.WriteNode(instance, func(n *spot.Node) { n.Labels = map[string]string{"provisioner.cast.ai/node-id": "n1"} })
	return a
}

func TestNotifiesTheAutoscaler(t *testing.T) {
	const provider = "aws:///us-east-1a/" + instance
	t.Run("and the group is not asked", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a := w.castai(errors.New("500"), errors.New("EOF"))
			w.pod("web-1")
			out := w.handle(spot.Drained)
			if r := out.Replacement; r.Action != spot.ReplaceNotify || r.At == nil || r.AutoscalerEvent != "interrupted" {
				t.Errorf("%+v", r)
			}
			if len(a.told) != 1 || a.told[0] != "interrupted n1 "+provider {
				t.Errorf("it was told %q", a.told)
			}
			w.wrote(2, 0)
		})
	})
	t.Run("by the name that overrides the node's", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a := w.castai()
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Annotations = map[string]string{"provisioner.cast.ai/override-provider-id": "other"}
			})
			w.handle(spot.Drained)
			if len(a.told) != 1 || a.told[0] != "interrupted n1 other" {
				t.Errorf("it was told %q", a.told)
			}
		})
	})
	t.Run("of a recommendation that is left alone", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a := w.castai()
			w.pod("web-1")
			out := w.handleEvent(w.warning(spot.Rebalance), spot.Skipped)
			if len(a.told) != 1 || a.told[0] != "rebalanceRecommendation n1 "+provider || out.Replacement.AutoscalerEvent != "rebalanceRecommendation" {
				t.Errorf("it was told %q: %+v", a.told, out.Replacement)
			}
			w.wrote(0, 0)
		})
	})
	t.Run("and its refusal is", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.castai(spot.Permanent(errors.New("404: no such cluster")))
			if r := w.handle(spot.Drained).Replacement; r.Action != spot.ReplaceNone || !strings.Contains(r.Reason, "no such cluster") {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("when it asks to be told later, later", func(t *testing.T) {
		inWorld(t, func(w *world) {
			a := w.castai(busy{20 * time.Second})
			if r := w.handle(spot.Drained).Replacement; r.At == nil || *r.At < 20 || len(a.told) != 1 {
				t.Errorf("%+v", r)
			}
		})
	})
}

type busy struct{ after time.Duration }

func (b busy) Error() string             { return "429" }
func (b busy) RetryAfter() time.Duration { return b.after }

// TestKarpentersNodeClaim is deleted only where the policy names Karpenter.
func TestKarpentersNodeClaim(t *testing.T) {
	for named, want := range map[bool]spot.ReplaceAction{true: spot.ReplaceClaim, false: spot.ReplacePending} {
		inWorld(t, func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Labels, n.NodeClaim = map[string]string{"karpenter.sh/nodepool": "spot"}, "spot-x7"
			})
			w.cluster.AddClaim("spot-x7")
			if named {
				w.handler.Policy.Replace = spot.ReplacerKarpenter
			}
			w.pod("web-1")
			out := w.handle(spot.Drained)
			if out.Replacement.Action != want || len(w.cluster.Claims()) != map[bool]int{true: 0, false: 1}[named] {
				t.Errorf("named %v: %+v, claims %v", named, out.Replacement, w.cluster.Claims())
			}
			w.wrote(2, 0)
		})
	}
}
