package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/spot"
)

// fakeLog is a log group. It ignores the filter, as moto does, and needs three requests for a result.
type fakeLog struct {
	at     []time.Time
	lines  []string
	status types.QueryStatus // of all queries; Complete if empty
	err    error             // of GetQueryResults
	page   int               // rows in a response; all if 0

	queries [][2]time.Time
	polls   int
	stopped []string
}

func (f *fakeLog) add(at time.Time, out spot.Outcome) {
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("outcome", "outcome", out)
	f.at, f.lines = append(f.at, at), append(f.lines, b.String())
}

func (f *fakeLog) StartQuery(_ context.Context, in *logs.StartQueryInput, _ ...func(*logs.Options)) (
	*logs.StartQueryOutput, error) {
	if *in.LogGroupName != "/aws/lambda/f" || *in.QueryString != query {
		return nil, fmt.Errorf("unexpected query %q of %s", *in.QueryString, *in.LogGroupName)
	}
	f.queries = append(f.queries, [2]time.Time{time.Unix(*in.StartTime, 0), time.Unix(*in.EndTime, 0)})
	return &logs.StartQueryOutput{QueryId: aws.String(strconv.Itoa(len(f.queries) - 1))}, nil
}

func (f *fakeLog) GetQueryResults(ctx context.Context, in *logs.GetQueryResultsInput, _ ...func(*logs.Options)) (
	*logs.GetQueryResultsOutput, error) {
	if err := errors.Join(ctx.Err(), f.err); err != nil {
		return nil, err
	}
	if f.polls++; f.polls%3 != 0 && in.NextToken == nil && f.status != types.QueryStatusUnknown {
		return &logs.GetQueryResultsOutput{Status: []types.QueryStatus{"Scheduled", "Running"}[f.polls%3-1],
			Results: [][]types.ResultField{{}}}, nil
	}
	if f.status != "" {
		return &logs.GetQueryResultsOutput{Status: f.status}, nil
	}
	n, _ := strconv.Atoi(*in.QueryId)
	var rows [][]types.ResultField
	for i, line := range f.lines {
		if at := f.at[i]; !at.Before(f.queries[n][0]) && !at.After(f.queries[n][1]) && len(rows) < maxRows {
			rows = append(rows, []types.ResultField{{Field: aws.String("@ptr"), Value: aws.String("x")}, {Field: aws.String("@message"), Value: &line}})
		}
	}
	out := &logs.GetQueryResultsOutput{Status: types.QueryStatusComplete, Results: rows}
	if f.page > 0 {
		from, _ := strconv.Atoi(aws.ToString(in.NextToken))
		out.Results = rows[from:min(from+f.page, len(rows))]
		if from+f.page < len(rows) {
			out.NextToken = aws.String(strconv.Itoa(from + f.page))
		}
	}
	return out, nil
}

func (f *fakeLog) StopQuery(ctx context.Context, in *logs.StopQueryInput, _ ...func(*logs.Options)) (
	*logs.StopQueryOutput, error) {
	if ctx.Err() == nil {
		f.stopped = append(f.stopped, *in.QueryId)
	}
	return &logs.StopQueryOutput{}, nil
}

func (f *fakeLog) read(ctx context.Context, log awsadmin.LogGroup) (*Report, error) {
	log.Name = "/aws/lambda/f"
	return read(ctx, f, cluster, log, since, until)
}

// TestWindows: periods are halved until each query is complete.
func TestWindows(t *testing.T) {
	for name, c := range map[string]struct {
		log     func(*fakeLog)
		queries int // at least
		count   int
		notices string
	}{
		"an empty log":             {func(*fakeLog) {}, 1, 0, ""},
		"fewer rows than the most": {func(f *fakeLog) { fill(f, maxRows-1, since, 30*24*time.Hour) }, 1, maxRows - 1, ""},
		"several pages":            {func(f *fakeLog) { fill(f, 2500, since, 30*24*time.Hour); f.page = 1000 }, 1, 2500, ""},
		"as many rows as the most": {func(f *fakeLog) { fill(f, maxRows, since, 30*24*time.Hour) }, 3, maxRows, ""},
		"a storm of ten minutes":   {func(f *fakeLog) { fill(f, 12000, since.Add(100*time.Hour), 10*time.Minute) }, 20, 12000, ""},
		"a full second": {func(f *fakeLog) { fill(f, maxRows+1, since.Add(time.Hour+500*time.Millisecond), 0) }, 20, maxRows,
			"more than 10000 outcomes were logged at 2026-11-01T10:30:00Z: some are missing"},
		"lines that are not outcomes": {func(f *fakeLog) {
			f.add(since.Add(time.Hour), drained("e1", "i-1", 1))
			for _, line := range []string{"START RequestId: 1", `{"msg":"evicted pod","pod":"outcome"}`, `{"msg":"outcome"}`, `"msg"`,
				`{"msg":"evicted pod","outcome":{"result":"drained","event":{"id":"e2","kind":"spot-terminate"}}}`,
				`{"_aws":{},"Result":"drained","Drained":1}`, `{"time":"x","msg":"outcome","outcome":{"version":1,"res`} {
				f.at, f.lines = append(f.at, since.Add(time.Hour)), append(f.lines, line)
			}
			for _, event := range []string{"e1", "e2", "e2", "e3"} { // e1 was retried
				f.at = append(f.at, since.Add(time.Hour))
				f.lines = append(f.lines, `{"level":"ERROR","msg":"handling failed","event":"`+event+`","error":"x"}`)
			}
		}, 1, 1, "events that ended in an error, which are not counted: 2: search the log for \"handling failed\"\n1 outcomes in the log are incomplete and were not counted"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var f fakeLog
			c.log(&f)
			r, err := f.read(t.Context(), awsadmin.LogGroup{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := strings.Join(r.Notices, "\n"); r.Total.Events != c.count || got != c.notices || len(f.stopped) > 0 {
				t.Errorf("%s: got %d events, notices %q, stopped %v; want %d, %q", name, r.Total.Events, got, f.stopped, c.count, c.notices)
			}
			if len(f.queries) < c.queries || c.queries == 1 && len(f.queries) > 1 || len(f.queries) > 100 {
				t.Errorf("%s: got %d queries, want %d", name, len(f.queries), c.queries)
			}
		})
	}
}

// fill adds outcomes at equal distances.
func fill(f *fakeLog, n int, from time.Time, over time.Duration) {
	for i := range n {
		f.add(from.Add(over/time.Duration(n)*time.Duration(i)), drained(fmt.Sprint("e", i), "i-1", 1))
	}
}

func TestPeriod(t *testing.T) {
	for name, c := range map[string]struct {
		log     awsadmin.LogGroup
		want    time.Time
		notices string
	}{
		"kept for ever":               {awsadmin.LogGroup{}, since, ""},
		"kept as long as needed":      {awsadmin.LogGroup{Retention: 30 * 24 * time.Hour}, since, ""},
		"created within the period":   {awsadmin.LogGroup{Created: since.Add(time.Hour)}, since.Add(time.Hour), ""},
		"kept for less than a period": {awsadmin.LogGroup{Retention: 14 * 24 * time.Hour}, until.Add(-14 * 24 * time.Hour), "the log is kept for 14 days only"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var f fakeLog
			r, err := f.read(t.Context(), c.log)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Since.Equal(c.want) || !f.queries[0][0].Equal(c.want) || !strings.Contains(strings.Join(r.Notices, ""), c.notices) ||
				(c.notices == "") != (len(r.Notices) == 0) {
				t.Errorf("%s: got %s, query %v, notices %q", name, r.Since, f.queries[0], r.Notices)
			}
		})
	}
}

func TestQueryErrors(t *testing.T) {
	interrupted := errors.New("interrupted")
	for name, c := range map[string]struct {
		log     fakeLog
		says    string
		stopped bool
	}{
		"failed":    {fakeLog{status: types.QueryStatusFailed}, "the query failed: run the command again", false},
		"timeout":   {fakeLog{status: types.QueryStatusTimeout}, "the query took too long: use a shorter --since", false},
		"cancelled": {fakeLog{status: types.QueryStatusCancelled}, "somebody stopped the query: run the command again", false},
		"denied": {fakeLog{err: &smithy.OperationError{ServiceID: "CloudWatch Logs", OperationName: "GetQueryResults",
			Err: &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "no"}}},
			"calling logs:GetQueryResults: access denied: AccessDeniedException: no: allow logs:GetQueryResults", true},
		"unknown": {fakeLog{status: types.QueryStatusUnknown}, "the status of the query stays unknown: run the command again", true},
		"running": {fakeLog{status: types.QueryStatusRunning}, "interrupted", true}, // after two minutes
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(2*time.Minute, func() { cancel(interrupted) })
			_, err := c.log.read(ctx, awsadmin.LogGroup{})
			if want := "querying log group /aws/lambda/f with CloudWatch Logs Insights: " + c.says; err == nil || err.Error() != want ||
				c.stopped != (len(c.log.stopped) == 1) {
				t.Errorf("%s: got %v, stopped %v; want %s", name, err, c.log.stopped, want)
			}
			if c.log.polls > 30 {
				t.Errorf("%s: got %d requests in two minutes", name, c.log.polls)
			}
			cancel(nil)
		})
	}
}

// TestQueryNames: the names in the query are those of the log line.
func TestQueryNames(t *testing.T) {
	var f fakeLog
	f.add(since, drained("e1", "i-1", 1))
	names := regexp.MustCompile(`[a-z_]+(\.[a-z_]+)+|msg`).FindAllString(query, -1)
	slices.Sort(names)
	if names = slices.Compact(names); len(names) != 2 {
		t.Errorf("got %q", names)
	}
	for _, name := range names {
		var value any
		if err := json.Unmarshal([]byte(f.lines[0]), &value); err != nil {
			t.Fatal(err)
		}
		for key := range strings.SplitSeq(name, ".") {
			in, _ := value.(map[string]any)
			value = in[key]
		}
		if value == nil {
			t.Errorf("%s is not in %s", name, f.lines[0])
		}
	}
}
