package change

import (
	"context"
	"fmt"
)

// Step is one row of a plan, and the one write that it is, done by whoever can.
type Step[By any] struct {
	Change
	Write func(ctx context.Context, by By) error // nil where the row changes nothing
}

// Apply carries the steps out, in their order. An error names the row that could not be carried out.
func Apply[By any](ctx context.Context, by By, steps []Step[By]) error {
	for _, s := range steps {
		if s.Write == nil {
			continue
		}
		if err := s.Write(ctx, by); err != nil {
			return fmt.Errorf("%s: %w", s.Row(), err)
		}
	}
	return nil
}

// PlanOf is the steps as they are shown.
func PlanOf[By any](steps []Step[By]) (plan Plan) {
	for _, s := range steps {
		plan = append(plan, s.Change)
	}
	return plan
}
