package iam_test

import "github.com/castai/kops-spot/iam"

// A row lists actions that are allowed on the cluster's own resource of a kind. keys_test.go says what the request's
// condition keys change.
type row struct {
	actions []string
	on      kind
	facts   func(thing) facts // nil for those of the resource
	nobodys bool              // also allowed on a resource without a cluster's tag
	anyTag  bool              // the tag does not matter
	masters bool              // also allowed on the control plane's
}

// of returns the facts of a request about a resource.
func (r row) of(t thing) facts {
	if r.facts == nil {
		return t.facts()
	}
	return r.facts(t)
}

// The tags that the handler writes, and one that anybody may write.
var (
	handlerTags = facts{"aws:TagKeys": []string{"kops.k8s.io/detached-from-asg", "cast:interrupted-at"}}
	someTags    = facts{"aws:TagKeys": []string{"team"}, "aws:RequestTag/team": "platform"}
)

// userRows are what the guide says a cluster's user can do.
var userRows = []row{
	// Manage instances, Auto Scaling groups and node groups.
	{actions: []string{"ec2:StartInstances", "ec2:StopInstances", "ec2:RebootInstances", "ec2:TerminateInstances",
		"ec2:ModifyInstanceAttribute"},
		on: anInstance},
	{actions: []string{"autoscaling:SetDesiredCapacity", "autoscaling:UpdateAutoScalingGroup",
		"autoscaling:DeleteAutoScalingGroup", "autoscaling:SuspendProcesses", "autoscaling:ResumeProcesses",
		"autoscaling:DetachInstances", "autoscaling:TerminateInstanceInAutoScalingGroup",
		"autoscaling:SetInstanceProtection"}, on: aGroup},

	// RunInstances: IAM checks each of these.
	{actions: []string{"ec2:RunInstances"}, on: aNewInstance, facts: created("RunInstances")},
	{actions: []string{"ec2:RunInstances"}, on: aNewVolume, nobodys: true},
	{actions: []string{"ec2:RunInstances"}, on: aNewSpotRequest, nobodys: true},
	{actions: []string{"ec2:RunInstances"}, on: aNewInterface, anyTag: true},
	{actions: []string{"ec2:RunInstances"}, on: aSubnet},
	{actions: []string{"ec2:RunInstances"}, on: aSecurityGroup},
	{actions: []string{"ec2:RunInstances"}, on: aKeyPair, nobodys: true},
	{actions: []string{"ec2:RunInstances"}, on: aLaunchTemplate},
	{actions: []string{"ec2:RunInstances"}, on: anImage, nobodys: true},
	{actions: []string{"ec2:RunInstances"}, on: aSnapshot},
	{actions: []string{"iam:PassRole"}, on: aNodesRole, facts: with(facts{"iam:PassedToService": "ec2.amazonaws.com"})},

	// Security groups, key pairs.
	{actions: []string{"ec2:CreateSecurityGroup"}, on: aNewSecurityGroup, facts: created("CreateSecurityGroup")},
	{actions: []string{"ec2:CreateSecurityGroup"}, on: aVPC, anyTag: true},
	{actions: []string{"ec2:DeleteSecurityGroup", "ec2:AuthorizeSecurityGroupIngress",
		"ec2:AuthorizeSecurityGroupEgress", "ec2:RevokeSecurityGroupIngress",
		"ec2:RevokeSecurityGroupEgress"}, on: aSecurityGroup},
	{actions: []string{"ec2:CreateKeyPair", "ec2:ImportKeyPair"}, on: aNewKeyPair, facts: created("CreateKeyPair")},
	{actions: []string{"ec2:DeleteKeyPair"}, on: aKeyPair},

	// Tags of resources being created, and of existing ones.
	{actions: []string{"ec2:CreateTags"}, on: aNewInstance,
		facts: created("RunInstances", keysOfKops...)},
	{actions: []string{"ec2:CreateTags"}, on: aNewSecurityGroup, facts: created("CreateSecurityGroup")},
	{actions: []string{"ec2:CreateTags"}, on: aNewKeyPair, facts: created("ImportKeyPair")},
	{actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, on: anInstance, facts: with(someTags), masters: true},
	{actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, on: aVolume, facts: with(someTags), masters: true},
	{actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, on: aKeyPair, facts: with(someTags), masters: true},
	{actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, on: anInterface, facts: with(someTags), masters: true},
	{actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, on: aSecurityGroup, facts: with(someTags), masters: true},

	// Instance profiles and roles.
	{actions: []string{"iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:AddRoleToInstanceProfile",
		"iam:RemoveRoleFromInstanceProfile"}, on: aProfile},
	{actions: []string{"iam:CreateRole", "iam:DeleteRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy"}, on: aRole,
		facts: bounded},
	{actions: []string{"iam:AttachRolePolicy", "iam:DetachRolePolicy"}, on: aRole,
		facts: attaching("aws", "AmazonEC2ContainerRegistryReadOnly", bounded)},
	{actions: []string{"iam:PassRole"}, on: aRole, facts: with(facts{"iam:PassedToService": "ec2.amazonaws.com"})},

	// The function and its rules.
	{actions: []string{"lambda:CreateFunction", "lambda:UpdateFunctionConfiguration"}, on: aFunction},
	{actions: []string{"lambda:CreateFunction", "lambda:UpdateFunctionConfiguration"},
		on: kind{"function in the VPC", aFunction.arn, nil, false}, facts: inTheVPC},
	{actions: []string{"lambda:GetFunction", "lambda:GetFunctionConfiguration", "lambda:GetPolicy",
		"lambda:UpdateFunctionCode", "lambda:DeleteFunction", "lambda:TagResource", "lambda:RemovePermission",
		"lambda:PutFunctionEventInvokeConfig", "lambda:DeleteFunctionEventInvokeConfig"}, on: aFunction},
	{actions: []string{"lambda:AddPermission"}, on: aFunction,
		facts: with(facts{"lambda:Principal": "events.amazonaws.com"})},
	{actions: []string{"iam:PassRole"}, on: aFunctionRole,
		facts: with(facts{"iam:PassedToService": "lambda.amazonaws.com"})},
	{actions: []string{"events:PutRule", "events:DescribeRule", "events:EnableRule", "events:DisableRule",
		"events:DeleteRule", "events:TagResource", "events:ListTargetsByRule", "events:RemoveTargets"}, on: aRule},
	{actions: []string{"events:PutTargets"}, on: aRule, facts: func(t thing) facts {
		return with(facts{"events:TargetArn": []string{t.arn("lambda", last(t.name.FunctionARN()))}})(t)
	}},
}

// functionRows are the calls of the function's code.
var functionRows = []row{
	{actions: []string{"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingInstances",
		"autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLifecycleHooks"}, on: everything},
	{actions: []string{"ec2:CreateTags"}, on: anInstance, facts: with(handlerTags), masters: true},
	{actions: []string{"autoscaling:DetachInstances"}, on: aGroup},
	{actions: []string{"autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:CompleteLifecycleAction"}, on: aGroup,
		masters: true},
	{actions: []string{"secretsmanager:GetSecretValue"}, on: aSecret},
	{actions: []string{"ssm:GetParameter"}, on: aParameter},
	{actions: []string{"kms:Decrypt"}, on: aKey,
		facts: with(facts{"kms:ViaService": "secretsmanager." + region + ".amazonaws.com"})},
	{actions: []string{"logs:CreateLogStream", "logs:PutLogEvents"}, on: aLogStream},
	{actions: []string{"sqs:SendMessage"}, on: aQueue},
	{actions: []string{"events:PutEvents"}, on: theBus, facts: with(facts{"events:source": []string{"kops-spot"}})},
}

// lambdaRows are the calls of Lambda itself with the role of a function in a VPC.
var lambdaRows = []row{
	{actions: []string{"ec2:CreateNetworkInterface"}, on: theSubnet},
	{actions: []string{"ec2:CreateNetworkInterface"}, on: theSecurityGroup},
	{actions: []string{"ec2:CreateNetworkInterface"},
		on: aNewInterface, anyTag: true},
	{actions: []string{"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"}, on: everything},
	{actions: []string{"ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"},
		on: kind{"any interface", anInterface.arn, nil, true}},
}

// savingsRows are the calls of kops-spot savings.
var savingsRows = []row{
	{actions: []string{"ec2:DescribeInstances", "ec2:DescribeInstanceTypes", "ec2:DescribeSpotPriceHistory",
		"autoscaling:DescribeAutoScalingGroups", "pricing:GetProducts"}, on: everything},
}

// installerRows are the calls of the person who onboards a cluster.
var installerRows = []row{
	{actions: []string{"ec2:DescribeInstances", "ec2:DescribeVpcs", "ec2:DescribeSubnets", "ec2:DescribeSecurityGroups",
		"autoscaling:DescribeAutoScalingGroups", "iam:ListUsers", "iam:ListRoles", "iam:ListPolicies",
		"events:ListRuleNamesByTarget", "lambda:ListFunctions"}, on: everything},
	{actions: []string{"iam:GetInstanceProfile"}, on: kind{"any instance profile", aProfile.arn, nil, false}},
	{actions: []string{"iam:GetUser", "iam:CreateUser", "iam:DeleteUser", "iam:TagUser", "iam:UntagUser",
		"iam:ListUserTags", "iam:ListAttachedUserPolicies", "iam:ListUserPolicies", "iam:GetUserPolicy",
		"iam:PutUserPolicy", "iam:DeleteUserPolicy", "iam:ListAccessKeys", "iam:GetAccessKeyLastUsed",
		"iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:ListGroupsForUser",
		"iam:GetLoginProfile", "iam:ListMFADevices", "iam:ListSSHPublicKeys", "iam:ListSigningCertificates",
		"iam:ListServiceSpecificCredentials", "iam:PutUserPermissionsBoundary"}, on: aUser},
	{actions: []string{"iam:AttachUserPolicy", "iam:DetachUserPolicy"}, on: aUser,
		facts: attaching(account, "CASTKopsPolicyV2", thing.facts)},
	{actions: []string{"iam:GetRole", "iam:CreateRole", "iam:DeleteRole", "iam:UpdateAssumeRolePolicy", "iam:TagRole",
		"iam:UntagRole", "iam:ListRoleTags", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies",
		"iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy",
		"iam:PutRolePermissionsBoundary", "iam:ListInstanceProfilesForRole"}, on: aFunctionRole},
	{actions: []string{"iam:AttachRolePolicy", "iam:DetachRolePolicy"}, on: aFunctionRole,
		facts: attaching("aws", "CloudWatchLogsFullAccess", thing.facts)},
	{actions: []string{"iam:GetRole", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:GetRolePolicy",
		"iam:ListInstanceProfilesForRole"}, on: aRole},
	{actions: policyActions, on: sharedPolicy(iam.ManagedPolicy)},
	{actions: policyActions, on: sharedPolicy(iam.Document{Name: "CastKopsPolicyV2"})},
	{actions: policyActions, on: sharedPolicy(iam.Boundary)},
	{actions: policyActions, on: aClusterPolicy},
	{actions: []string{"secretsmanager:DescribeSecret", "secretsmanager:CreateSecret", "secretsmanager:PutSecretValue",
		"secretsmanager:TagResource", "secretsmanager:DeleteSecret"}, on: aSecret},
	{actions: []string{"s3:GetObject"}, on: aSpecification},
	{actions: []string{"s3:GetObject"}, on: aCompletedSpec},
	{actions: []string{"s3:GetObject"}, on: aGroupSpec},
	{actions: []string{"cloudformation:DescribeStacks"}, on: aStack},
	{actions: []string{"lambda:GetFunction", "lambda:GetPolicy", "lambda:DeleteFunction"},
		on: kind{"original function", func(t thing) string {
			return t.arn("lambda", "function:cast-ai-ec2-events-handler")
		}, []aspect{byRegion, byAccount}, false}},
	{actions: []string{"events:DescribeRule", "events:ListTargetsByRule", "events:RemoveTargets", "events:DeleteRule"},
		on: kind{"original rule", func(t thing) string { return t.arn("events", "rule/cast-ai-spot") },
			[]aspect{byRegion, byAccount}, false}},
}

var policyActions = []string{"iam:GetPolicy", "iam:CreatePolicy", "iam:DeletePolicy", "iam:TagPolicy",
	"iam:ListPolicyTags", "iam:ListPolicyVersions", "iam:GetPolicyVersion", "iam:CreatePolicyVersion",
	"iam:DeletePolicyVersion", "iam:ListEntitiesForPolicy"}

// inTheVPC are the facts of a function in the cluster's VPC.
func inTheVPC(t thing) facts {
	return facts{"aws:RequestedRegion": t.region, "lambda:VpcIds": t.name.VPC, "lambda:SubnetIds": t.name.Subnets,
		"lambda:SecurityGroupIds": t.name.SecurityGroups}
}

// keysOfKops are the keys of the tags that kOps' launch templates set, besides those with the cluster's name. The last
// two are of spec.cloudLabels.
var keysOfKops = []string{"k8s.io/role/node", "kops.k8s.io/instancegroup",
	"k8s.io/cluster-autoscaler/node-template/label/node-role.kubernetes.io/node", "aws-node-termination-handler/managed",
	"CostCenter", "team"}

// bounded are the facts of a role with the account's boundary.
func bounded(t thing) facts {
	return facts{"aws:RequestedRegion": "us-east-1",
		"iam:PermissionsBoundary": "arn:aws:iam::" + account + ":policy/CASTKopsBoundary"}
}

// attaching are the facts of a managed policy that is attached or detached.
func attaching(owner, policy string, more func(thing) facts) func(thing) facts {
	return func(t thing) facts {
		f := more(t)
		f["iam:PolicyARN"] = "arn:aws:iam::" + owner + ":policy/" + policy
		return f
	}
}
