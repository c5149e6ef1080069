package iam_test

import (
	"path"
	"slices"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// An exception is a write that the guide's permissions of the function's role allow on other clusters' resources.
type exception struct {
	actions string // as in AWS's policy
	policy  string // as in docs/iam.md
}

func (e exception) covers(action string) bool {
	ok, err := path.Match(e.actions, action)
	return ok && err == nil
}

// exceptions are all exceptions. docs/iam.md has the same list.
var exceptions = []exception{
	{"logs:*", "CloudWatchLogsFullAccess"},
	{"lambda:InvokeFunction", "AWSLambdaRole"},
}

// TestGuidePermissionsHaveOnlyTheseExceptions expands AWS's policies to every action that they allow.
func TestGuidePermissionsHaveOnlyTheseExceptions(t *testing.T) {
	t.Parallel()
	var patterns []string
	for _, name := range slices.Concat(iam.GuideRoleManaged, iam.UserManaged) {
		for _, s := range statementsOf(t, managedByAWS[name]) {
			patterns = append(patterns, s.Action...)
		}
	}
	expanded := ask(t, question{Expand: patterns}).Expanded
	var all []string
	for pattern, actions := range expanded {
		if len(actions) == 0 {
			t.Errorf("%s is not an action", pattern)
		}
		all = append(all, actions...)
	}
	described := ask(t, question{Describe: all}).Actions
	used := map[exception]bool{}
	for name, a := range described {
		i := slices.IndexFunc(exceptions, func(e exception) bool { return e.covers(name) })
		switch {
		case i >= 0:
			used[exceptions[i]] = true
		case a.Write:
			t.Errorf("%s writes to everything in the account and is not a listed exception", name)
		}
	}
	for _, e := range exceptions {
		if !used[e] {
			t.Errorf("nothing allows the exception %s", e.actions)
		}
	}
}

func TestExceptionsComeFromTheGuideOnly(t *testing.T) {
	t.Parallel()
	other := thingOf(clusterB)
	var calls []call
	for _, c := range []struct {
		action string
		on     kind
	}{
		{"logs:CreateLogGroup", aLogGroup},
		{"logs:PutLogEvents", aLogStream},
		{"logs:DeleteLogGroup", aLogGroup},
		{"logs:PutRetentionPolicy", aLogGroup},
		{"lambda:InvokeFunction", aFunction},
	} {
		least, guide := functionOf(clusterA, false), functionOf(clusterA, false).withGuidePermissions()
		calls = append(calls,
			call{"guide: " + c.action, []request{guide.does(c.action, c.on.arn(other), other.facts())}, true},
			call{"least: " + c.action, []request{least.does(c.action, c.on.arn(other), other.facts())}, false})
	}
	prove(t, calls)
}
