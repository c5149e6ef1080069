package iam_test

import (
	"maps"
	"strings"

	"github.com/castai/kops-spot/iam"
)

// A thing is a resource and its owner. The cluster's own resource belongs to it in every aspect; others differ in one
// or more.
type thing struct {
	tag     string // the tag KubernetesCluster, and kubernetes.io/cluster/…; empty if neither
	role    string // in the tag k8s.io/role/…; empty for none
	vpc     string
	name    iam.Values // the cluster in its name
	region  string
	account string
}

func thingOf(v iam.Values) thing {
	return thing{tag: v.Cluster, vpc: v.VPC, name: v, region: v.Region, account: v.Account}
}

func (t thing) arn(service, resource string) string {
	return strings.Join([]string{"arn:aws", service, t.region, t.account, resource}, ":")
}

// facts are all facts about the resource. The simulator gets those that AWS sends for the action.
func (t thing) facts() facts {
	f := facts{
		"aws:RequestedRegion": t.region,
		"ec2:Vpc":             t.arn("ec2", "vpc/"+t.vpc),
		"ec2:Subnet":          t.arn("ec2", "subnet/"+t.name.Subnets[0]),
	}
	if t.tag != "" {
		f["aws:ResourceTag/KubernetesCluster"] = t.tag
		f["aws:ResourceTag/kubernetes.io/cluster/"+t.tag] = "owned"
	}
	if t.role != "" {
		f["aws:ResourceTag/k8s.io/role/"+t.role] = "1"
	}
	return f
}

// An aspect is a part of an ARN by which a resource can belong to a cluster. keys_test.go has the condition keys.
type aspect string

const (
	byVPC     aspect = "VPC"
	byName    aspect = "name"
	byRegion  aspect = "region"
	byAccount aspect = "account"
)

// nobody's resources have names without an onboarded cluster.
var nobody = onboarded("nobody.example.org", "Admin", "0c")

// others are the resources that differ from the cluster's own in one aspect.
func (t thing) others(by aspect, other iam.Values) map[string]thing {
	o := thingOf(other)
	with := func(change func(*thing)) thing {
		changed := t
		change(&changed)
		return changed
	}
	switch by {
	case byVPC:
		return map[string]thing{"in another VPC": with(func(c *thing) { c.vpc = o.vpc })}
	case byName:
		return map[string]thing{
			"with another cluster's name": with(func(c *thing) { c.name = o.name }),
			"with an unknown name":        with(func(c *thing) { c.name = nobody }),
		}
	case byRegion:
		return map[string]thing{"in another region": with(func(c *thing) { c.region = otherRegion })}
	default:
		return map[string]thing{"in another account": with(func(c *thing) { c.account = otherAccount })}
	}
}

// A kind is a kind of resource: its ARN and the ARN's aspects.
type kind struct {
	name string
	arn  func(thing) string
	has  []aspect
	tags bool // say whose it is
}

// ec2 returns a kind of EC2's. Its ARN has only IDs: its tags and its VPC say whose it is.
func ec2(resource string) kind {
	name, id, _ := strings.Cut(resource, "/")
	if strings.HasSuffix(id, "new") {
		name = "new " + name
	}
	return kind{name, func(t thing) string { return t.arn("ec2", resource) }, []aspect{byRegion, byAccount}, true}
}

// shared returns a kind of EC2's whose ARN has no account.
func shared(name, id string) kind {
	return kind{name, func(t thing) string { return "arn:aws:ec2:" + t.region + "::" + name + "/" + id }, []aspect{byRegion}, true}
}

// global returns a kind of IAM's, which has no region.
func global(name string, resource func(iam.Values) string) kind {
	return kind{name, func(t thing) string { return "arn:aws:iam::" + t.account + ":" + resource(t.name) },
		[]aspect{byName, byAccount}, false}
}

// stateFile returns a kind of kOps' state store, which is shared by clusters.
func stateFile(name, file string) kind {
	return kind{name, func(t thing) string { return "arn:aws:s3:::state/kops/" + t.name.Cluster + "/" + file },
		[]aspect{byName}, false}
}

func regional(name, service string, resource func(iam.Values) string) kind {
	return kind{name, func(t thing) string { return t.arn(service, resource(t.name)) },
		[]aspect{byName, byRegion, byAccount}, false}
}

// last returns the part of an ARN after the account.
func last(arn string) string { return strings.SplitN(arn, ":", 6)[5] }

var (
	anInstance      = ec2("instance/i-0123456789abcdef0")
	aVolume         = ec2("volume/vol-0123456789abcdef0")
	anInterface     = ec2("network-interface/eni-0123456789abcdef0")
	aSecurityGroup  = ec2("security-group/sg-0123456789abcdef0")
	aSubnet         = ec2("subnet/subnet-0123456789abcdef0")
	aKeyPair        = ec2("key-pair/key-0123456789abcdef0")
	aLaunchTemplate = ec2("launch-template/lt-0123456789abcdef0")
	anImage         = shared("image", "ami-0123456789abcdef0")
	aSnapshot       = shared("snapshot", "snap-0123456789abcdef0")

	// A resource that is being created has the tags of the request and, at most, a VPC.
	aNewInstance      = ec2("instance/i-new")
	aNewVolume        = ec2("volume/vol-new")
	aNewInterface     = ec2("network-interface/new")
	aNewSpotRequest   = ec2("spot-instances-request/sir-new")
	aNewSecurityGroup = ec2("security-group/sg-new")
	aNewKeyPair       = ec2("key-pair/key-new")

	everything = kind{"everything", func(thing) string { return "*" }, nil, false}

	aVPC   = kind{"VPC", func(t thing) string { return t.arn("ec2", "vpc/"+t.vpc) }, []aspect{byVPC, byRegion, byAccount}, false}
	aGroup = kind{"group", func(t thing) string { return groupARN(t, "nodes."+t.name.Cluster) },
		[]aspect{byName, byRegion, byAccount}, true}
	aSpecification = stateFile("specification", "config")
	aCompletedSpec = stateFile("completed specification", "cluster-completed.spec")
	aGroupSpec     = stateFile("specification of a group", "instancegroup/nodes")

	aUser         = global("user", func(v iam.Values) string { return "user/" + iam.UserName(v.Cluster) })
	aNodesRole    = global("node role", func(v iam.Values) string { return "role/" + v.NodeRoles[0] })
	aFunctionRole = global("function's role", func(v iam.Values) string { return "role/" + v.FunctionRole })
	aRole         = global("role created by the user",
		func(v iam.Values) string { return "role" + iam.RolePath(v.Cluster) + "cast-node-general" })
	aProfile = global("instance profile",
		func(v iam.Values) string { return "instance-profile" + iam.RolePath(v.Cluster) + "cast-node-general" })

	aClusterPolicy = global("cluster's policy", func(v iam.Values) string { return last(v.PolicyARN(iam.ClusterPolicy)) })

	aFunction = regional("function", "lambda", func(v iam.Values) string { return last(v.FunctionARN()) })
	aStack    = regional("stack", "cloudformation",
		func(v iam.Values) string { return "stack/" + iam.FunctionName(v.Cluster) + "/6d4c2a8e" })
	aRule = regional("rule", "events",
		func(v iam.Values) string { return "rule/" + iam.RuleName(v.Cluster, "interruption") })
	aLogGroup = regional("log group", "logs",
		func(v iam.Values) string { return "log-group:" + iam.LogGroup(v.Cluster) })
	aLogStream = regional("log stream", "logs",
		func(v iam.Values) string { return "log-group:" + iam.LogGroup(v.Cluster) + ":log-stream:2026/11/02/1" })
	aSecret    = regional("secret", "secretsmanager", func(v iam.Values) string { return last(v.Secrets[0]) })
	aParameter = regional("parameter", "ssm", func(v iam.Values) string { return last(v.Parameters[0]) })
	aKey       = regional("key", "kms", func(v iam.Values) string { return last(v.Keys[0]) })
	theBus     = kind{"default bus", func(t thing) string { return t.arn("events", "event-bus/default") }, []aspect{byRegion, byAccount}, false}
	aQueue     = regional("queue", "sqs", func(v iam.Values) string { return last(v.Queues[0]) })

	// A function's subnet and security group are identified by their IDs.
	theSubnet        = regional("function's subnet", "ec2", func(v iam.Values) string { return "subnet/" + v.Subnets[0] })
	theSecurityGroup = regional("function's security group", "ec2",
		func(v iam.Values) string { return "security-group/" + v.SecurityGroups[0] })
)

func groupARN(t thing, name string) string {
	return t.arn("autoscaling", "autoScalingGroup:6d4c2a8e:autoScalingGroupName/"+name)
}

// sharedPolicy is a policy shared by all clusters of the account.
func sharedPolicy(d iam.Document) kind {
	return kind{d.Name, func(t thing) string { return "arn:aws:iam::" + t.account + ":policy/" + d.Name },
		[]aspect{byAccount}, false}
}

// with adds facts to a thing.
func with(more facts) func(thing) facts {
	return func(t thing) facts {
		f := t.facts()
		maps.Copy(f, more)
		return f
	}
}

// created are the facts of a resource that is being created with the cluster's tags.
func created(by string, more ...string) func(thing) facts {
	return func(t thing) facts {
		f := facts{"aws:RequestedRegion": t.region, "ec2:CreateAction": by, "ec2:Vpc": t.arn("ec2", "vpc/"+t.vpc)}
		if t.tag != "" {
			f["aws:RequestTag/KubernetesCluster"] = t.tag
			f["aws:TagKeys"] = append([]string{"KubernetesCluster", "kubernetes.io/cluster/" + t.tag, "Name"}, more...)
		}
		return f
	}
}

const admin = "arn:aws:iam::" + account + ":role/Admin"

// denials are calls that must be denied for every actor.
type denials struct {
	actor actor
	calls []call
}

func (d *denials) add(name string, requests ...request) {
	d.calls = append(d.calls, call{d.actor.name + ": " + name, requests, false})
}

// never adds one denied call for each action on the same resource.
func (d *denials) never(resource string, f facts, actions ...string) {
	for _, action := range actions {
		d.add(action+" on "+resource, d.actor.does(action, resource, f))
	}
}

func asUser() *denials { return &denials{actor: userOf(clusterA)} }

// someThings are the cluster's own resource, another cluster's, one without a cluster, and another's in the cluster's
// VPC.
func someThings() (own, other, untagged, neighbour thing) {
	own, other = thingOf(clusterA), thingOf(clusterB)
	untagged, neighbour = own, other
	untagged.tag, neighbour.vpc = "", own.vpc
	return
}
