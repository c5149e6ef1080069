package template

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/spot"
)

// measured returns the metrics in the function's source.
func measured(t *testing.T) []string {
	t.Helper()
	written := regexp.MustCompile(`m\.(?:count|moment)\("([A-Za-z]+)"`)
	files, err := filepath.Glob(filepath.Join(Root(), "internal", "app", "*.go"))
	must(t, err)
	found := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		must(t, err)
		for _, m := range written.FindAllStringSubmatch(string(source), -1) {
			found[m[1]] = true
		}
	}
	if len(found) < 15 {
		t.Fatalf("found only %d metrics in the function's source: did the code change?", len(found))
	}
	return slices.Sorted(maps.Keys(found))
}

// alarms lists every possible alarm: metric, dimension, statistic, comparison, number of periods and their length,
// missing data.
var alarms = map[string]string{
	"failed":       "AWS/Lambda Errors FunctionName Sum >= 1, 1 of 300 s, notBreaching",
	"throttled":    "AWS/Lambda Throttles FunctionName Sum >= 1, 1 of 300 s, notBreaching",
	"outcome-lost": "AWS/Lambda DestinationDeliveryFailures FunctionName Sum >= 1, 1 of 300 s, notBreaching",
	"incomplete":   "kops-spot Incomplete Cluster Sum >= 1, 1 of 300 s, notBreaching",
	"missed":       "kops-spot Missed Cluster Sum >= 1, 1 of 300 s, notBreaching",
	"replacement-failed": `SELECT SUM(ReplacementFailed) FROM SCHEMA("kops-spot", AutoScalingGroupName, Cluster) ` +
		`WHERE Cluster = 'prod.example.com' GROUP BY AutoScalingGroupName >= 1, 1 of 300 s, notBreaching`,
	"drained-late": "kops-spot TimeToEmpty Cluster Maximum >= 115, 1 of 300 s, notBreaching",
	"not-ready":    "kops-spot Ready Cluster Minimum < 1, 2 of 900 s, missing",
	"failures":     "AWS/SQS ApproximateNumberOfMessagesVisible QueueName Maximum >= 1, 1 of 300 s, notBreaching",
	"undelivered":  "AWS/SQS ApproximateNumberOfMessagesVisible QueueName Maximum >= 1, 1 of 300 s, notBreaching",
}

func TestAlarms(t *testing.T) {
	without := func(names ...string) map[string]string {
		left := maps.Clone(alarms)
		for _, name := range names {
			delete(left, name)
		}
		return left
	}
	slow := without("drained-late")
	for name, rings := range slow {
		slow[name] = strings.ReplaceAll(rings, "900 s", "300 s") // the self-check runs every five minutes
	}
	people := arn("sns", "cast-kops-prod-example-com-7405b0253a21-alarms")
	for name, c := range map[string]struct {
		given   Parameters
		want    map[string]string
		actions []any
	}{
		byDefault:       {needed(), alarms, nil},
		everything:      {sets[everything], slow, []any{people, pager}},
		nothing:         {sets[nothing], map[string]string{}, nil},
		"a pager":       {with(Parameters{"AlarmTopicArn": pager}), alarms, []any{pager}},
		"people":        {with(Parameters{"NotifyEmail": "people@example.com"}), alarms, []any{people}},
		"no self-check": {with(Parameters{"SelfCheckRule": ruleIsOff}), without("not-ready"), nil},
		"hooks":         {with(Parameters{"Hooks": "drain", "LifecycleRule": ruleIsOn}), without("drained-late"), nil},
		"drained announcements": {with(Parameters{"ScheduledChange": "drain", "HealthRule": ruleIsOn}),
			without("drained-late"), nil},
		"drained recommendations": {with(Parameters{"Rebalance": "drain", "RebalanceRule": ruleIsOn}),
			without("drained-late"), nil},
		"cordoned recommendations": {with(Parameters{"Rebalance": "cordon", "RebalanceRule": ruleIsOn}), alarms, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for id, r := range shared.Templates[byDefault].Resolve(c.given).Resources {
				if r.Type != "AWS::CloudWatch::Alarm" {
					continue
				}
				name := strings.TrimPrefix(r.Properties["AlarmName"].(string), "cast-kops-prod-example-com-7405b0253a21.")
				got[name] = describe(t, r.Properties)
				if r.Properties["AlarmDescription"] == nil {
					t.Errorf("%s does not say what to do", id)
				}
				actions := []string{"AlarmActions"}
				if name == "not-ready" {
					actions = append(actions, "OKActions",
						"InsufficientDataActions") // the self-check did not run at all
				}
				for _, action := range actions {
					if fmt.Sprint(r.Properties[action]) != fmt.Sprint(c.actions) {
						t.Errorf("%s of %s are %v, want %v", action, name, r.Properties[action], c.actions)
					}
				}
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("the alarms are %v, want %v", got, c.want)
			}
		})
	}
}

// describe returns when an alarm fires, in the form of the table.
func describe(t *testing.T, p map[string]any) string {
	t.Helper()
	comparison := map[string]string{"GreaterThanOrEqualToThreshold": ">=",
		"LessThanThreshold": "<"}[p["ComparisonOperator"].(string)]
	if queries, ok := p["Metrics"].([]any); ok {
		query := queries[0].(map[string]any)
		if len(queries) != 1 || query["ReturnData"] != true || p["Period"] != nil {
			t.Errorf("%v has the queries %v", p["AlarmName"], queries)
		}
		return fmt.Sprintf("%v %s %v, %v of %v s, %v", query["Expression"], comparison, p["Threshold"], p["EvaluationPeriods"],
			query["Period"], p["TreatMissingData"])
	}
	dimensions := p["Dimensions"].([]any)
	dimension := dimensions[0].(map[string]any)
	values := map[string][]string{"FunctionName": {"cast-kops-prod-example-com-7405b0253a21"}, "Cluster": {cluster},
		"QueueName": {"cast_kops-prod-example-com-7405b0253a21-failures",
			"cast_kops-prod-example-com-7405b0253a21-undelivered"}}
	if name := dimension["Name"].(string); len(dimensions) != 1 ||
		!slices.Contains(values[name], dimension["Value"].(string)) {
		t.Errorf("%v has the dimensions %v", p["AlarmName"], dimensions)
	}
	if p["Namespace"] == "kops-spot" && !slices.Contains(measured(t), p["MetricName"].(string)) {
		t.Errorf("%v is on %v, which the function does not write", p["AlarmName"], p["MetricName"])
	}
	return fmt.Sprintf("%v %v %v %v %s %v, %v of %v s, %v", p["Namespace"], p["MetricName"], dimension["Name"],
		p["Statistic"], comparison, p["Threshold"],
		p["EvaluationPeriods"], p["Period"], p["TreatMissingData"])
}

// TestFailuresHaveAlarms: each failure with a metric has an alarm on it.
func TestFailuresHaveAlarms(t *testing.T) {
	for _, r := range spot.Results {
		if r.Metric != "" && !strings.Contains(alarms[string(r.Result)], r.Metric) {
			t.Errorf("%s has the alarm %q, want one on %s", r.Result, alarms[string(r.Result)], r.Metric)
		}
	}
}

// TestDashboardShowsEveryMetric of the function, and no others.
func TestDashboardShowsEveryMetric(t *testing.T) {
	var body struct {
		Widgets []struct {
			Type                string
			X, Y, Width, Height int
			Properties          struct {
				Title, Region, Query, Stat string
				Period                     int
				Metrics                    [][]any
			}
		}
	}
	if err := json.Unmarshal([]byte(stack(t,
		byDefault).Resources["SpotDashboard"].Properties["DashboardBody"].(string)), &body); err != nil {
		t.Fatalf("the dashboard is not valid JSON: %v", err)
	}
	shown := map[string]bool{}
	taken := map[[2]int]string{}
	for _, w := range body.Widgets {
		p := w.Properties
		if p.Title == "" || p.Region != Region {
			t.Errorf("a widget has the title %q and the region %q", p.Title, p.Region)
		}
		for x := w.X; x < w.X+w.Width; x++ {
			for y := w.Y; y < w.Y+w.Height; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q overlaps %q or is outside the grid", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, metric := range whole(p.Metrics) {
			switch metric[0] {
			case "kops-spot":
				shown[metric[1]] = true
				if metric[2] != "Cluster" || metric[3] != cluster {
					t.Errorf("%q shows %v", p.Title, metric)
				}
			case "AWS/Lambda":
				if metric[2] != "FunctionName" || metric[3] != "cast-kops-prod-example-com-7405b0253a21" {
					t.Errorf("%q shows %v", p.Title, metric)
				}
			case "AWS/SQS":
				if metric[2] != "QueueName" || !strings.HasPrefix(metric[3], "cast_kops-prod-example-com-7405b0253a21-") {
					t.Errorf("%q shows %v", p.Title, metric)
				}
			default:
				t.Errorf("%q shows %v, which is in an unknown namespace", p.Title, metric)
			}
		}
		if w.Type == "log" && !strings.HasPrefix(p.Query,
			"SOURCE '/aws/lambda/cast-kops-prod-example-com-7405b0253a21' | ") {
			t.Errorf("%q has the query %q", p.Title, p.Query)
		}
	}
	if got, want := slices.Sorted(maps.Keys(shown)), measured(t); !slices.Equal(got, want) {
		t.Errorf("the dashboard shows %q, the function writes %q", got, want)
	}
}

// whole expands CloudWatch's abbreviation: a dot repeats the value above.
func whole(metrics [][]any) (all [][]string) {
	var above []string
	for _, m := range metrics {
		var one []string
		for i, part := range m {
			text, ok := part.(string)
			if !ok { // display options
				continue
			}
			if text == "." {
				text = above[i]
			}
			one = append(one, text)
		}
		above = one
		all = append(all, one)
	}
	return all
}
