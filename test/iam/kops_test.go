package iam_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// What kOps grants its instances' roles beyond the cluster, besides reading: pkg/model/iam/iam_builder.go of kOps 1.30,
// and of 1.22 for the cloud provider in the tree. The nodes' depend on the networking.
var (
	kopsMasters       = []string{"kms:CreateGrant", "kms:Decrypt", "kms:Encrypt", "sqs:DeleteMessage", "sqs:ReceiveMessage"}
	kopsLegacyMasters = []string{"ec2:CreateTags", "ec2:ModifyInstanceAttribute", "ec2:DeleteVolume",
		"ec2:AuthorizeSecurityGroupIngress"}
	kopsNodes = map[string][]string{
		"amazonvpc": {"ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses", "ec2:AttachNetworkInterface",
			"ec2:CreateNetworkInterface", "ec2:DetachNetworkInterface", "ec2:DeleteNetworkInterface",
			"ec2:ModifyNetworkInterfaceAttribute", "ec2:CreateTags"}, // the last on interfaces
		"IPv6":        {"ec2:AssignIpv6Addresses"},
		"calico":      {"ec2:ModifyNetworkInterfaceAttribute"},
		"kube-router": {"ec2:ModifyInstanceAttribute"},
	}
)

const hostedZone = "arn:aws:route53:::hostedzone/Z0123456789ABC" // has the records of both clusters

// managedByKops are policies with these permissions, by name.
var managedByKops = func() map[string]json.RawMessage {
	all := map[string]json.RawMessage{
		"masters":        allow(append(kopsMasters, "route53:ChangeResourceRecordSets")...),
		"legacy masters": allow(kopsLegacyMasters...),
	}
	for networking, actions := range kopsNodes {
		all["nodes with "+networking] = allow(actions...)
	}
	return all
}()

// An instance of cluster A, with the policies of its role.
func instanceWith(policies ...string) actor {
	return actor{name: "an instance with " + strings.Join(policies, ", "), cluster: clusterA, documents: policies,
		principal: "arn:aws:sts::" + account + ":assumed-role/role-of-kops/i-0123456789abcdef0"}
}

// reach are the ways to run code with the role of existing or new instances: each is one or more calls of the user.
func reach(role string, of thing) map[string][]request {
	user := userOf(clusterA)
	does := func(action string, k kind, more facts) request { return user.does(action, k.arn(of), with(more)(of)) }
	launch := launchOf(clusterA)
	launch.role = role
	return map[string][]request{
		"launching with the role": launch.by(user),
		"changing the user data of a stopped instance": {
			does("autoscaling:SuspendProcesses", aGroup, nil), does("ec2:StopInstances", anInstance, nil),
			does("ec2:ModifyInstanceAttribute", anInstance, facts{"ec2:Attribute": "UserData", "ec2:Attribute/UserData": "x"}),
			does("ec2:StartInstances", anInstance, nil)},
		"stopping":    {does("ec2:StopInstances", anInstance, nil)},
		"starting":    {does("ec2:StartInstances", anInstance, nil)},
		"rebooting":   {does("ec2:RebootInstances", anInstance, nil)},
		"terminating": {does("ec2:TerminateInstances", anInstance, nil)},
		"modifying":   {does("ec2:ModifyInstanceAttribute", anInstance, facts{"ec2:Attribute": "InstanceType"})},
		"retagging the role": {does("ec2:DeleteTags", anInstance,
			facts{"aws:TagKeys": []string{"k8s.io/role/control-plane", "k8s.io/role/master"}})},
		"suspending the group": {does("autoscaling:SuspendProcesses", aGroup, nil)},
		"shrinking the group":  {does("autoscaling:UpdateAutoScalingGroup", aGroup, nil)},
		"scaling the group":    {does("autoscaling:SetDesiredCapacity", aGroup, nil)},
		"detaching":            {does("autoscaling:DetachInstances", aGroup, nil)},
		"deleting the group":   {does("autoscaling:DeleteAutoScalingGroup", aGroup, nil)},
		"putting the role into a profile": {user.does("iam:AddRoleToInstanceProfile", aProfile.arn(of), nil),
			user.does("iam:PassRole", role, facts{"iam:PassedToService": "ec2.amazonaws.com"})},
		"replacing the profile": {does("ec2:ReplaceIamInstanceProfileAssociation", anInstance, nil)},
		"changing the role":     {user.does("iam:PutRolePolicy", role, bounded(of))},
		"assuming the role":     {user.does("sts:AssumeRole", role, nil)},
	}
}

// TestControlPlaneIsOutOfReach: kOps' policies of the control plane reach into other clusters, so the user must not get
// at any instance that has them.
func TestControlPlaneIsOutOfReach(t *testing.T) {
	t.Parallel()
	other := thingOf(clusterB)
	var calls []call
	for _, role := range []string{"control-plane", "master", "apiserver"} {
		master := thingOf(clusterA)
		master.role = role
		for way, requests := range reach("arn:aws:iam::"+account+":role/masters.prod.example.com", master) {
			calls = append(calls, call{role + ": " + way, requests, false})
		}
	}
	masters, legacy := instanceWith("masters"), instanceWith("legacy masters")
	zone := masters.does("route53:ChangeResourceRecordSets", hostedZone, nil)
	calls = append(calls, call{"the control plane changes the other's DNS records", []request{zone}, true},
		call{"the control plane takes the other's messages",
			[]request{masters.does("sqs:DeleteMessage", aQueue.arn(other), other.facts())}, true},
		call{"the legacy control plane tags the other's instance into the cluster", []request{
			legacy.does("ec2:CreateTags", anInstance.arn(other), with(facts{"aws:TagKeys": []string{"KubernetesCluster"},
				"aws:RequestTag/KubernetesCluster": "prod.example.com"})(other))}, true})
	prove(t, calls)
}

// TestNodesRoleReach: the user may launch with the nodes' role, so what kOps lets that write in other clusters are
// exceptions.
func TestNodesRoleReach(t *testing.T) {
	t.Parallel()
	other := thingOf(clusterB)
	calls := []call{{"launching with the nodes' role", launchOf(clusterA).by(userOf(clusterA)), true}}
	for networking, actions := range kopsNodes {
		node := instanceWith("nodes with " + networking)
		for _, action := range actions {
			on := anInterface
			if strings.HasSuffix(action, "InstanceAttribute") {
				on = anInstance
			}
			calls = append(calls, call{networking + ": " + action + " on another cluster's " + on.name,
				[]request{node.does(action, on.arn(other), other.facts())}, true})
		}
	}
	prove(t, calls)
}
