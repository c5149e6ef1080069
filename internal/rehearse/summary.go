package rehearse

import (
	"context"
	"time"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// LogSummary is what the function's log contains for a period.
type LogSummary struct {
	SelfCheck *SelfCheck // the last one; nil if there was none
	Outcomes  []spot.Outcome
}

// SelfCheck is the result of a self-check.
type SelfCheck struct {
	At              time.Time
	Result, Program string
}

// Last returns the last n outcomes, newest first. It skips events that were not for the cluster and those of checks.
func (l LogSummary) Last(n int) []spot.Outcome {
	last := []spot.Outcome{}
	for i := len(l.Outcomes) - 1; i >= 0 && len(last) < n; i-- {
		out := l.Outcomes[i]
		skip := out.Result == spot.OtherCluster || out.Result == spot.Ignored || out.Result == spot.Expired
		if !skip && out.Event.ID != eventbridge.SyntheticEventID {
			last = append(last, out)
		}
	}
	return last
}

// Summarize reads the function's log. A missing log group gives an empty summary.
func (c *Client) Summarize(ctx context.Context, group string, since time.Time) (h LogSummary, err error) {
	for _, what := range []string{"outcome", "self-check"} {
		err := c.read(ctx, group, what, since, func(_ string, l line) {
			switch {
			case l.Msg != what: // a line that only contains the words
			case l.Outcome != nil:
				h.Outcomes = append(h.Outcomes, *l.Outcome)
			case l.SelfCheck != nil:
				h.SelfCheck = &SelfCheck{At: l.Time, Result: l.SelfCheck.Result, Program: l.SelfCheck.Program}
			}
		})
		if err != nil {
			return h, err
		}
	}
	return h, nil
}
