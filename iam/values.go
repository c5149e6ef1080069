package iam

import (
	"fmt"
	"regexp"
)

// Values fill in the placeholders of the documents.
type Values struct {
	Partition string // aws, aws-cn, aws-us-gov
	Region    string
	Account   string // twelve digits
	Cluster   string // full name, as in the EC2 tag KubernetesCluster
	VPC       string // the cluster's, in the same account

	FunctionRole string   // name of the function's role, or its path and name
	NodeRoles    []string // path and name; without them the user can launch only with roles that it has created

	// For the function. ARNs are in its own account and region.
	Secrets        []string // ARNs of what it reads from Secrets Manager: its token, the CA, the CAST AI API key
	Parameters     []string // ARNs of what it reads from Systems Manager
	Keys           []string // ARNs of the customer managed KMS keys of those
	Queues         []string // ARNs of its destinations
	Subnets        []string // in a VPC
	SecurityGroups []string // in a VPC

	StateStore string // of kOps, as bucket or bucket/prefix: for the installer, to read the cluster's specification
}

// A placeholder is a name in angle brackets in a document.
type placeholder struct {
	what, want string // for errors
	pattern    string
	max        int // length; 0 for any
	values     []string
	name       func(string) string // turns a value into the name of something; nil for the value itself
	optional   bool                // without a value the statement is omitted; otherwise that is an error
}

// placeholders returns all placeholders by name.
func (v Values) placeholders() map[string]placeholder {
	cluster := placeholder{what: "cluster", pattern: dnsName, max: longestCluster, values: one(v.Cluster),
		want: fmt.Sprintf("the name of a kOps cluster with at most %d characters, such as prod.example.com", longestCluster)}
	function, user, rolePath := cluster, cluster, cluster
	function.name, user.name, rolePath.name = FunctionName, UserName, RolePath
	role := placeholder{what: "function's role", want: "the name of a role, with its path such as kops/nodes",
		pattern: `([A-Za-z0-9_+=,.@-]+/)*` + roleName, values: one(v.FunctionRole)}
	nodeRole := role
	nodeRole.what, nodeRole.values, nodeRole.optional = "nodes' role", v.NodeRoles, true
	subnet, group := ec2ID("subnet", "subnet", v.Subnets), ec2ID("security group", "sg", v.SecurityGroups)
	functionSubnet, functionGroup := subnet, group
	functionSubnet.optional, functionGroup.optional = true, true
	policy := cluster
	policy.name = func(string) string { return v.PolicyName(ClusterPolicy) }
	return map[string]placeholder{
		"cluster": cluster, "function": function, "user": user, "function-role": role, "node-role": nodeRole,
		"role-path":      rolePath,
		"cluster-policy": policy,

		"partition": {what: "partition", want: "a partition, such as aws", pattern: `aws(-[a-z]+)*`,
			values: one(v.Partition)},
		"region": {what: "region", want: "a region, such as eu-west-1", pattern: `[a-z]{2,}(-[a-z]+)+-[0-9]+`,
			values: one(v.Region)},
		"account": {what: "account", want: "twelve digits", pattern: `[0-9]{12}`, values: one(v.Account)},
		"vpc":     ec2ID("VPC", "vpc", one(v.VPC)),

		"secret":    v.arns("secret", v.Secrets, "secretsmanager", "secret:"),
		"parameter": v.arns("parameter", v.Parameters, "ssm", "parameter/"),
		"key":       v.arns("key", v.Keys, "kms", "key/"),
		"queue":     v.arns("queue", v.Queues, "sqs", ""),

		// required for the role of a function in a VPC, and optional for the user
		"subnet": subnet, "security-group": group,
		"function-subnet": functionSubnet, "function-security-group": functionGroup,

		"state-store": {what: "state store", want: "a bucket, or bucket/prefix", optional: true, values: one(v.StateStore),
			pattern: `[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)*`},
	}
}

// No pattern matches a character that is special in IAM or JSON: a wildcard, a variable, a quote.
const (
	label   = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
	dnsName = label + `(\.` + label + `)+`

	roleName = `[A-Za-z0-9_+=,.@-]{1,64}`

	// kOps tags everything with the key kubernetes.io/cluster/<name>, and EC2's keys have 128 characters.
	longestCluster = 128 - len("kubernetes.io/cluster/")
)

func ec2ID(what, prefix string, values []string) placeholder {
	return placeholder{what: what, want: "an ID such as " + prefix + "-0123456789abcdef0", values: values,
		pattern: prefix + `-([0-9a-f]{8}|[0-9a-f]{17})`}
}

// arns accepts ARNs of a kind of resource in the cluster's own partition, region and account.
func (v Values) arns(what string, values []string, service, kind string) placeholder {
	return placeholder{what: what, values: values, optional: true, want: "an ARN in the cluster's account and region",
		pattern: regexp.QuoteMeta(v.arn(service, v.Region, kind)) + `[A-Za-z0-9_+=,.@/-]+`}
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func (p placeholder) check(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the %s is missing: set it to %s", p.what, p.want)
	case p.max > 0 && len(s) > p.max || !regexp.MustCompile(`^(`+p.pattern+`)$`).MatchString(s):
		return fmt.Errorf("the %s is %q: set it to %s", p.what, s, p.want)
	}
	return nil
}
