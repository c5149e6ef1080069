package operator

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	names "github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/test/testenv"
)

// awsError is an error in the form of the query protocol, or of S3.
func awsError(status int, code, message string) *testenv.Answer {
	e := "<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
	return &testenv.Answer{Status: status, Body: "<ErrorResponse>" + e + e[len("<Error>"):len(e)-len("</Error>")] + "</ErrorResponse>"}
}

func awsResult(operation, body string) *testenv.Answer {
	return &testenv.Answer{Status: http.StatusOK, Body: fmt.Sprintf("<%sResponse><%[1]sResult>%s</%[1]sResult></%[1]sResponse>", operation, body)}
}

// rolledBack lets the first execution of a change set fail, and CloudFormation roll it back: the stack stays as it is in
// moto, with nothing but the change set, until it is deleted.
func rolledBack(reason string) func(action string, form url.Values) *testenv.Answer {
	executed, rolled := false, false
	return func(action string, form url.Values) *testenv.Answer {
		stack := names.FunctionName(cluster)
		event := func(id, status, reason string) string {
			return "<member><EventId>" + id + "</EventId><LogicalResourceId>" + id + "</LogicalResourceId><ResourceType>AWS::Lambda::Function</ResourceType>" +
				"<ResourceStatus>" + status + "</ResourceStatus><ResourceStatusReason>" + reason + "</ResourceStatusReason><Timestamp>2099-01-01T00:00:00Z</Timestamp></member>"
		}
		switch {
		case action == "cloudformation:ExecuteChangeSet" && !executed:
			executed, rolled = true, true
			return awsResult("ExecuteChangeSet", "")
		case action == "cloudformation:DeleteStack":
			rolled = false
		case rolled && action == "cloudformation:DescribeStacks":
			return awsResult("DescribeStacks", "<Stacks><member><StackName>"+stack+"</StackName><StackId>"+form.Get("StackName")+"</StackId>"+
				"<StackStatus>ROLLBACK_COMPLETE</StackStatus><CreationTime>2026-01-01T00:00:00Z</CreationTime></member></Stacks>")
		case rolled && action == "cloudformation:DescribeStackEvents":
			return awsResult("DescribeStackEvents", "<StackEvents>"+event(stack, "ROLLBACK_COMPLETE", "")+event("SpotHandlerFunction",
				"CREATE_FAILED", reason)+"</StackEvents>")
		}
		return nil
	}
}

// once returns the answer for the first n calls of an action.
func once(n int, action string, a *testenv.Answer) func(string, url.Values) *testenv.Answer {
	return func(is string, _ url.Values) *testenv.Answer {
		if is != action || n == 0 {
			return nil
		}
		n--
		return a
	}
}

// recordedAnswers: AWS responds in ways that moto does not have, as it is recorded to. The installation waits for what
// passes by itself, and says what to do about the rest.
func recordedAnswers(t *testing.T) {
	w := home(t)
	before := w.snapshot()
	log := names.LogGroup(cluster)
	const early = "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early Validation errors, " +
		"use the DescribeEvents API for detailed failure information."
	failed := awsResult("DescribeChangeSet", "<Status>FAILED</Status><StatusReason>"+early+"</StatusReason>")
	for name, c := range map[string]struct {
		answers []func(string, url.Values) *testenv.Answer
		says    []string
		not     string
	}{
		"early validation": {[]func(string, url.Values) *testenv.Answer{once(1, "cloudformation:DescribeChangeSet", failed),
			once(1, "cloudformation:DescribeEvents", awsResult("DescribeEvents", "<OperationEvents><member><EventType>VALIDATION_ERROR</EventType>"+
				"<LogicalResourceId>FailureQueue</LogicalResourceId><ResourceType>AWS::SQS::Queue</ResourceType><ValidationFailureMode>FAIL</ValidationFailureMode>"+
				"<ValidationName>NAME_CONFLICT_VALIDATION</ValidationName><ValidationStatus>FAILED</ValidationStatus><ValidationStatusReason>Resource of type "+
				"'AWS::SQS::Queue' with identifier 'cast_kops-x-failures' already exists.</ValidationStatusReason></member></OperationEvents>"))},
			[]string{"FailureQueue: SQS Queue cast_kops-x-failures already exists: aws sqs delete-queue --queue-url https://sqs." + region + ".amazonaws.com/" + account +
				"/cast_kops-x-failures --region " + region, "if nobody needs what exists, delete it and run this again"}, "--set NAME=VALUE"},
		"early validation without details": {[]func(string, url.Values) *testenv.Answer{once(1, "cloudformation:DescribeChangeSet", failed)},
			[]string{"CloudFormation refuses it: " + strings.TrimSuffix(early, "."), "docs/stack.md"}, "delete it"},
		"a service control policy": {[]func(string, url.Values) *testenv.Answer{once(1, "cloudformation:CreateChangeSet", awsError(http.StatusForbidden, "AccessDenied",
			"User: arn:aws:iam::1:user/x is not authorized to perform: cloudformation:CreateChangeSet on resource: x with an explicit deny in a service control policy"))},
			[]string{"ask whoever manages the service control policy to allow it"}, "export-installer-policy"},
		"a secret that is scheduled for deletion": {[]func(string, url.Values) *testenv.Answer{once(1, "secretsmanager:DescribeSecret",
			&testenv.Answer{Status: http.StatusOK, Body: `{"Name": "cast-kops/` + cluster + `/token", "DeletedDate": 1767225600}`})},
			[]string{"is scheduled for deletion",
				"aws secretsmanager restore-secret --secret-id cast-kops/" + cluster + "/token --region " + region}, "run this again"},
	} {
		w.Reset()
		w.Answers(first(c.answers...))
		_, stderr, err := w.command(installed("--yes")...)
		for _, says := range c.says {
			if err == nil || !strings.Contains(stderr, says) {
				t.Errorf("%s: %v; want %q in\n%s", name, err, says, stderr)
			}
		}
		if strings.Contains(stderr, c.not) {
			t.Errorf("%s: %q in\n%s", name, c.not, stderr)
		}
		w.Reset()
		w.unchanged("after "+name, before)
	}

	// Everything that passes, in one run. A late invocation has created the log group.
	must(cloudwatchlogs.NewFromConfig(w.direct).CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &log}))
	said, stderr := w.mustRun(append([]string{"check", "--pre"}, installed()[1:]...)...)
	if !strings.Contains(stderr+said, "! log group       "+log+": no stack owns it; a late invocation may have created it; it is empty\n") {
		t.Errorf("check --pre does not name the log group:\n%s%s", stderr, said)
	}
	w.Answers(first(
		once(1, "secretsmanager:CreateSecret", &testenv.Answer{Status: http.StatusBadRequest, Body: `{"__type": "InvalidRequestException", ` +
			`"Message": "You can't create this secret because a secret with this name is already scheduled for deletion."}`}),
		once(2, "s3:PUTpublicAccessBlock=", awsError(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")),
		rolledBack("The role defined for the function cannot be assumed by Lambda."),
	))
	said, stderr = w.mustRun(installed("--yes")...)
	for _, says := range []string{"- delete log group", "The role defined for the function cannot be assumed by Lambda",
		"that passes within seconds: trying again in 10s", "is installed"} {
		if !strings.Contains(stderr+said, says) {
			t.Errorf("%q is missing in\n%s%s", says, stderr, said)
		}
	}
	w.Answers(nil)
	w.quiet()
	w.mustRun("uninstall", "--yes")
	w.withinDocumentedPermissions()
	w.unchanged("after uninstall", before)
}

// withinDocumentedPermissions checks that docs/install.md names the permission for every call that was made.
func (w *world) withinDocumentedPermissions() {
	w.Helper()
	_, table, _ := strings.Cut(string(must(os.ReadFile("../../docs/install.md"))), "\n## Permissions\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var patterns []string
	for line := range strings.SplitSeq(table, "\n") {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			patterns = append(patterns, regexp.MustCompile("`([^`]+)`").FindAllString(cells[1], -1)...)
		}
	}
	for _, action := range w.Called() {
		if !strings.HasPrefix(action, "sts:") && !slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, _ := path.Match(strings.Trim(pattern, "`"), action)
			return ok
		}) {
			w.Errorf("docs/install.md does not have the permission for %s", action)
		}
	}
	if !slices.Contains(w.Called(), "cloudformation:ExecuteChangeSet") {
		w.Error("the calls of install are not recorded")
	}
}

// first returns the answer of the first that has one.
func first(answers ...func(string, url.Values) *testenv.Answer) func(string, url.Values) *testenv.Answer {
	return func(action string, form url.Values) *testenv.Answer {
		for _, f := range answers {
			if a := f(action, form); a != nil {
				return a
			}
		}
		return nil
	}
}
