package template

import (
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

// alarms lists every alarm: metrics, comparison, number of periods and their length, missing data.
var alarms = map[string]string{
	"not-drained": "FILL(incomplete, 0) + FILL(missed, 0) of incomplete: kops-spot Incomplete Cluster Sum 300 s, " +
		"missed: kops-spot Missed Cluster Sum 300 s >= 1, 1 period, notBreaching",
	"replacement-failed": `SELECT SUM(ReplacementFailed) FROM SCHEMA("kops-spot", AutoScalingGroupName, Cluster) ` +
		`WHERE Cluster = 'prod.example.com' GROUP BY AutoScalingGroupName of 300 s >= 1, 1 period, notBreaching`,
	"failed": "FILL(failures, 0) + FILL(undelivered, 0) + FILL(unpublished, 0) of unpublished: kops-spot Unpublished Cluster Sum 300 s, " +
		"failures: AWS/SQS ApproximateNumberOfMessagesVisible QueueName Maximum 300 s, " +
		"undelivered: AWS/SQS ApproximateNumberOfMessagesVisible QueueName Maximum 300 s >= 1, 1 period, notBreaching",
	"not-ready": "kops-spot Ready Cluster Minimum 900 s < 1, 2 periods, missing",
}

func TestAlarms(t *testing.T) {
	people := arn("sns", "cast-kops-prod-example-com-7405b0253a21-notifications")
	for name, c := range map[string]struct {
		given   Parameters
		actions []any
	}{
		byDefault:  {needed(), []any{people}},
		everything: {sets[everything], []any{people, pager}},
		"a pager":  {with(Parameters{"AlarmTopicArn": pager}), []any{people, pager}},
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
			if !maps.Equal(got, alarms) {
				t.Errorf("the alarms are %v, want %v", got, alarms)
			}
		})
	}
}

// describe returns when an alarm fires, in the form of the table.
func describe(t *testing.T, p map[string]any) string {
	t.Helper()
	comparison := map[string]string{"GreaterThanOrEqualToThreshold": ">=",
		"LessThanThreshold": "<"}[p["ComparisonOperator"].(string)]
	on := ""
	if queries, ok := p["Metrics"].([]any); ok {
		var parts []string
		for i, q := range queries {
			query := q.(map[string]any)
			switch stat, ok := query["MetricStat"].(map[string]any); {
			case i == 0 && query["ReturnData"] != false && query["Period"] != nil:
				on = fmt.Sprintf("%v of %v s", query["Expression"], query["Period"])
			case i == 0 && query["ReturnData"] != false:
				on = fmt.Sprintf("%v of ", query["Expression"])
			case ok && query["ReturnData"] == false:
				parts = append(parts, fmt.Sprintf("%v: %s %v %v s", query["Id"], metricOf(t, stat["Metric"].(map[string]any)),
					stat["Stat"], stat["Period"]))
			default:
				t.Errorf("%v has the query %v", p["AlarmName"], query)
			}
		}
		on += strings.Join(parts, ", ")
	} else {
		on = fmt.Sprintf("%s %v %v s", metricOf(t, p), p["Statistic"], p["Period"])
	}
	periods := fmt.Sprintf("%v period", p["EvaluationPeriods"])
	if periods != "1 period" {
		periods += "s"
	}
	return fmt.Sprintf("%s %s %v, %s, %v", on, comparison, p["Threshold"], periods, p["TreatMissingData"])
}

// metricOf returns the namespace, name and dimension of a metric, which must be one that is written.
func metricOf(t *testing.T, m map[string]any) string {
	t.Helper()
	dimensions := m["Dimensions"].([]any)
	dimension := dimensions[0].(map[string]any)
	values := map[string][]string{"Cluster": {cluster}, "QueueName": {
		"cast_kops-prod-example-com-7405b0253a21-failures", "cast_kops-prod-example-com-7405b0253a21-undelivered"}}
	if name := dimension["Name"].(string); len(dimensions) != 1 ||
		!slices.Contains(values[name], dimension["Value"].(string)) {
		t.Errorf("%v has the dimensions %v", m["MetricName"], dimensions)
	}
	if m["Namespace"] == "kops-spot" && !slices.Contains(measured(t), m["MetricName"].(string)) {
		t.Errorf("an alarm is on %v, which the function does not write", m["MetricName"])
	}
	return fmt.Sprint(m["Namespace"], " ", m["MetricName"], " ", dimension["Name"])
}

// TestFailuresHaveAlarms: each failure with a metric has an alarm on it.
func TestFailuresHaveAlarms(t *testing.T) {
	for _, r := range spot.Results {
		on := slices.ContainsFunc(slices.Collect(maps.Values(alarms)), func(a string) bool { return strings.Contains(a, r.Metric) })
		if r.Metric != "" && !on {
			t.Errorf("%s has no alarm on %s", r.Result, r.Metric)
		}
	}
}
