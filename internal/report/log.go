package report

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/spot"
)

const (
	// maxRows is the largest number of rows that a query returns. A query with fewer rows is complete.
	maxRows = 10_000

	firstPause, maxPause = 500 * time.Millisecond, 5 * time.Second // between requests for a query's results
	stopLimit            = 5 * time.Second
	unknownLimit         = time.Minute // without a known status of the query
)

// query only narrows the data: which outcomes are counted is decided in distinct.
var query = fmt.Sprintf(`fields @message | filter (%s = "outcome" and outcome.result not in ["%s", "%s", "%s"]) or %[1]s = "%[5]s" `+
	`| sort @timestamp asc | limit %[6]d`, slog.MessageKey, spot.Uneventful[0], spot.Uneventful[1], spot.Uneventful[2], handlingFailed, maxRows)

// handlingFailed is the message of the log line about an event that ended in an error.
const handlingFailed = "handling failed"

// client is the part of CloudWatch Logs for queries.
type client interface {
	StartQuery(context.Context, *logs.StartQueryInput, ...func(*logs.Options)) (*logs.StartQueryOutput, error)
	GetQueryResults(context.Context, *logs.GetQueryResultsInput, ...func(*logs.Options)) (*logs.GetQueryResultsOutput, error)
	StopQuery(context.Context, *logs.StopQueryInput, ...func(*logs.Options)) (*logs.StopQueryOutput, error)
}

// reader reads the outcomes in a log group with CloudWatch Logs Insights.
type reader struct {
	client     client
	group      string
	outcomes   []spot.Outcome
	unreadable int
	failed     map[string]bool // IDs of the events that ended in an error
	cut        []int64         // seconds with more rows than a query returns
}

// read reads the outcomes of a period, in seconds. It halves the period until each query is complete. Halves share a
// second, because it may not be in the first half as a whole; an outcome that is read twice is counted once.
func (r *reader) read(ctx context.Context, from, to int64) error {
	lines, err := r.query(ctx, from, to)
	switch {
	case err != nil:
		return err
	case len(lines) >= maxRows && to-from > 1:
		middle := from + (to-from)/2
		if err := r.read(ctx, from, middle); err != nil {
			return err
		}
		return r.read(ctx, middle, to)
	case len(lines) >= maxRows:
		r.cut = append(r.cut, from)
	}
	for _, text := range lines {
		var l struct {
			Msg     string
			Event   string
			Outcome *spot.Outcome
		}
		switch err := json.Unmarshal([]byte(text), &l); {
		case err == nil && l.Msg == "outcome" && l.Outcome != nil:
			r.outcomes = append(r.outcomes, *l.Outcome)
		case err == nil && l.Msg == handlingFailed:
			if r.failed == nil {
				r.failed = map[string]bool{}
			}
			r.failed[l.Event] = true
		case err != nil && strings.Contains(text, `"msg":"outcome"`):
			r.unreadable++
		}
	}
	return nil
}

// notices says what is missing.
func (r *reader) notices() (all []string) {
	for _, second := range r.cut {
		all = append(all, fmt.Sprintf("more than %d outcomes were logged at %s: some are missing", maxRows,
			time.Unix(second, 0).UTC().Format(time.RFC3339)))
	}
	for _, out := range r.outcomes { // of a retry
		delete(r.failed, out.Event.ID)
	}
	if n := len(r.failed); n > 0 {
		all = append(all, fmt.Sprintf("events that ended in an error, which are not counted: %d: search the log for %q", n, handlingFailed))
	}
	if r.unreadable > 0 {
		all = append(all, fmt.Sprintf("%d outcomes in the log are incomplete and were not counted", r.unreadable))
	}
	return all
}

// query runs a query and waits for its results: the messages of log events. It stops the query if ctx ends.
func (r *reader) query(ctx context.Context, from, to int64) (messages []string, err error) {
	doing := fmt.Sprintf("querying log group %s with CloudWatch Logs Insights", r.group)
	started, err := r.client.StartQuery(ctx, &logs.StartQueryInput{LogGroupName: &r.group, QueryString: &query,
		StartTime: &from, EndTime: &to})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, awsadmin.Translate(err))
	}
	running, known := true, time.Now()
	defer func() {
		if running {
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
			defer cancel()
			_, _ = r.client.StopQuery(stopping, &logs.StopQueryInput{QueryId: started.QueryId}) // best effort
		}
	}()
	in := &logs.GetQueryResultsInput{QueryId: started.QueryId}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		out, err := r.client.GetQueryResults(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", doing, awsadmin.Translate(err))
		}
		if out.Status != types.QueryStatusUnknown {
			known = time.Now()
		} else if time.Since(known) > unknownLimit {
			return nil, fmt.Errorf("%s: the status of the query stays unknown: run the command again", doing)
		}
		switch out.Status {
		case types.QueryStatusComplete:
			running = false
			for _, row := range out.Results {
				for _, f := range row {
					if aws.ToString(f.Field) == "@message" {
						messages = append(messages, aws.ToString(f.Value))
					}
				}
			}
			if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
				return messages, nil
			}
			continue
		case types.QueryStatusFailed:
			running = false
			return nil, fmt.Errorf("%s: the query failed: run the command again", doing)
		case types.QueryStatusCancelled:
			running = false
			return nil, fmt.Errorf("%s: somebody stopped the query: run the command again", doing)
		case types.QueryStatusTimeout:
			running = false
			return nil, fmt.Errorf("%s: the query took too long: use a shorter --since", doing)
		}
		if err := awsadmin.Pause(ctx, pause); err != nil {
			return nil, fmt.Errorf("%s: %w", doing, err)
		}
	}
}
