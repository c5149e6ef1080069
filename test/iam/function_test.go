package iam_test

import (
	"testing"

	"github.com/castai/kops-spot/iam"
)

// TestFunctionTagsOnlyItsInstances and terminates none, in both modes.
func TestFunctionTagsOnlyItsInstances(t *testing.T) {
	t.Parallel()
	own, other, untagged, _ := someThings()
	var calls []call
	for _, function := range []actor{functionOf(clusterA, false), functionOf(clusterA, false).withGuidePermissions()} {
		d := &denials{actor: function}
		for _, th := range []thing{other, untagged} {
			d.never(anInstance.arn(th), with(facts{"aws:TagKeys": []string{"KubernetesCluster"},
				"aws:RequestTag/KubernetesCluster": "prod.example.com"})(th),
				"ec2:CreateTags", "ec2:DeleteTags")
		}
		for _, key := range []string{"KubernetesCluster", "kubernetes.io/cluster/staging.example.com", "cast:cluster",
			"Name"} {
			d.never(anInstance.arn(own),
				with(facts{"aws:TagKeys": []string{"cast:interrupted-at", key}, "aws:RequestTag/" + key: "x"})(own),
				"ec2:CreateTags", "ec2:DeleteTags")
		}
		d.never(anInstance.arn(own), with(handlerTags)(own), "ec2:DeleteTags")
		d.never(anInstance.arn(own), own.facts(), "ec2:DeleteTags", "ec2:StopInstances", "ec2:ModifyInstanceAttribute",
			"ec2:RunInstances")
		d.never(anInstance.arn(own), with(facts{"aws:ResourceTag/cast:interrupted-at": "2026-11-02T12:00:00Z"})(own),
			"ec2:TerminateInstances")
		calls = append(calls, d.calls...)
	}
	prove(t, calls)
}

// TestFunctionCannotEscalate: whoever can change its code gets no more permissions than its role has.
func TestFunctionCannotEscalate(t *testing.T) {
	t.Parallel()
	own, other, _, _ := someThings()
	var calls []call
	for _, function := range []actor{functionOf(clusterA, false), functionOf(clusterA, false).withGuidePermissions()} {
		d := &denials{actor: function}
		for _, role := range []string{admin, aFunctionRole.arn(own), aFunctionRole.arn(other), aNodesRole.arn(own)} {
			d.never(role, facts{"iam:PassedToService": "lambda.amazonaws.com"},
				"iam:PassRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:UpdateAssumeRolePolicy",
				"sts:AssumeRole")
		}
		for _, user := range []string{clusterA.UserARN(), clusterB.UserARN()} {
			d.never(user, nil, "iam:CreateAccessKey", "iam:TagUser", "iam:PutUserPolicy")
		}
		for _, th := range []thing{own, other} {
			d.never(aFunction.arn(th), th.facts(), "lambda:UpdateFunctionCode", "lambda:UpdateFunctionConfiguration",
				"lambda:AddPermission")
			d.never(aRule.arn(th), th.facts(), "events:PutRule", "events:PutTargets")
			d.never(aSecret.arn(th), th.facts(), "secretsmanager:PutSecretValue")
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
	d.never(aLogGroup.arn(own), own.facts(), "logs:DeleteLogGroup", "logs:PutRetentionPolicy",
		"logs:PutSubscriptionFilter")
	prove(t, d.calls)
}

// TestOnlyLambdaUsesTheNetworkPermissions: a request about a network interface has only its subnet, which can contain
// interfaces of many functions and clusters.
func TestOnlyLambdaUsesTheNetworkPermissions(t *testing.T) {
	t.Parallel()
	own := thingOf(clusterA)
	var calls []call
	for _, function := range []actor{functionOf(clusterA, false), functionOf(clusterA, false).withGuidePermissions()} {
		d := &denials{actor: function}
		for _, r := range lambdaRows {
			d.never(r.on.arn(own), own.facts(), r.actions...)
		}
		calls = append(calls, d.calls...)
	}
	prove(t, calls)
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
