package handler_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

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
