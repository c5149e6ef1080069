// Package rehearse sends a test interruption through EventBridge and finds its outcome in the function's log.
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
	bus "github.com/aws/aws-sdk-go-v2/service/eventbridge"
	bustypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/castai/kops-spot/internal/eventbridge"
	"github.com/castai/kops-spot/internal/spot"
)

// Client sends rehearsals in one region and reads the function's log there.
type Client struct {
	events *bus.Client
	logs   *cloudwatchlogs.Client
}

// New returns a Client with the region, credentials and endpoints of cfg.
func New(cfg aws.Config) *Client {
	return &Client{events: bus.NewFromConfig(cfg), logs: cloudwatchlogs.NewFromConfig(cfg)}
}

// Send puts the rehearsal on an event bus (AWS's own events use "default") and returns the ID that EventBridge assigns.
// If in.Time is zero, EventBridge sets the time: a local clock that is two minutes slow would make the event expired.
func (c *Client) Send(ctx context.Context, in spot.Interruption, onBus string) (id string, err error) {
	in.Rehearsal, in.EventID = true, "assigned by EventBridge"
	text, err := eventbridge.Encode(in)
	if err != nil {
		return "", err
	}
	var e struct {
		Source     string
		DetailType string `json:"detail-type"`
		Resources  []string
		Detail     json.RawMessage
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return "", fmt.Errorf("decoding the encoded event: %w", err)
	}
	entry := bustypes.PutEventsRequestEntry{EventBusName: &onBus, Source: &e.Source, DetailType: &e.DetailType,
		Resources: e.Resources, Detail: aws.String(string(e.Detail))}
	if !in.Time.IsZero() {
		entry.Time = &in.Time
	}
	out, err := c.events.PutEvents(ctx, &bus.PutEventsInput{Entries: []bustypes.PutEventsRequestEntry{entry}})
	switch {
	case err != nil:
	case len(out.Entries) != 1:
		err = fmt.Errorf("EventBridge returned %d entries for one event", len(out.Entries))
	case aws.ToString(out.Entries[0].EventId) == "":
		err = fmt.Errorf("%s: %s", aws.ToString(out.Entries[0].ErrorCode), aws.ToString(out.Entries[0].ErrorMessage))
	default:
		return *out.Entries[0].EventId, nil
	}
	return "", fmt.Errorf("sending the rehearsal to the event bus %s: %w", onBus, err)
}

// HasLog reports whether the log group exists. It returns an error if the group cannot be read.
func (c *Client) HasLog(ctx context.Context, group string) (bool, error) {
	_, exists, err := c.read(ctx, group, "outcome", time.Now())
	return exists, err
}

// ErrNoOutcome means that the outcome did not appear in the log in time.
var ErrNoOutcome = errors.New("no outcome of the rehearsal was found")

// FromLog waits for the rehearsal's outcome in the function's log and calls step for each log line of the same event.
func (c *Client) FromLog(ctx context.Context, group, id string, since time.Time,
	step func(message string)) (spot.Outcome, error) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		lines, _, err := c.read(ctx, group, id, since)
		if err != nil && ctx.Err() == nil {
			return spot.Outcome{}, err
		}
		for _, l := range lines {
			switch {
			case seen[l.id]:
			case l.Outcome != nil && l.Outcome.Event.ID == id:
				return *l.Outcome, nil
			case l.Event == id && l.Level == "ERROR":
				return spot.Outcome{}, errors.New("the function failed: " + l.Error)
			case l.Event == id:
				step(l.String())
			}
			seen[l.id] = true
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return spot.Outcome{}, fmt.Errorf("waiting for the outcome (the rehearsal continues): %w", context.Cause(ctx))
	}
	return spot.Outcome{}, fmt.Errorf("%w in the log group %s", ErrNoOutcome, group)
}

// Summary is what the function's log contains for a period.
type Summary struct {
	Outcomes []spot.Outcome

	SelfCheck *SelfCheck // the last one; nil if there was none
	Checked   time.Time
}

// SelfCheck is what people need from a self-check.
type SelfCheck struct {
	Result, Program string
	Overdue         []spot.OverdueInstance
	Warnings        []string
}

// Summarize reads the function's log. A missing log group gives an empty summary.
func (c *Client) Summarize(ctx context.Context, group string, since time.Time) (s Summary, err error) {
	for _, message := range []string{"outcome", "self-check"} {
		lines, _, err := c.read(ctx, group, message, since)
		if err != nil {
			return s, err
		}
		for _, l := range lines {
			switch {
			case l.Msg != message: // a line that only contains the words
			case l.Outcome != nil:
				s.Outcomes = append(s.Outcomes, *l.Outcome)
			case l.SelfCheck != nil:
				s.SelfCheck, s.Checked = l.SelfCheck, l.Time
			}
		}
	}
	return s, nil
}

// Last returns the last n outcomes, newest first, without other clusters' events, expired events and test events.
func (s Summary) Last(n int) []spot.Outcome {
	last := []spot.Outcome{}
	for i := len(s.Outcomes) - 1; i >= 0 && len(last) < n; i-- {
		out := s.Outcomes[i]
		if out.Result.ConcernsCluster() && out.Event.ID != eventbridge.SyntheticEventID {
			last = append(last, out)
		}
	}
	return last
}

// line is a line of the function's log.
type line struct {
	id        string // in CloudWatch Logs
	Level     string
	Msg       string
	Event     string
	Error     string
	Pod       string
	Time      time.Time
	At        *spot.Seconds
	Outcome   *spot.Outcome
	SelfCheck *SelfCheck `json:"self_check"`
}

func (l line) String() string {
	text := l.Msg
	if l.Pod != "" {
		text += " " + l.Pod
	}
	if l.At != nil {
		text = fmt.Sprintf("%.2f s: %s", float64(*l.At), text)
	}
	return text
}

// read returns the JSON lines since a time that contain the words, and whether the log group exists.
func (c *Client) read(ctx context.Context, group, words string, since time.Time) (lines []line, ok bool, err error) {
	pages := cloudwatchlogs.NewFilterLogEventsPaginator(c.logs, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group,
		FilterPattern: aws.String(strconv.Quote(words)), StartTime: aws.Int64(since.UnixMilli())})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		var none *types.ResourceNotFoundException
		if errors.As(err, &none) {
			return nil, false, nil
		}
		if err != nil {
			return lines, false, fmt.Errorf("reading the log group %s: %w", group, err)
		}
		for _, e := range page.Events {
			l := line{id: aws.ToString(e.EventId)}
			if json.Unmarshal([]byte(aws.ToString(e.Message)), &l) == nil {
				lines = append(lines, l)
			}
		}
	}
	return lines, true, nil
}
