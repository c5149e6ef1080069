package iam_test

import (
	"testing"

	"github.com/castai/kops-spot/iam"
)

// TestFunctionCannotEscalate: whoever can change its code gets no more permissions than its role has. TestNothingOfOthers
// has what the documents of the others allow.
func TestFunctionCannotEscalate(t *testing.T) {
	t.Parallel()
	own, other, _, _ := someThings()
	var calls []call
	for _, function := range []actor{functionOf(clusterA, false), functionOf(clusterA, false).withGuidePermissions()} {
		d := &denials{actor: function}
		for _, role := range []string{admin, aFunctionRole.arn(own), aFunctionRole.arn(other), aNodesRole.arn(own)} {
			d.never(role, facts{"iam:PassedToService": "lambda.amazonaws.com"}, "iam:PassRole", "sts:AssumeRole")
		}
		d.never(own.arn("secretsmanager", "secret:cast-kops/prod.example.com/access-key-AbCdEf"), own.facts(),
			"secretsmanager:GetSecretValue")
		calls = append(calls, d.calls...)
	}
	prove(t, calls)
}

func TestFunctionWritesOnlyItsLog(t *testing.T) {
	t.Parallel()
	d := &denials{actor: functionOf(clusterA, false)}
	own := thingOf(clusterA)
	for _, group := range []string{iam.LogGroup("prod.example.com") + "-2", iam.LogGroup("prod.example.com") + "_2",
		"/aws/lambda/payments", "/aws/lambda/"} {
		d.never(own.arn("logs", "log-group:"+group), own.facts(), "logs:CreateLogGroup", "logs:DeleteLogGroup",
			"logs:PutRetentionPolicy")
		d.never(own.arn("logs", "log-group:"+group+":log-stream:1"), own.facts(), "logs:CreateLogStream",
			"logs:PutLogEvents")
	}
	// A late log line must not create the group again: it would have no retention, and block the next installation.
	d.never(aLogGroup.arn(own), own.facts(), "logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:PutRetentionPolicy",
		"logs:PutSubscriptionFilter")
	prove(t, d.calls)
}

func TestOnlyLambdaAssumesTheFunctionRole(t *testing.T) {
	t.Parallel()
	assume := func(who string, f facts) request {
		return request{Principal: who, Account: account, Action: "sts:AssumeRole", Resource: clusterA.FunctionRoleARN(),
			ResourcePolicy: named("prod.example.com", trust), Facts: f}
	}
	ours, theirs := facts{"aws:SourceAccount": account}, facts{"aws:SourceAccount": otherAccount}
	calls := []call{
		{"Lambda, for our account", []request{assume("lambda.amazonaws.com", ours)}, true},
		{"Lambda, for another account", []request{assume("lambda.amazonaws.com", theirs)}, false},
		{"Lambda, without an account", []request{assume("lambda.amazonaws.com", nil)}, false},
	}
	for _, service := range []string{"ec2", "states", "events", "apigateway"} {
		calls = append(calls, call{service, []request{assume(service+".amazonaws.com", ours)}, false})
	}
	for _, who := range []string{clusterA.UserARN(), admin, "arn:aws:iam::" + otherAccount + ":user/somebody"} {
		calls = append(calls, call{who, []request{assume(who, ours)}, false})
	}
	prove(t, calls)
}
