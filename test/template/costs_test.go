package template

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// price is a list price of us-east-1, without free tier, as on AWS's pricing pages.
type price struct {
	dollars float64
	text    string
}

var (
	alarmMetric   = price{0.10, "$0.10"} // an alarm on several metrics costs as much as that many
	dashboardEach = price{3, "$3"}
	customMetric  = price{0.30, "$0.30"} // a month, in proportion to the hours with data
	request       = price{0.20e-6, "$0.20 per million"}
	gbSecond      = price{0.0000133334, "$0.0000133334 (arm64)"}
	logGB         = price{0.50, "$0.50"}
	storedGB      = price{0.03, "$0.03"}
	scannedGB     = price{0.005, "$0.005"}
	busEvent      = price{1e-6, "$1 per million"}
	destination   = price{0.20e-6, "$0.20 per million"}
	queueRequest  = price{0.40e-6, "$0.40 per million"}
	email         = price{2e-5, "$2 per 100,000"}
	secretEach    = price{0.40, "$0.40"}
	endpointHour  = price{0.01, "$0.01"}
)

const (
	hours = 730. // of a month, as in AWS's examples

	// Assumed, as the page says.
	selfCheckSeconds, selfCheckKB = 1., 2.
	interruptionKB                = 20.
	otherSeconds                  = 1. // for an event about another instance

	noticeSeconds = 120. // from a Spot warning to the end of the instance
)

// billed are the types of resources, with a word in the line of each that costs something.
var billed = map[string]string{
	"AWS::CloudWatch::Alarm": "alarm", "AWS::CloudWatch::Dashboard": "dashboard", "AWS::Lambda::Function": "Lambda",
	"AWS::Logs::LogGroup": "log", "AWS::SQS::Queue": "queue", "AWS::SNS::Topic": "email", "AWS::Events::ApiDestination": "`NotifyUrl`",
	"AWS::Events::Rule": "", "AWS::Events::Connection": "", "AWS::Lambda::EventInvokeConfig": "", "AWS::Lambda::Permission": "",
	"AWS::IAM::Role": "", "AWS::SQS::QueuePolicy": "", "AWS::SNS::TopicPolicy": "",
}

// TestCosts: docs/costs.md has the figures of the template and the code.
func TestCosts(t *testing.T) {
	var count, conditional = map[string]int{}, map[string]bool{}
	var onMetrics, onQuery int
	var selfChecks, retention, memory float64 // a month, days, GB
	for _, r := range stack(t, byDefault).Resources {
		count[r.Type]++
		switch r.Type {
		case "AWS::CloudWatch::Alarm":
			queries, on := r.Properties["Metrics"].([]any)
			n := strings.Count(fmt.Sprint(queries), "MetricStat:")
			switch {
			case !on:
				onMetrics++
			case n > 0:
				onMetrics += n
			default:
				onQuery++
			}
		case "AWS::Events::Rule":
			if rate, ok := r.Properties["ScheduleExpression"].(string); ok {
				var minutes float64
				_, err := fmt.Sscanf(rate, "rate(%f minutes)", &minutes)
				must(t, err)
				selfChecks += hours * 60 / minutes
			}
		case "AWS::Lambda::Function":
			memory = float64(number(t, r.Properties["MemorySize"])) / 1024
		case "AWS::Logs::LogGroup":
			retention = float64(number(t, r.Properties["RetentionInDays"]))
		}
	}
	for _, r := range stack(t, everything).Resources {
		conditional[r.Type] = true
	}

	var page strings.Builder
	total := 0.
	table := func(heading string) {
		fmt.Fprintf(&page, "\n| %s | formula | list price | cost |\n|---|---|---|---|\n", heading)
	}
	row := func(what string, n float64, p price, formula string, args ...any) {
		fmt.Fprintf(&page, "| %s | %s | %s | %s |\n", what, fmt.Sprintf(formula, args...), p.text, money(n*p.dollars))
		total += n * p.dollars
	}
	table("every month")
	row(fmt.Sprintf("%d alarms on metrics", count["AWS::CloudWatch::Alarm"]-onQuery), float64(onMetrics), alarmMetric, "%d metrics in them", onMetrics)
	row("dashboard", float64(count["AWS::CloudWatch::Dashboard"]), dashboardEach, "%d", count["AWS::CloudWatch::Dashboard"])
	row("metrics `Ready` and `Overdue`", 2, customMetric, "2")
	row("self-checks: Lambda requests", selfChecks, request, "%.0f hours × %.0f", hours, selfChecks/hours)
	seconds, written := selfChecks*selfCheckSeconds*memory, selfChecks*selfCheckKB/1e6
	row("self-checks: Lambda duration", seconds, gbSecond, "%.0f × %.0f s × %.2f GB = %.0f GB-s", selfChecks, selfCheckSeconds, memory, seconds)
	row("self-checks: log", written, logGB, "%.0f × %.0f KB = %.4f GB", selfChecks, selfCheckKB, written)
	row("self-checks: stored log", written*retention*24/hours, storedGB, "%.4f GB × %.0f days / %.1f days", written, retention, hours/24)
	fmt.Fprintf(&page, "| **together** | | | **%s** |\n", money(total))
	inReadme := fmt.Sprintf("about $%.0f a", total)

	table("if you use it")
	row(fmt.Sprintf("%d alarm on a query", onQuery), 1, alarmMetric, "a month, for each group with a failed replacement")
	row("secret for authentication, the CA or CAST AI", 1, secretEach, "a month, each")
	row("interface endpoint, in a VPC without NAT", hours, endpointHour, "each service, in each zone: %.0f hours a month", hours)
	row("dashboard or `kops-spot report`", 1, scannedGB, "each query, for each GB of log")

	table("each event")
	row("Spot warning: Lambda, until the node is empty", noticeSeconds*memory, gbSecond, "at most %.0f s × %.2f GB = %.0f GB-s", noticeSeconds, memory, noticeSeconds*memory)
	row("Spot warning: log", interruptionKB/1e6, logGB, "%.0f KB, more with hundreds of pods", interruptionKB)
	row("Spot warning: start and end on the event bus", 2, busEvent, "2")
	if conditional["AWS::Events::ApiDestination"] {
		row("Spot warning: `NotifyUrl`", 2, destination, "at most 2")
	}
	row("Spot warning: email", 2, email, "at most 2")
	names := len(measured(t)) - 2 // without Ready and Overdue
	row("hour with interruptions: metrics", float64(2*names+1)/hours, customMetric, "at most %d names by cluster and by result, "+
		"and `ReplacementFailed` by group: %d / %.0f hours", names, 2*names+1, hours)
	row("another instance of the region starts or ends", otherSeconds*memory, gbSecond, "at most %.0f s × %.2f GB", otherSeconds, memory)
	row(fmt.Sprintf("failed event in one of %d queues", count["AWS::SQS::Queue"]), 3, queueRequest, "sent, received, deleted: 3 requests")

	for kind := range conditional {
		if word, known := billed[kind]; !known || !strings.Contains(page.String(), word) {
			t.Errorf("docs/costs.md does not say whether %s costs something", kind)
		}
	}
	generated(t, "docs/costs.md", "costs", page.String()[1:])
	if readme, err := os.ReadFile(filepath.Join(Root(), "README.md")); err != nil || !strings.Contains(string(readme), inReadme) {
		t.Errorf("README.md does not say %q: %v", inReadme, err)
	}
}

// money prints dollars with two significant digits, or cents.
func money(dollars float64) string {
	digits := 2
	if dollars < 0.1 {
		digits = 1 - int(math.Floor(math.Log10(dollars)))
	}
	return "$" + strconv.FormatFloat(dollars, 'f', digits, 64)
}
