package handler_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// autoscaler is a fake spot.Autoscaler.
type autoscaler struct {
	errs   []error // of the next calls
	events []string
}

func (a *autoscaler) Notify(_ context.Context, event, nodeID, providerID string) error {
	if len(a.errs) > 0 {
		err := a.errs[0]
		a.errs = a.errs[1:]
		return err
	}
	a.events = append(a.events, event+" "+nodeID+" "+providerID)
	return nil
}

// withAutoscaler makes CAST AI manage the node. The next calls of the autoscaler return errs.
func (w *world) withAutoscaler(errs ...error) *autoscaler {
	a := &autoscaler{errs: errs}
	w.handler.Autoscaler, w.handler.Policy.HasAutoscaler = a, true
	w.cluster.WriteNode(instance, func(n *spot.Node) {
		n.Labels = map[string]string{"provisioner.cast.ai/node-id": "n1"}
	})
	return a
}

func (w *world) wantEvents(a *autoscaler, want ...string) {
	w.Helper()
	if !slices.Equal(a.events, want) {
		w.Errorf("autoscaler: got events %q, want %q", a.events, want)
	}
}

type throttled struct{ retryAfter time.Duration }

func (t throttled) Error() string             { return "429" }
func (t throttled) RetryAfter() time.Duration { return t.retryAfter }

func TestAutoscaler(t *testing.T) {
	const provider = "aws:///us-east-1a/" + instance
	subtest(t, "interrupted", func(w *world) {
		a := w.withAutoscaler(errors.New("500"), errors.New("EOF"))
		w.pod("web-1")
		r := w.wantReplacement(w.handle(spot.Drained), spot.ReplaceNotify)
		if r.At == nil || r.AutoscalerEvent != "interrupted" {
			w.Errorf("got %+v, want event interrupted", r)
		}
		w.wantEvents(a, "interrupted n1 "+provider)
		w.wantWrites(2, 1) // a tag
	})
	subtest(t, "overridden provider ID", func(w *world) {
		a := w.withAutoscaler()
		w.cluster.WriteNode(instance, func(n *spot.Node) {
			n.Annotations = map[string]string{"provisioner.cast.ai/override-provider-id": "other"}
		})
		w.handle(spot.Drained)
		w.wantEvents(a, "interrupted n1 other")
	})
	subtest(t, "rebalance recommendation", func(w *world) {
		a := w.withAutoscaler()
		w.pod("web-1")
		out := w.handleEvent(w.warning(spot.Rebalance), spot.Skipped)
		if got := out.Replacement.AutoscalerEvent; got != "rebalanceRecommendation" {
			w.Errorf("got event %q, want rebalanceRecommendation", got)
		}
		w.wantEvents(a, "rebalanceRecommendation n1 "+provider)
		w.wantWrites(0, 0)
	})
	subtest(t, "refused", func(w *world) {
		const refusal = "404: no such cluster"
		w.withAutoscaler(slices.Repeat([]error{spot.Permanent(errors.New(refusal))}, 100)...)
		if r := w.wantReplacement(w.handle(spot.Drained), spot.ReplaceNone); !strings.Contains(r.Reason, refusal) {
			w.Errorf("got reason %q, want %q", r.Reason, refusal)
		}
	})
	subtest(t, "Retry-After", func(w *world) {
		a := w.withAutoscaler(throttled{10 * time.Second})
		if r := w.handle(spot.Drained).Replacement; r.At == nil || *r.At < 10 {
			w.Errorf("got %+v, want after 10s", r)
		}
		w.wantEvents(a, "interrupted n1 "+provider)
	})
}

// TestNodeClaim checks that the NodeClaim is deleted only if the policy names Karpenter.
func TestNodeClaim(t *testing.T) {
	for _, c := range []struct {
		policy spot.Replacer
		want   spot.ReplaceAction
		claims int
	}{
		{spot.ReplacerKarpenter, spot.ReplaceClaim, 0},
		{spot.ReplacerAuto, spot.ReplacePending, 1},
	} {
		subtest(t, string(c.policy), func(w *world) {
			w.cluster.WriteNode(instance, func(n *spot.Node) {
				n.Labels, n.NodeClaim = map[string]string{"karpenter.sh/nodepool": "spot"}, "spot-x7"
			})
			w.cluster.AddClaim("spot-x7")
			w.handler.Policy.Replace = c.policy
			w.pod("web-1")
			w.wantReplacement(w.handle(spot.Drained), c.want)
			if got := w.cluster.Claims(); len(got) != c.claims {
				w.Errorf("got NodeClaims %v, want %d", got, c.claims)
			}
			w.wantWrites(2, 1) // a tag
		})
	}
}
