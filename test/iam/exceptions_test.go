package iam_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// An exception is a permission that is not limited to the cluster. docs/iam.md has the same list.
type exception struct {
	actions string // as in the policy
	policy  string // that allows them, as in docs/iam.md
	who     string // in the name of the actor that has it; empty if that is an instance
}

func (e exception) covers(action string) bool {
	ok, err := path.Match(e.actions, action)
	return ok && err == nil
}

var exceptions = append(nodesExceptions(), []exception{
	{"ec2:Describe*", "AmazonEC2ReadOnlyAccess", "the user of"},
	{"ec2:RunInstances", "CASTKopsPolicyV2", "(rows with nobodys)"},
	{"ec2:Describe*", "CASTKopsBoundary", "a role created by"},
	{"ecr:BatchGetImage", "CASTKopsBoundary", "a role created by"},
	{"iam:Get*", "IAMReadOnlyAccess", "the user of"},
	{"iam:List*", "IAMReadOnlyAccess", "the user of"},
	{"ec2:DeleteNetworkInterface", "CASTKopsNetwork", "Lambda for"},
	{"ec2:AssignPrivateIpAddresses", "CASTKopsNetwork", "Lambda for"},
	{"ec2:UnassignPrivateIpAddresses", "CASTKopsNetwork", "Lambda for"},
	{"logs:*", "CloudWatchLogsFullAccess", "with the guide's permissions"},
	{"lambda:InvokeFunction", "AWSLambdaRole", "with the guide's permissions"},
}...)

// nodesExceptions are what kOps grants the nodes' roles, with which the user may launch.
func nodesExceptions() (all []exception) {
	for networking, actions := range kopsNodes {
		for _, action := range actions {
			all = append(all, exception{actions: action, policy: "nodes' role, " + networking})
		}
	}
	return all
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
		if !used[e] && strings.Contains(e.who, "guide") {
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
