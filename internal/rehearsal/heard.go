package rehearsal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

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
		none := out.Result == spot.ForeignOne || out.Result == spot.Ignored || out.Result == spot.StaleOne
		if !none && out.Event.ID != eventbridge.MadeUp {
			last = append(last, out)
		}
	}
	return last
}

// Heard reads a function's log. One that there is not yet tells nothing.
func (s *Stage) Heard(ctx context.Context, group string, since time.Time) (h Heard, err error) {
	for _, what := range []string{"outcome", "self-check"} {
		pages := cloudwatchlogs.NewFilterLogEventsPaginator(s.logs, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group,
			FilterPattern: aws.String(`"` + what + `"`), StartTime: aws.Int64(since.UnixMilli())})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			var none *types.ResourceNotFoundException
			switch {
			case errors.As(err, &none):
				return h, nil
			case err != nil:
				return h, fmt.Errorf("reading the log group %s: %w", group, err)
			}
			for _, e := range page.Events {
				h.take(what, e)
			}
		}
	}
	return h, nil
}

// take keeps a line if it is what it was looked for as.
func (h *Heard) take(what string, e types.FilteredLogEvent) {
	var l struct {
		Msg       string
		Time      time.Time
		Outcome   *spot.Outcome
		SelfCheck *struct{ Result, Program string } `json:"self_check"`
	}
	if json.Unmarshal([]byte(aws.ToString(e.Message)), &l) != nil || l.Msg != what {
		return
	}
	if l.Outcome != nil {
		h.Outcomes = append(h.Outcomes, *l.Outcome)
	}
	if l.SelfCheck != nil {
		h.Checked = &Checked{At: l.Time, Result: l.SelfCheck.Result, Program: l.SelfCheck.Program}
	}
}
