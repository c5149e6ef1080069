package rehearse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/castai/kops-spot/internal/spot"
)

// line is a line of the function's log.
type line struct {
	Level   string        `json:"level"`
	Msg     string        `json:"msg"`
	Event   string        `json:"event"`
	Error   string        `json:"error"`
	At      *spot.Seconds `json:"at"`
	Pod     string        `json:"pod"`
	Outcome *spot.Outcome `json:"outcome"`

	Time      time.Time                         `json:"time"`
	SelfCheck *struct{ Result, Program string } `json:"self_check"`
}

// HasLog reports whether there is a log group, and is an error if it cannot be read.
func (s *Stage) HasLog(ctx context.Context, group string) (bool, error) {
	_, err := s.logs.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String(group), Limit: aws.Int32(1),
		StartTime: aws.Int64(time.Now().UnixMilli())})
	return isThere(group, err)
}

// isThere reports by what came of reading a log group whether there is one.
func isThere(group string, err error) (bool, error) {
	var none *types.ResourceNotFoundException
	switch {
	case errors.As(err, &none):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the log group %s: %w", group, err)
	}
	return true, nil
}

// pause is between two looks.
const pause = 2 * time.Second

// FromLog waits for the rehearsal's outcome in the function's log, which knows its event's id in every line, and calls step
// for each step that the function has told of.
func (s *Stage) FromLog(ctx context.Context, group, id string, since time.Time, step func(what string)) (spot.Outcome, error) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		var lines []line
		err := s.read(ctx, group, id, since, func(key string, l line) {
			if key == "" || !seen[key] {
				lines = append(lines, l)
			}
			seen[key] = true
		})
		if err != nil && ctx.Err() == nil {
			return spot.Outcome{}, err
		}
		for _, l := range lines {
			switch {
			case l.Outcome != nil && l.Outcome.Event.ID == id:
				return *l.Outcome, nil
			case l.Event == id && l.Level == "ERROR":
				return spot.Outcome{}, errors.New("the function did nothing: " + l.Error)
			case l.Event == id:
				step(l.String())
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return spot.Outcome{}, fmt.Errorf("following the rehearsal, which goes on without us: %w", context.Cause(ctx))
	}
	return spot.Outcome{}, fmt.Errorf("%w in the log group %s", ErrSilent, group)
}

func (l line) String() string {
	text := l.Msg
	if l.Pod != "" {
		text += " " + l.Pod
	}
	if l.At != nil {
		text = strconv.FormatFloat(float64(*l.At), 'f', 2, 64) + " s: " + text
	}
	return text
}

// read takes each line of a log since a moment that has the words in it, by the id that CloudWatch Logs has given it. What is no
// line of ours it leaves out. A function that has never run has no log yet: there is nothing to take then.
func (s *Stage) read(ctx context.Context, group, words string, since time.Time, take func(key string, l line)) error {
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(s.logs, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group,
		FilterPattern: aws.String(strconv.Quote(words)), StartTime: aws.Int64(since.UnixMilli())})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if there, err := isThere(group, err); err != nil || !there {
			return err
		}
		for _, e := range page.Events {
			var l line
			if json.Unmarshal([]byte(aws.ToString(e.Message)), &l) == nil {
				take(aws.ToString(e.EventId), l)
			}
		}
	}
	return nil
}
