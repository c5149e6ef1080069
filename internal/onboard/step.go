package onboard

import (
	"context"
	"fmt"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// A step is one row of a plan, and the one write that it is.
type step struct {
	change.Change
	write func(ctx context.Context, r *Run) error // nil where the row changes nothing
}

// act is the step of one call.
func act(verb change.Verb, kind, name, why string, c iamcloud.Call) step {
	return step{change.Change{Verb: verb, Kind: kind, Name: name, Why: why},
		func(ctx context.Context, r *Run) error { return r.AWS.Do(ctx, c) }}
}

func keep(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Keep, Kind: kind, Name: name, Why: why}}
}

func leave(kind, name, why string) step {
	return step{Change: change.Change{Verb: change.Leave, Kind: kind, Name: name, Why: why}}
}

// apply carries the steps out, in their order. An error names the row that could not be carried out.
func apply(ctx context.Context, r *Run, steps []step) error {
	for _, s := range steps {
		if s.write == nil {
			continue
		}
		if err := s.write(ctx, r); err != nil {
			return fmt.Errorf("%s: %w", s.Row(), err)
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
