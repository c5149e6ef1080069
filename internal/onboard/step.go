package onboard

import (
	"context"
	"fmt"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// A step is one change, and how it is made.
type step struct {
	change.Change
	calls []iamcloud.Call

	// late says calls that only what was made before tells, instead of calls.
	late func(ctx context.Context, aws *iamcloud.Account) ([]iamcloud.Call, error)

	// part is for what is more than calls: the access key, what is changed in the cluster. It is shown as the step and those
	// after it that have nothing to do of their own.
	part func(ctx context.Context, r *Run) error
}

func create(kind, name, why string, calls ...iamcloud.Call) step {
	return step{Change: change.Change{Verb: change.Create, Kind: kind, Name: name, Why: why}, calls: calls}
}

func update(kind, name, why string, calls ...iamcloud.Call) step {
	return step{Change: change.Change{Verb: change.Update, Kind: kind, Name: name, Why: why}, calls: calls}
}

func remove(kind, name, why string, calls ...iamcloud.Call) step {
	return step{Change: change.Change{Verb: change.Delete, Kind: kind, Name: name, Why: why}, calls: calls}
}

func keep(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Keep, Kind: kind, Name: name, Why: why}}
}

func leave(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Leave, Kind: kind, Name: name, Why: why}}
}

// apply carries the steps out, in their order.
func apply(ctx context.Context, r *Run, steps []step) error {
	for _, s := range steps {
		if err := s.apply(ctx, r); err != nil {
			return fmt.Errorf("%s %s %s: %w", s.Verb, s.Kind, s.Name, err)
		}
	}
	return nil
}

func (s step) apply(ctx context.Context, r *Run) error {
	if s.part != nil {
		return s.part(ctx, r)
	}
	calls := s.calls
	if s.late != nil {
		var err error
		if calls, err = s.late(ctx, r.AWS); err != nil {
			return err
		}
	}
	for _, c := range calls {
		if err := r.AWS.Do(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// planOf is the steps as they are shown.
func planOf(steps []step) (plan change.Plan) {
	for _, s := range steps {
		plan = append(plan, s.Change)
	}
	return plan
}
