package iam_test

import (
	"slices"
	"testing"

	"github.com/castai/kops-spot/iam"
)

func TestInstancesOfOthersStayOutOfGroups(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, untagged, _ := someThings()
	// Auto Scaling checks only the group's owner: an attached instance could be terminated with the group.
	d.never(aGroup.arn(own), own.facts(), "autoscaling:AttachInstances", "autoscaling:AttachLoadBalancerTargetGroups",
		"autoscaling:PutLifecycleHook", "autoscaling:PutScalingPolicy", "autoscaling:StartInstanceRefresh",
		"autoscaling:CreateAutoScalingGroup")
	for _, th := range []thing{own, other, untagged} {
		d.never(aGroup.arn(th), with(facts{"aws:RequestTag/KubernetesCluster": "prod.example.com",
			"aws:TagKeys": []string{"KubernetesCluster"}})(th),
			"autoscaling:CreateOrUpdateTags", "autoscaling:DeleteTags")
		// A group on the newest version of its template launches whatever that version says, without a check by IAM.
		d.never(aLaunchTemplate.arn(th), th.facts(), "ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate",
			"ec2:DeleteLaunchTemplate")
	}
	prove(t, d.calls)
}

// TestSimilarGroupNames: a group's name ends in its cluster's name, which can be the end of another cluster's name.
func TestSimilarGroupNames(t *testing.T) {
	t.Parallel()
	subjects := []subject{{userOf(clusterA), userRows}, {functionOf(clusterA, false), functionRows}}
	var calls []call
	for _, s := range subjects {
		d := &denials{actor: s.actor}
		for _, r := range s.rows {
			if r.on.name != aGroup.name {
				continue
			}
			for _, cluster := range []string{"a.prod.example.com", "xprod.example.com", "prod.example.com.evil.example",
				"prod-example.com", "example.com"} {
				theirs := thing{tag: cluster, region: region, account: account, name: clusterA}
				d.never(groupARN(theirs, "nodes."+cluster), theirs.facts(), r.actions...)
				theirs.tag = ""
				d.never(groupARN(theirs, "nodes."+cluster), theirs.facts(), r.actions...)
			}
			unlike := thingOf(clusterA)
			d.never(groupARN(unlike, "prod.example.com"), unlike.facts(), r.actions...)
			d.never(groupARN(unlike, "nodes.xprod.example.com"), unlike.facts(), r.actions...)
			d.never(groupARN(unlike, "nodes.prod.example.com.evil.example"), unlike.facts(), r.actions...)
		}
		calls = append(calls, d.calls...)
	}
	prove(t, calls)
}

func TestInstancesStayInTheirSecurityGroups(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, _, neighbour := someThings()
	for _, group := range []thing{other, neighbour} {
		d.add("moving its own instance", d.actor.does("ec2:ModifyInstanceAttribute", anInstance.arn(own), own.facts()),
			d.actor.does("ec2:ModifyInstanceAttribute", aSecurityGroup.arn(group), group.facts()))
	}
	prove(t, d.calls)
}

func TestFunctionsAndRulesOfOtherClusters(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, _, _ := someThings()
	function := aFunction.arn(own)
	for _, theirs := range []string{
		aFunction.arn(other), function + "-2", function + "_2", own.arn("lambda", "function:payments"),
		own.arn("lambda", "function:cast-kops-"),
	} {
		d.never(theirs, own.facts(), "lambda:CreateFunction", "lambda:UpdateFunctionCode",
			"lambda:UpdateFunctionConfiguration", "lambda:DeleteFunction", "lambda:RemovePermission",
			"lambda:PutFunctionEventInvokeConfig")
		d.never(theirs, with(facts{"lambda:Principal": "events.amazonaws.com"})(own), "lambda:AddPermission")
	}
	for _, who := range []string{"*", otherAccount, "arn:aws:iam::" + otherAccount + ":root", "s3.amazonaws.com"} {
		d.never(function, with(facts{"lambda:Principal": who})(own), "lambda:AddPermission")
	}
	d.add("giving its function another cluster's role",
		d.actor.does("lambda:UpdateFunctionConfiguration", function, own.facts()),
		d.actor.does("iam:PassRole", aFunctionRole.arn(other), facts{"iam:PassedToService": "lambda.amazonaws.com"}))
	d.add("creating its function with an administrator's role",
		d.actor.does("lambda:CreateFunction", function, own.facts()),
		d.actor.does("iam:PassRole", admin, facts{"iam:PassedToService": "lambda.amazonaws.com"}))
	d.never(function, own.facts(), "lambda:InvokeFunction", "lambda:PutFunctionConcurrency",
		"lambda:CreateFunctionUrlConfig")

	rule := aRule.arn(own)
	target := with(facts{"events:TargetArn": []string{clusterA.FunctionARN()}})(own)
	for _, theirs := range []string{
		aRule.arn(other), own.arn("events", "rule/payments"),
		own.arn("events", "rule/cast-kops-"+iam.Name("prod.example.com")+"-x.interruption"),
	} {
		d.never(theirs, target, "events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule",
			"events:DisableRule")
	}
	for name, targets := range map[string][]string{
		"another cluster's function":   {clusterB.FunctionARN()},
		"its own and another function": {clusterA.FunctionARN(), own.arn("lambda", "function:payments")},
		"an EC2 action":                {own.arn("events", "target/terminate-instance")},
		"a queue":                      {clusterB.Queues[0]},
	} {
		d.add("sending its rule's events to "+name,
			d.actor.does("events:PutTargets", rule, with(facts{"events:TargetArn": targets})(own)))
	}
	prove(t, d.calls)
}

func TestResourcesCannotBeTaggedIntoTheCluster(t *testing.T) {
	t.Parallel()
	d := asUser()
	_, other, untagged, neighbour := someThings()
	for name, th := range map[string]thing{"another's": other, "no cluster's": untagged, "a neighbour's": neighbour} {
		for _, k := range []kind{anInstance, aSubnet} {
			for key, value := range map[string]string{
				"KubernetesCluster": "prod.example.com", "kubernetescluster": "prod.example.com",
				"kubernetes.io/cluster/prod.example.com": "owned", "cast-cluster": "prod.example.com", "Name": "mine",
			} {
				tags := with(facts{"aws:TagKeys": []string{key}, "aws:RequestTag/" + key: value})(th)
				d.add("tagging "+name+" "+k.name+" with "+key, d.actor.does("ec2:CreateTags", k.arn(th), tags))
				d.add("untagging "+name+" "+k.name+" of "+key, d.actor.does("ec2:DeleteTags", k.arn(th), tags))
			}
		}
	}
	prove(t, d.calls)
}

// TestUserWithoutTagsCreatesNothing: without the user's tags, the managed policy allows nothing.
func TestUserWithoutTagsCreatesNothing(t *testing.T) {
	t.Parallel()
	user := userOf(clusterA)
	user.documents, user.facts = user.ours(iam.ManagedPolicy), facts{}
	d := &denials{actor: user}
	own := thingOf(clusterA)
	inNoClusters := []string{aNewVolume.arn(own), aNewSpotRequest.arn(own)}
	for _, r := range userRows {
		of := r.facts
		if of == nil {
			of = thing.facts
		}
		if !slices.Contains(inNoClusters, r.on.arn(own)) {
			d.never(r.on.arn(own), of(own), r.actions...)
		}
	}
	d.add("launching", launchOf(clusterA).by(user)...)
	prove(t, d.calls)
}
