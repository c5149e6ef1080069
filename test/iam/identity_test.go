package iam_test

import (
	"testing"

	"github.com/castai/kops-spot/iam"
)

func TestPassRole(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, _, _ := someThings()
	for _, service := range []string{"ec2.amazonaws.com", "lambda.amazonaws.com", "states.amazonaws.com",
		"events.amazonaws.com", "autoscaling.amazonaws.com"} {
		to := facts{"iam:PassedToService": service}
		for name, role := range map[string]string{
			"an administrator's role":                  admin,
			"the control plane's role":                 "arn:aws:iam::" + account + ":role/masters.prod.example.com",
			"another cluster's nodes' role":            aNodesRole.arn(other),
			"another cluster's function's role":        aFunctionRole.arn(other),
			"a role created by another cluster's user": aRole.arn(other),
			"a role on a similar path":                 "arn:aws:iam::" + account + ":role/cast-kops/" + iam.Name("prod.example.com") + "-x/cast-node-general",
			"a role with a name like the function's":   aFunctionRole.arn(own) + "-x",
		} {
			d.add("passing "+name+" to "+service, d.actor.does("iam:PassRole", role, to))
		}
		if service != "ec2.amazonaws.com" {
			d.add("passing its nodes' role to "+service, d.actor.does("iam:PassRole", aNodesRole.arn(own), to))
			d.add("passing a role that it created to "+service, d.actor.does("iam:PassRole", aRole.arn(own), to))
		}
		if service != "lambda.amazonaws.com" {
			d.add("passing its function's role to "+service, d.actor.does("iam:PassRole", aFunctionRole.arn(own), to))
		}
	}
	d.add("passing a role to an unknown service", d.actor.does("iam:PassRole", aRole.arn(own), nil))
	prove(t, d.calls)
}

func TestCreateRoleRequiresTheBoundary(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, _, _ := someThings()
	boundary := bounded(own)
	elsewhere := facts{"iam:PermissionsBoundary": "arn:aws:iam::" + account + ":policy/PowerUsers"}

	d.add("creating a role without a boundary", d.actor.does("iam:CreateRole", aRole.arn(own), nil))
	d.add("creating a role with another boundary", d.actor.does("iam:CreateRole", aRole.arn(own), elsewhere))
	d.add("creating a role and adding a policy, without a boundary",
		d.actor.does("iam:CreateRole", aRole.arn(own), nil), d.actor.does("iam:PutRolePolicy", aRole.arn(own), nil))
	d.add("creating a role on another cluster's path", d.actor.does("iam:CreateRole", aRole.arn(other), boundary))
	d.add("creating a role without a path", d.actor.does("iam:CreateRole",
		"arn:aws:iam::"+account+":role/cast-node-general", boundary))
	d.add("creating a role that onboarding another cluster would use for its function",
		d.actor.does("iam:CreateRole", "arn:aws:iam::"+account+":role"+iam.RolePath("prod.example.com")+
			clusterB.FunctionRole, boundary))
	d.add("adding a policy to a role without a boundary", d.actor.does("iam:PutRolePolicy", aRole.arn(own), nil))
	for _, role := range []string{admin, aNodesRole.arn(own), aFunctionRole.arn(own), aNodesRole.arn(other),
		aFunctionRole.arn(other), aRole.arn(other)} {
		for _, f := range []facts{nil, boundary} {
			d.never(role, f, "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole",
				"iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:TagRole")
		}
	}
	d.never(aRole.arn(own), boundary, "iam:PutRolePermissionsBoundary", "iam:DeleteRolePermissionsBoundary",
		"iam:UpdateAssumeRolePolicy", "iam:TagRole", "iam:UntagRole")
	d.never(aRole.arn(own), elsewhere, "iam:PutRolePermissionsBoundary")

	for name, role := range map[string]string{
		"a role that it created": aRole.arn(own), "its function's role": aFunctionRole.arn(own),
		"its nodes' role": aNodesRole.arn(own),
	} {
		for _, policy := range []string{"AdministratorAccess", "IAMFullAccess", "AmazonEC2FullAccess"} {
			d.add("attaching "+policy+" to "+name,
				d.actor.does("iam:AttachRolePolicy", role, attaching("aws", policy, bounded)(own)))
		}
		d.add("attaching the users' policy to "+name,
			d.actor.does("iam:AttachRolePolicy", role, attaching(account, "CASTKopsPolicyV2", bounded)(own)))
	}
	prove(t, d.calls)
}

// TestRoleMadeByTheUser: the boundary leaves it reads, whatever its policies and its tags. TestNothingOfOthers has the
// writes of all documents.
func TestRoleMadeByTheUser(t *testing.T) {
	t.Parallel()
	d := &denials{actor: roleMadeBy(clusterA)}
	d.never(admin, nil, "sts:AssumeRole", "iam:PassRole", "iam:AttachRolePolicy")
	var calls []call
	for action, on := range map[string]string{"ec2:DescribeInstances": "*",
		"ecr:BatchGetImage": thingOf(clusterB).arn("ecr", "repository/theirs")} { // of everybody: docs/iam.md says it
		calls = append(calls, call{action, []request{d.actor.does(action, on, nil)}, true})
	}
	prove(t, append(d.calls, calls...))
}

func TestUserCannotChangeIdentities(t *testing.T) {
	t.Parallel()
	d := asUser()
	for _, user := range []string{clusterA.UserARN(), clusterB.UserARN(), "arn:aws:iam::" + account + ":user/admin"} {
		d.never(user, facts{"aws:TagKeys": []string{iam.TagCluster},
			"aws:RequestTag/" + iam.TagCluster: "staging.example.com"}, "iam:TagUser", "iam:UntagUser")
		d.never(user, facts{"iam:PolicyARN": "arn:aws:iam::aws:policy/AdministratorAccess"}, "iam:AttachUserPolicy",
			"iam:DetachUserPolicy")
		d.never(user, nil, "iam:CreateUser", "iam:PutUserPolicy", "iam:DeleteUserPolicy",
			"iam:PutUserPermissionsBoundary", "iam:DeleteUserPermissionsBoundary", "iam:CreateAccessKey",
			"iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:CreateLoginProfile", "iam:UpdateLoginProfile")
	}
	for _, policy := range []string{clusterA.PolicyARN(iam.ManagedPolicy), clusterA.PolicyARN(iam.Boundary),
		"arn:aws:iam::" + account + ":policy/Admins"} {
		d.never(policy, nil, "iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:SetDefaultPolicyVersion",
			"iam:DeletePolicyVersion", "iam:DeletePolicy", "iam:TagPolicy")
	}
	d.never("arn:aws:iam::"+account+":group/admins", nil, "iam:AddUserToGroup", "iam:PutGroupPolicy",
		"iam:AttachGroupPolicy")
	d.never("arn:aws:s3:::state/kops/prod.example.com/pki/private/kubernetes-ca/keyset.yaml", nil, "s3:GetObject")
	d.never(clusterA.FunctionRoleARN(), nil, "sts:AssumeRole")
	d.never(aNodesRole.arn(thingOf(clusterA)), nil, "sts:AssumeRole")
	d.never(admin, nil, "sts:AssumeRole")
	prove(t, d.calls)
}

func TestInstanceProfileRoles(t *testing.T) {
	t.Parallel()
	d := asUser()
	own, other, _, _ := someThings()
	add := func(profile, role string) []request {
		return []request{
			d.actor.does("iam:AddRoleToInstanceProfile", profile, nil),
			d.actor.does("iam:PassRole", role, facts{"iam:PassedToService": "ec2.amazonaws.com"}),
		}
	}
	for _, role := range []string{admin, aNodesRole.arn(other), aFunctionRole.arn(own), aRole.arn(other)} {
		d.add("adding "+role+" to its own profile", add(aProfile.arn(own), role)...)
	}
	for _, profile := range []string{"arn:aws:iam::" + account + ":instance-profile/nodes.prod.example.com",
		aProfile.arn(other)} {
		d.add("adding its own role to "+profile, add(profile, aRole.arn(own))...)
		d.never(profile, nil, "iam:RemoveRoleFromInstanceProfile", "iam:DeleteInstanceProfile",
			"iam:CreateInstanceProfile")
	}
	for _, th := range []thing{own, other} {
		d.never(anInstance.arn(th), th.facts(), "ec2:AssociateIamInstanceProfile",
			"ec2:ReplaceIamInstanceProfileAssociation")
	}
	calls := append(d.calls, call{"adding its own role to its own profile", add(aProfile.arn(own), aRole.arn(own)),
		true})
	prove(t, calls)
}
