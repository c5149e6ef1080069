package iam_test

import (
	"testing"

	"github.com/castai/kops-spot/iam"
)

// A launch is a call of RunInstances.
type launch struct {
	instance thing    // whose tag the instance gets
	more     []string // keys of its other tags
	subnet   thing
	group    thing // the security group
	role     string
	image    thing
	snapshot *thing // in the request's block devices
	keyPair  *thing
	template *thing
	ready    bool // exists, in the subnet's VPC
}

func launchOf(v iam.Values) launch {
	own := thingOf(v)
	public := own
	public.tag = ""
	return launch{instance: own, image: public, subnet: own, group: own, role: aNodesRole.arn(own)}
}

// by returns the requests that IAM evaluates for the call.
func (l launch) by(a actor) []request {
	tags := created("RunInstances", l.more...)
	run := func(k kind, th thing, f facts) request { return a.does("ec2:RunInstances", k.arn(th), f) }
	requests := []request{
		run(aNewInstance, l.instance, tags(l.instance)),
		run(aNewVolume, l.instance, tags(l.instance)),
		run(anImage, l.image, l.image.facts()),
		run(aSubnet, l.subnet, l.subnet.facts()),
		run(aSecurityGroup, l.group, l.group.facts()),
		a.does("iam:PassRole", l.role, facts{"iam:PassedToService": "ec2.amazonaws.com"}),
	}
	if l.ready {
		requests = append(requests, run(anInterface, l.subnet,
			with(facts{"ec2:NetworkInterfaceID": "eni-0123456789abcdef0"})(l.subnet)))
	} else {
		requests = append(requests, run(aNewInterface, l.subnet, l.subnet.facts()))
	}
	for _, k := range []kind{aNewInstance, aNewVolume} {
		if l.instance.tag != "" {
			requests = append(requests, a.does("ec2:CreateTags", k.arn(l.instance), tags(l.instance)))
		}
	}
	if l.snapshot != nil {
		requests = append(requests, run(aSnapshot, *l.snapshot, l.snapshot.facts()))
	}
	if l.keyPair != nil {
		requests = append(requests, run(aKeyPair, *l.keyPair, l.keyPair.facts()))
	}
	if l.template != nil {
		requests = append(requests, run(aLaunchTemplate, *l.template, l.template.facts()))
	}
	return requests
}

// TestLaunchOnlyIntoTheCluster: with its tag, in its subnets, and with its security groups and roles.
func TestLaunchOnlyIntoTheCluster(t *testing.T) {
	t.Parallel()
	user, own, other := userOf(clusterA), thingOf(clusterA), thingOf(clusterB)

	// If two clusters share a VPC, only the tags distinguish their resources.
	neighbour, untagged := other, own
	neighbour.vpc, untagged.tag = own.vpc, ""

	var calls []call
	try := func(name string, allowed bool, change func(*launch)) {
		l := launchOf(clusterA)
		change(&l)
		calls = append(calls, call{name, l.by(user), allowed})
	}
	try("into the cluster", true, func(*launch) {})
	try("from kOps' template, with its tags and its own key pair, image and snapshot", true, func(l *launch) {
		l.more, l.keyPair, l.template, l.image, l.snapshot = keysOfKops, &own, &own, own, &own
	})
	try("with an existing key pair without a tag", true, func(l *launch) { l.keyPair = &untagged })
	try("with a role created by the user", true, func(l *launch) { l.role = aRole.arn(own) })

	try("with another cluster's tag", false, func(l *launch) { l.instance = other })
	try("without a tag", false, func(l *launch) { l.instance = untagged })
	try("with its own and another cluster's tag", false,
		func(l *launch) { l.more = []string{"kubernetes.io/cluster/staging.example.com"} })
	try("with the cluster's tag repeated in another case", false,
		func(l *launch) { l.more = []string{"kubernetescluster"} })
	try("as an instance of the control plane", false, func(l *launch) { l.more = []string{"k8s.io/role/control-plane"} })
	try("from another cluster's image", false, func(l *launch) { l.image = other })
	try("from another cluster's snapshot", false, func(l *launch) { l.snapshot = &other })
	try("from a snapshot without a tag", false, func(l *launch) { l.snapshot = &untagged })
	try("in another cluster's subnet", false, func(l *launch) { l.subnet = other })
	try("in another cluster's subnet of the same VPC", false, func(l *launch) { l.subnet = neighbour })
	try("in an untagged subnet of the VPC", false, func(l *launch) { l.subnet = untagged })
	try("with another cluster's security group", false, func(l *launch) { l.group = other })
	try("with another cluster's security group of the same VPC", false, func(l *launch) { l.group = neighbour })
	try("with an untagged security group of the VPC", false, func(l *launch) { l.group = untagged })
	try("with another cluster's key pair", false, func(l *launch) { l.keyPair = &other })
	try("from another cluster's template", false, func(l *launch) { l.template = &other })
	try("with an existing interface", false, func(l *launch) { l.ready = true })
	try("with an administrator's role", false, func(l *launch) { l.role = "arn:aws:iam::" + account + ":role/Admin" })
	try("with the role of the control plane", false,
		func(l *launch) { l.role = "arn:aws:iam::" + account + ":role/masters.prod.example.com" })
	try("with another cluster's role", false, func(l *launch) { l.role = aNodesRole.arn(other) })
	try("with a role created by another cluster's user", false, func(l *launch) { l.role = aRole.arn(other) })
	try("with the function's role", false, func(l *launch) { l.role = aFunctionRole.arn(own) })
	for what, th := range own.others(byRegion, clusterB) {
		try(what, false, func(l *launch) { l.instance, l.image, l.subnet, l.group = th, th, th, th })
	}

	// kOps tags a subnet shared by clusters with one key for each cluster, not with KubernetesCluster.
	shared := launchOf(clusterA).by(user)
	for i := range shared {
		if f := shared[i].Facts; shared[i].Resource == aSubnet.arn(own) {
			delete(f, "aws:ResourceTag/KubernetesCluster")
			f["aws:ResourceTag/kubernetes.io/cluster/staging.example.com"] = "shared"
			f["aws:ResourceTag/kubernetes.io/cluster/prod.example.com"] = "shared"
		}
	}
	calls = append(calls, call{"in a subnet that two clusters share", shared, true})
	prove(t, calls)
}
