package onboard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/castai/kops-spot/internal/kubeadmin"
)

// tries is how often a write is made again because somebody else was faster. Nobody writes these objects often.
const tries = 10

// Apply carries the plan out. It may be broken off anywhere, and what is left is done by the next plan. Where the function
// needs a token, that is returned.
func (p MappingPlan) Apply(ctx context.Context, cluster *kubeadmin.Client) (*ServiceAccountToken, error) {
	for _, step := range p.steps {
		if err := step.apply(ctx, cluster); err != nil {
			return nil, err
		}
		if !step.rollout {
			continue
		}
		if err := rolledOut(ctx, cluster, step.ref); err != nil {
			return nil, err
		}
	}
	if !p.NeedsToken {
		return nil, nil
	}
	return readToken(ctx, cluster)
}

// apply makes of the object what it is to be, by what is there now.
func (s mappingStep) apply(ctx context.Context, cluster *kubeadmin.Client) error {
	for try := 1; ; try++ {
		err := s.applyOnce(ctx, cluster)
		if !errors.Is(err, kubeadmin.ErrChanged) || try == tries {
			return err
		}
		if err := pause(ctx, rand.N(time.Duration(try)*50*time.Millisecond)); err != nil {
			return fmt.Errorf("changing %s: %w", s.ref, err)
		}
	}
}

func (s mappingStep) applyOnce(ctx context.Context, cluster *kubeadmin.Client) error {
	now, err := cluster.Get(ctx, s.ref)
	if err != nil && !errors.Is(err, kubeadmin.ErrNotFound) {
		return err
	}
	next, _, err := s.edit.on(now)
	switch {
	case err != nil:
		return err
	case sameObject(now, next):
		return nil
	case now == nil:
		_, err = cluster.Create(ctx, s.ref, next)
	case next == nil:
		return gone(cluster.Delete(ctx, s.ref, now))
	case rebound(now, next):
		if err := gone(cluster.Delete(ctx, s.ref, now)); err != nil {
			return err
		}
		return kubeadmin.ErrChanged // and so it is made in the next try
	default:
		_, err = cluster.Update(ctx, s.ref, next)
		if errors.Is(err, kubeadmin.ErrNotFound) {
			return fmt.Errorf("%w: %w", kubeadmin.ErrChanged, err)
		}
	}
	return err
}

// gone is the error of a deletion: what is gone already is as it should be.
func gone(err error) error {
	if errors.Is(err, kubeadmin.ErrNotFound) {
		return nil
	}
	return err
}
