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

// HasLog reports whether the log group exists. It returns an error if the group cannot be read.
func (c *Client) HasLog(ctx context.Context, group string) (bool, error) {
	_, err := c.logs.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String(group), Limit: aws.Int32(1),
		StartTime: aws.Int64(time.Now().UnixMilli())})
	return groupExists(group, err)
}

// groupExists translates the result of reading a log group.
func groupExists(group string, err error) (bool, error) {
	var none *types.ResourceNotFoundException
	switch {
	case errors.As(err, &none):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("reading the log group %s: %w", group, err)
	}
	return true, nil
}

// pollInterval is the time between two reads of the log.
const pollInterval = 2 * time.Second

// FromLog waits for the rehearsal's outcome in the function's log and calls step for each log line of the same event.
func (c *Client) FromLog(ctx context.Context, group, id string, since time.Time, step func(what string)) (spot.Outcome, error) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		var lines []line
		err := c.read(ctx, group, id, since, func(key string, l line) {
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
				return spot.Outcome{}, errors.New("the function failed: " + l.Error)
			case l.Event == id:
				step(l.String())
			}
		}
		select {
		case <-time.After(pollInterval):
		case <-ctx.Done():
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return spot.Outcome{}, fmt.Errorf("waiting for the outcome (the rehearsal continues): %w", context.Cause(ctx))
	}
	return spot.Outcome{}, fmt.Errorf("%w in the log group %s", ErrNoOutcome, group)
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

// read calls take with each JSON log line since a time that contains the words, and with its CloudWatch Logs event ID. A
// function that has never run has no log group; take is not called then.
func (c *Client) read(ctx context.Context, group, words string, since time.Time, take func(key string, l line)) error {
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(c.logs, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group,
		FilterPattern: aws.String(strconv.Quote(words)), StartTime: aws.Int64(since.UnixMilli())})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if there, err := groupExists(group, err); err != nil || !there {
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
