package template

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/expr-lang/expr"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/report"
	"github.com/castai/kops-spot/internal/spot"
)

// widget is a widget of the dashboard.
type widget struct {
	Type       string
	Width      int
	Properties struct {
		Title, Region, Query, Stat, View string
		Period                           int
		Metrics                          [][]any
	}
}

func widgets(t *testing.T) []widget {
	t.Helper()
	var body struct{ Widgets []widget }
	if err := json.Unmarshal([]byte(stack(t,
		byDefault).Resources["SpotDashboard"].Properties["DashboardBody"].(string)), &body); err != nil {
		t.Fatalf("the dashboard is not valid JSON: %v", err)
	}
	return body.Widgets
}

const source = "SOURCE '/aws/lambda/cast-kops-prod-example-com-7405b0253a21' | "

// TestDashboardShowsEveryMetric of the function, and no others.
func TestDashboardShowsEveryMetric(t *testing.T) {
	shown := map[string]bool{}
	for _, w := range widgets(t) {
		p := w.Properties
		if p.Title == "" || p.Region != Region || w.Width < 1 || w.Width > 24 {
			t.Errorf("a widget has the title %q, the region %q and the width %d", p.Title, p.Region, w.Width)
		}
		for _, m := range metricsIn(w) {
			switch m.namespace {
			case "kops-spot":
				shown[m.name] = true
				if m.dimension != "Cluster" || m.value != cluster {
					t.Errorf("%q shows %v", p.Title, m)
				}
			case "AWS/Lambda":
				if m.dimension != "FunctionName" || m.value != "cast-kops-prod-example-com-7405b0253a21" {
					t.Errorf("%q shows %v", p.Title, m)
				}
			case "AWS/SQS":
				if m.dimension != "QueueName" || !strings.HasPrefix(m.value, "cast_kops-prod-example-com-7405b0253a21-") {
					t.Errorf("%q shows %v", p.Title, m)
				}
			default:
				t.Errorf("%q shows %v, which is in an unknown namespace", p.Title, m)
			}
		}
		if w.Type == "log" && !strings.HasPrefix(p.Query, source) {
			t.Errorf("%q has the query %q", p.Title, p.Query)
		}
	}
	if got, want := slices.Sorted(maps.Keys(shown)), measured(t); !slices.Equal(got, want) {
		t.Errorf("the dashboard shows %q, the function writes %q", got, want)
	}
}

// shownMetric is a metric of a widget.
type shownMetric struct{ namespace, name, dimension, value, stat string }

// metricsIn expands CloudWatch's abbreviation: a dot repeats the value above.
func metricsIn(w widget) (all []shownMetric) {
	var above []string
	for _, m := range w.Properties.Metrics {
		one, stat := []string{}, w.Properties.Stat
		for i, part := range m {
			switch part := part.(type) {
			case string:
				if part == "." {
					part = above[i]
				}
				one = append(one, part)
			case map[string]any:
				stat = cmp.Or(fmt.Sprint(part["stat"]), stat)
			}
		}
		above = one
		all = append(all, shownMetric{one[0], one[1], one[2], one[3], stat})
	}
	return all
}

// TestDashboardFields: the names in the queries are those of the schema, in the part of a line that Logs Insights reads
// as fields: the first 200, so before the plan, which lists the pods.
func TestDashboardFields(t *testing.T) {
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct {
				Ref string `json:"$ref"`
			}
		} `json:"$defs"`
	}
	b, err := os.ReadFile(filepath.Join(Root(), "docs", "outcome.schema.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &schema))
	queries := 0
	for _, w := range widgets(t) {
		if w.Type != "log" {
			continue
		}
		queries++
		for _, name := range regexp.MustCompile(`\boutcome(\.[a-z_]+)+`).FindAllString(w.Properties.Query, -1) {
			in := "Outcome"
			for key := range strings.SplitSeq(strings.TrimPrefix(name, "outcome."), ".") {
				field, ok := schema.Defs[in].Properties[key]
				if !ok {
					t.Errorf("%q reads %s: docs/outcome.schema.json has no %s in %s", w.Properties.Title, name, key, in)
				}
				in = strings.TrimPrefix(field.Ref, "#/$defs/")
			}
		}
	}
	if queries != 4 {
		t.Errorf("the dashboard has %d queries", queries)
	}
}

// TestDashboardAgreesWithReport runs the queries of the dashboard and `kops-spot report` on the same log. The queries run
// in a small interpreter with the documented meaning: docs/stack.md says that they never ran in Logs Insights.
func TestDashboardAgreesWithReport(t *testing.T) {
	var text bytes.Buffer
	log, n := slog.New(slog.NewJSONHandler(&text, nil)), 0
	outcome := func(kind spot.Kind, result spot.Result, of int) spot.Outcome {
		n++
		empty := spot.Seconds(n%37) + 0.125
		out := spot.Outcome{Version: 1, Result: result, Event: spot.EventInfo{ID: fmt.Sprint("e", n), Kind: kind, Instance: "i-1",
			Time: time.Now().Add(-time.Hour)}, Plan: &spot.PlanResult{}, Timings: spot.Timings{Empty: &empty, Finished: &empty},
			Instance: spot.InstanceInfo{Group: fmt.Sprint("nodes-", of), Type: fmt.Sprint("m", of, ".large"), Zone: "b", Lifecycle: "spot"},
			Pods: []spot.PodResult{{Name: "force-deleted", Status: spot.PodForceDeleted}, {Status: spot.PodEvicted},
				{Status: spot.PodForceDeleted, Reason: `not "status":"force-deleted"`}}}
		if kind == spot.LaunchFailed {
			out.Event.Instance, out.Event.Group, out.Instance = "", out.Instance.Group, spot.InstanceInfo{}
			out.Pods = nil
		}
		return out
	}
	for _, kind := range append(spot.WarningKinds(), spot.StateChange, spot.LaunchFailed) {
		for _, r := range spot.Results {
			if (r.Result == spot.ReplacementFailed) != (kind == spot.LaunchFailed) {
				continue
			}
			for of := range 3 {
				log.Info("outcome", "outcome", outcome(kind, r.Result, of))
				rehearsal := outcome(kind, r.Result, of)
				rehearsal.Event.Rehearsal = true
				log.Info("outcome", "outcome", rehearsal)
				log.Info("evicted pod", "outcome", outcome(kind, r.Result, of))
			}
		}
	}
	for _, results := range [][2]spot.Result{{spot.Missed, spot.Drained}, {spot.Incomplete, spot.Missed}, {spot.Drained, spot.NodeNotFound}} {
		twice := outcome(spot.SpotTerminate, results[0], 0) // the same event
		twice.Timings = spot.Timings{}
		log.Info("outcome", "outcome", twice)
		twice.Result = results[1]
		log.Info("outcome", "outcome", twice)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	reported := reportOn(t, lines)
	for title, rows := range map[string][]report.Row{"group": reported.Groups, "type": reported.Types, "zone": reported.Zones} {
		i := slices.IndexFunc(widgets(t), func(w widget) bool { return w.Properties.Title == "Interruptions by "+title })
		got := map[string]string{}
		for _, r := range insights(t, strings.TrimPrefix(widgets(t)[i].Properties.Query, source), lines) {
			if r["events"] == 0. && r[title] == nil { // failed launches, which have no type and zone
				continue
			}
			got[fmt.Sprint(r[title])] = fmt.Sprint(r["events"], r["drained"], r["incomplete"], r["missed"], r["force_deleted"],
				r["p50"], r["p99"], r["failed_replacements"])
		}
		want := map[string]string{}
		for _, r := range rows {
			want[r.Name] = fmt.Sprint(r.Events, r.Results[spot.Drained], r.Results[spot.Incomplete]+r.Results[spot.NodeNotFound],
				r.Results[spot.Missed], r.ForceDeletedPods, *r.P50, *r.P99, r.ReplacementFailures)
		}
		if !maps.Equal(got, want) || len(want) == 0 {
			t.Errorf("by %s, the dashboard shows\n%v, the report\n%v", title, got, want)
		}
	}
}

// reportOn reports on a log.
func reportOn(t *testing.T, lines []string) *report.Report {
	var rows [][]map[string]string
	for _, line := range lines {
		rows = append(rows, []map[string]string{{"field": "@message", "value": line}})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // StartQuery and GetQueryResults
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"queryId": "1", "status": "Complete", "results": rows})
	}))
	defer server.Close()
	cfg := settingsFor(Region)
	cfg.BaseEndpoint = &server.URL
	r, err := report.New(t.Context(), cfg, cluster, awsadmin.LogGroup{Name: "log"}, time.Now().Add(-24*time.Hour))
	must(t, err)
	return r
}

type record map[string]any

// insights runs a query as the documentation of CloudWatch Logs Insights describes it, as far as the dashboard needs it.
func insights(t *testing.T, query string, lines []string) []record {
	t.Helper()
	var records []record
	for _, line := range lines {
		r := record{}
		fields := line
		if before, _, found := strings.Cut(line, `,"plan":`); found { // the plan may take all fields that are read
			fields = before + "}}"
		}
		must(t, json.Unmarshal([]byte(fields), &r))
		r["_message"] = line
		records = append(records, r)
	}
	for command := range strings.SplitSeq(query, " | ") {
		name, rest, _ := strings.Cut(command, " ")
		switch name {
		case "filter":
			keep := compile(t, rest)
			records = slices.DeleteFunc(records, func(r record) bool { return keep(r) != true })
		case "fields":
			value, as, _ := strings.Cut(rest, " as ")
			of := compile(t, value)
			for _, r := range records {
				r[as] = of(r)
			}
		case "parse":
			pattern := regexp.MustCompile(strings.Trim(strings.TrimPrefix(rest, "@message "), "/"))
			for _, r := range records {
				if m := pattern.FindStringSubmatch(r["_message"].(string)); m != nil {
					n, err := strconv.ParseFloat(m[1], 64)
					must(t, err)
					r[pattern.SubexpNames()[1]] = n
				}
			}
		case "stats":
			records = aggregate(t, rest, records)
		case "sort":
		default:
			t.Fatalf("the interpreter does not know %s", name)
		}
	}
	return records
}

func aggregate(t *testing.T, stats string, records []record) (all []record) {
	aggregates, by, _ := strings.Cut(stats, " by ")
	key, groups := compile(t, by), map[any][]record{}
	for _, r := range records {
		groups[key(r)] = append(groups[key(r)], r)
	}
	type column struct {
		function, name string
		value          func(record) any
		percent        float64
	}
	var columns []column
	for _, m := range regexp.MustCompile(`(latest|max|sum|pct)\((.*?)(?:, (50|99))?\) as (\w+)(?:, |$)`).FindAllStringSubmatch(aggregates, -1) {
		percent, _ := strconv.ParseFloat(m[3], 64)
		columns = append(columns, column{m[1], m[4], compile(t, m[2]), percent})
	}
	if n := strings.Count(aggregates, " as "); len(columns) != n {
		t.Fatalf("found %d of %d columns in %s", len(columns), n, aggregates)
	}
	for k, group := range groups {
		row := record{by: k}
		for _, c := range columns {
			var numbers []float64
			for _, r := range group {
				v := c.value(r)
				row[c.name] = v // latest
				switch v := v.(type) {
				case int:
					numbers = append(numbers, float64(v))
				case float64:
					numbers = append(numbers, v)
				}
			}
			if c.function == "latest" {
				continue
			}
			row[c.name] = nil
			switch slices.Sort(numbers); {
			case c.function == "sum":
				total := 0.
				for _, n := range numbers {
					total += n
				}
				row[c.name] = total
			case len(numbers) == 0:
			case c.function == "max":
				row[c.name] = slices.Max(numbers)
			case c.function == "pct":
				row[c.name] = numbers[int(math.Ceil(c.percent/100*float64(len(numbers))))-1]
			}
		}
		all = append(all, row)
	}
	return all
}

// compile translates an expression into the language of a library.
func compile(t *testing.T, text string) func(record) any {
	t.Helper()
	text = strings.NewReplacer(" = ", " == ", "@message", "_message").Replace(text)
	text = regexp.MustCompile(`([a-z])\.([a-z])`).ReplaceAllString(text, "$1?.$2")
	program, err := expr.Compile(text, expr.AllowUndefinedVariables(), expr.DisableAllBuiltins(),
		expr.Function("ispresent", func(p ...any) (any, error) { return p[0] != nil, nil }),
		expr.Function("coalesce", func(p ...any) (any, error) {
			i := slices.IndexFunc(p, func(v any) bool { return v != nil })
			return append(p, nil)[max(i, 0)], nil
		}),
		expr.Function("strcontains", func(p ...any) (any, error) {
			if s, ok := p[0].(string); ok && strings.Contains(s, p[1].(string)) {
				return 1, nil
			}
			return 0, nil
		}),
		expr.Function("strlen", func(p ...any) (any, error) { return len([]rune(p[0].(string))), nil }),
		expr.Function("replace", func(p ...any) (any, error) {
			return strings.ReplaceAll(p[0].(string), p[1].(string), p[2].(string)), nil
		}))
	must(t, err)
	return func(r record) any {
		v, err := expr.Run(program, map[string]any(r))
		must(t, err)
		return v
	}
}
