package install

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// TestInvalidParameters are refused by CloudFormation at once or after the transform. Nothing remains of that.
func TestInvalidParameters(t *testing.T) {
	const (
		why    = "Parameter Reserve failed to satisfy constraint: it is from 0s to 30s"
		advice = "\nif a parameter is wrong, set it with --set NAME=VALUE and run this again; docs/stack.md describes the parameters"
		early  = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]"
		failed = "DescribeStacks CreateChangeSet DescribeChangeSet DescribeEvents DescribeStacks ListChangeSets DeleteStack"
	)
	conflict := func(id, kind, name string) string {
		return `<member><EventType>VALIDATION_ERROR</EventType><LogicalResourceId>` + id + `</LogicalResourceId><ResourceType>` + kind + `</ResourceType>` +
			`<ValidationName>NAME_CONFLICT_VALIDATION</ValidationName><ValidationFailureMode>FAIL</ValidationFailureMode><ValidationStatus>FAILED</ValidationStatus>` +
			`<ValidationStatusReason>Resource of type '` + kind + `' with identifier '` + name + `' already exists.</ValidationStatusReason></member>`
	}
	inReview := []string{"", "REVIEW_IN_PROGRESS"}
	for name, c := range map[string]struct {
		s           cloudFormation
		says, calls string
	}{
		"at once":       {cloudFormation{refuses: why}, why + advice, "DescribeStacks CreateChangeSet"},
		"afterwards":    {cloudFormation{fails: why, statuses: inReview}, why + advice, failed},
		"no details":    {cloudFormation{fails: early, statuses: inReview}, early + advice, failed},
		"denied":        {cloudFormation{fails: early, denied: "DescribeEvents", statuses: inReview}, early + ": to see the details, allow cloudformation:DescribeEvents and run this again" + advice, failed},
		"invalid value": {cloudFormation{fails: early, invalid: `<member><LogicalResourceId>Q</LogicalResourceId><ResourceType>AWS::X::Y</ResourceType><ValidationStatusReason>#/A: wrong</ValidationStatusReason></member>`, statuses: inReview}, "early validation has failed\n  Q (AWS::X::Y): #/A: wrong\nfix that and run this again", failed},
		"taken names": {cloudFormation{fails: early, statuses: inReview, invalid: conflict("LogGroup", "AWS::Logs::LogGroup", "/aws/lambda/f") +
			conflict("Queue", "AWS::SQS::Queue", "https://sqs.eu-west-1.amazonaws.com/123456789012/q") + conflict("FunctionRole", "AWS::IAM::Role", "r") +
			conflict("Alarm", "AWS::CloudWatch::Alarm", "a.b") + conflict("Rule", "AWS::Events::Rule", "r.c") +
			conflict("Topic", "AWS::SNS::Topic", "arn:aws:sns:eu-west-1:123456789012:t") + conflict("Dashboard", "AWS::CloudWatch::Dashboard", "d") + conflict("F", "AWS::Lambda::Function", "f") + conflict("Odd", "AWS::X::Y", "o")}, `early validation has failed
  LogGroup: Logs LogGroup /aws/lambda/f already exists: aws logs delete-log-group --log-group-name /aws/lambda/f --region eu-west-1
  Queue: SQS Queue https://sqs.eu-west-1.amazonaws.com/123456789012/q already exists: aws sqs delete-queue --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/q --region eu-west-1
  FunctionRole: IAM Role r already exists: aws iam delete-role --role-name r --region eu-west-1 (after its policies)
  Alarm: CloudWatch Alarm a.b already exists: aws cloudwatch delete-alarms --alarm-names a.b --region eu-west-1
  Rule: Events Rule r.c already exists: aws events delete-rule --name r.c --region eu-west-1 (after its targets: aws events remove-targets)
  Topic: SNS Topic arn:aws:sns:eu-west-1:123456789012:t already exists: aws sns delete-topic --topic-arn arn:aws:sns:eu-west-1:123456789012:t --region eu-west-1
  Dashboard: CloudWatch Dashboard d already exists: aws cloudwatch delete-dashboards --dashboard-names d --region eu-west-1
  F: Lambda Function f already exists: aws lambda delete-function --function-name f --region eu-west-1
  Odd: X Y o already exists
if nobody needs what exists, delete it and run this again`, failed},
	} {
		r, _ := newRun(t, &c.s)
		_, err := r.Plan(t.Context())
		if want := "planning stack cast-kops-prod-example-com-7405b0253a21: CloudFormation refuses it: " + c.says; !errors.Is(err, awsadmin.ErrRefused) || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", name, err, want)
		}
		if got := strings.Join(c.s.calls, " "); got != c.calls {
			t.Errorf("%s: the calls are %s, want %s", name, got, c.calls)
		}
	}
}

// TestRetryPassing: an operation that fails because AWS is not ready for it is repeated once, unless the stack or the plan
// has changed meanwhile.
func TestRetryPassing(t *testing.T) {
	const (
		role   = "Resource handler returned message: &quot;The role defined for the function cannot be assumed by Lambda. (Service: Lambda, Status Code: 400)&quot;"
		rights = "Resource handler returned message: &quot;The function's execution role does not have permissions to call SendMessage on arn:aws:sqs:eu-west-1:123456789012:q&quot;"
	)
	fails := func(status, reason string) *cloudFormation {
		return &cloudFormation{after: []string{status}, events: ended(status) + event("SpotHandlerFunction", "CREATE_FAILED", reason)}
	}
	passes := &cloudFormation{after: []string{"CREATE_COMPLETE"}, events: ended("CREATE_COMPLETE")}
	for name, c := range map[string]struct {
		status, reason string
		second         *cloudFormation
		calls, says    string
		meanwhile      func(*cloudFormation)
	}{
		"role of a new stack":         {"ROLLBACK_COMPLETE", role, passes, "CreateChangeSet ExecuteChangeSet DeleteStack CreateChangeSet ExecuteChangeSet", "", nil},
		"its rights, in an update":    {"UPDATE_ROLLBACK_COMPLETE", rights, passes, "CreateChangeSet ExecuteChangeSet CreateChangeSet ExecuteChangeSet", "", nil},
		"never ready":                 {"ROLLBACK_COMPLETE", role, &cloudFormation{after: []string{"ROLLBACK_COMPLETE"}, events: event("Again", "CREATE_FAILED", role)}, "CreateChangeSet ExecuteChangeSet DeleteStack CreateChangeSet ExecuteChangeSet", "cannot be assumed by Lambda", nil},
		"another reason":              {"ROLLBACK_COMPLETE", "no such subnet", passes, "CreateChangeSet ExecuteChangeSet", "no such subnet\nfix that and run this again", nil},
		"a failed rollback":           {"UPDATE_ROLLBACK_FAILED", rights, passes, "CreateChangeSet ExecuteChangeSet", "continue-update-rollback", nil},
		"a name that is taken by now": {"ROLLBACK_COMPLETE", "Resource of type 'AWS::Logs::LogGroup' with identifier '{&quot;/properties/LogGroupName&quot;:&quot;/aws/lambda/f&quot;}' already exists.", passes, "CreateChangeSet ExecuteChangeSet", "because\n  SpotHandlerFunction (AWS::Logs::LogGroup): Resource of type", nil},
		"updated by somebody else": {"UPDATE_ROLLBACK_COMPLETE", rights, passes, "CreateChangeSet ExecuteChangeSet", "somebody has changed the stack since then: run this again",
			func(s *cloudFormation) { s.events = ended("UPDATE_COMPLETE") + s.events }},
		"another plan": {"UPDATE_ROLLBACK_COMPLETE", rights, passes, "CreateChangeSet ExecuteChangeSet CreateChangeSet DeleteChangeSet", "the stack has changed since the plan was shown: run this again",
			func(s *cloudFormation) { s.adds = "Other" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fails(c.status, c.reason)
				s.second = c.second
				s.events = strings.ReplaceAll(s.events, "AWS::X::Y", "AWS::Logs::LogGroup")
				if strings.HasPrefix(c.status, "UPDATE") {
					s.statuses = []string{"UPDATE_COMPLETE"}
				}
				r, said := newRun(t, s)
				say := r.Say
				r.Say = func(e awsadmin.StackEvent) {
					if say(e); e.Status == "RETRY" && c.meanwhile != nil {
						c.meanwhile(s)
					}
				}
				p, err := r.Plan(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				err = r.Apply(t.Context(), p)
				if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v; want %q", err, c.says)
				}
				var calls []string
				for _, call := range s.calls {
					if !strings.HasPrefix(call, "Describe") && !strings.HasPrefix(call, "List") {
						calls = append(calls, call)
					}
				}
				if got := strings.Join(calls, " "); got != c.calls {
					t.Errorf("calls: %s, want %s", got, c.calls)
				}
				if retried := slices.ContainsFunc(*said, func(line string) bool { return strings.HasSuffix(line, " RETRY") }); retried != (strings.Count(c.calls, "Execute") > 1 || c.meanwhile != nil) {
					t.Errorf("said %q", *said)
				}
				if strings.Contains(c.reason, "already exists") && !strings.Contains(err.Error(), "\n    to delete it, run aws logs delete-log-group --log-group-name /aws/lambda/f --region eu-west-1\n") {
					t.Errorf("without the command: %v", err)
				}
			})
		})
	}
}

// TestTakenNames: what outlives its stack is deleted with the plan, or refused if somebody else may need it.
func TestTakenNames(t *testing.T) {
	const (
		name = "/aws/lambda/cast-kops-prod-example-com-7405b0253a21"
		log  = `{"logGroupName": "` + name + `", "storedBytes": 2049}, {"logGroupName": "` + name + `-2"}`
	)
	for what, c := range map[string]struct {
		s              cloudFormation
		row, says, pre string
	}{
		"none":      {cloudFormation{logs: `{"logGroupName": "` + name + `-2"}`}, "", "", ""},
		"log group": {cloudFormation{logs: log}, "delete log group " + name + ": no stack owns it; a late invocation may have created it; 3 KB, last event at 2026-01-01 00:00:00 UTC", "", "warn log group"},
		"log group of another stack": {cloudFormation{logs: log, stackOf: "mine"}, "",
			"it belongs to the stack mine: update that stack with sam deploy, or delete it with aws cloudformation delete-stack --stack-name mine --region eu-west-1 and run this again", "fail Logs LogGroup " + name},
		"function": {cloudFormation{function: true}, "",
			"it exists, and no stack owns it: if nobody needs it, run aws lambda delete-function --function-name cast-kops-prod-example-com-7405b0253a21 --region eu-west-1 and run this again",
			"fail Lambda Function cast-kops-prod-example-com-7405b0253a21"},
		"function with its log": {cloudFormation{function: true, logs: log}, "",
			"run aws lambda delete-function --function-name cast-kops-prod-example-com-7405b0253a21 --region eu-west-1 and run this again", "fail Lambda Function cast-kops-prod-example-com-7405b0253a21"},
		"function of our own dead stack": {cloudFormation{function: true, logs: log, statuses: []string{"DELETE_FAILED"}, stackOf: "cast-kops-prod-example-com-7405b0253a21"}, "", "", ""},
		"living stack":                   {cloudFormation{function: true, logs: log, statuses: []string{"CREATE_COMPLETE"}}, "", "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &c.s
				s.after, s.events = []string{"CREATE_COMPLETE"}, ended("CREATE_COMPLETE")
				r, _ := newRun(t, s)
				found, err := r.CheckNames(t.Context())
				if got := fmt.Sprint(found); err != nil || (len(found) > 0) != (c.pre != "") || !strings.HasPrefix(got, "[{"+c.pre) && c.pre != "" {
					t.Errorf("check: %s, %v", got, err)
				}
				away, err := r.PlanRemoval(t.Context())
				if c.s.function && rowIs(away.Stack, "delete log group "+name+": no stack owns it; a late invocation may have created it; 3 KB, last event at 2026-01-01 00:00:00 UTC") {
					t.Errorf("uninstall deletes the log of a function: %v", away.Stack.Changes)
				}
				if err != nil || !rowIs(away.Stack, c.row) && c.row != "" {
					t.Errorf("uninstall: %v, %v", err, away.Stack.Changes)
				}
				p, err := r.Plan(t.Context())
				if (err == nil) != (c.says == "") || err != nil && !strings.HasSuffix(err.Error(), c.says) {
					t.Fatalf("%v; want %q", err, c.says)
				}
				if err != nil || !rowIs(p, c.row) && c.row != "" {
					if c.says == "" {
						t.Errorf("the plan is %v; want %s", p.Changes, c.row)
					}
					return
				}
				s.calls = nil
				if err := r.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				if deletes := slices.Contains(s.calls, "DeleteLogGroup"); deletes != (c.row != "") ||
					deletes && slices.Index(s.calls, "DeleteLogGroup") > slices.Index(s.calls, "CreateChangeSet") {
					t.Errorf("calls: %q", s.calls)
				}
			})
		})
	}
}

// rowIs reports whether a plan has a row, with its reason.
func rowIs(p Plan, row string) bool {
	return slices.ContainsFunc(p.Changes, func(c change.Change) bool { return c.Row()+": "+c.Why == row })
}
