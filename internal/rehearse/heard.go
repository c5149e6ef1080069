package rehearse

import (
	"context"
	"time"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// Heard is what a function's log tells of the last while.
type Heard struct {
	Checked  *Checked // the last self-check; nil if there was none
	Outcomes []spot.Outcome
}

// Checked is a self-check.
type Checked struct {
	At              time.Time
	Result, Program string
}

// Last are the last n outcomes of what was the cluster's concern and no check's, the latest first.
func (h Heard) Last(n int) []spot.Outcome {
	last := []spot.Outcome{}
	for i := len(h.Outcomes) - 1; i >= 0 && len(last) < n; i-- {
		out := h.Outcomes[i]
		none := out.Result == spot.OtherCluster || out.Result == spot.Ignored || out.Result == spot.Expired
		if !none && out.Event.ID != eventbridge.MadeUp {
			last = append(last, out)
		}
	}
	return last
}

// Heard reads a function's log. One that there is not yet tells nothing.
func (s *Stage) Heard(ctx context.Context, group string, since time.Time) (h Heard, err error) {
	for _, what := range []string{"outcome", "self-check"} {
		err := s.read(ctx, group, what, since, func(_ string, l line) {
			switch {
			case l.Msg != what: // it only speaks of it
			case l.Outcome != nil:
				h.Outcomes = append(h.Outcomes, *l.Outcome)
			case l.SelfCheck != nil:
				h.Checked = &Checked{At: l.Time, Result: l.SelfCheck.Result, Program: l.SelfCheck.Program}
			}
		})
		if err != nil {
			return h, err
		}
	}
	return h, nil
}
