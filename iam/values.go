package iam

import (
	"fmt"
	"regexp"
)

// Values is what the documents are filled in with.
type Values struct {
	Partition string // aws, aws-cn, aws-us-gov
	Region    string
	Account   string // twelve digits
	Cluster   string // the cluster's whole name, as in the EC2 tag KubernetesCluster
	VPC       string // vpc-…: the cluster's, in the same account

	FunctionRole string   // the name of the function's role
	NodeRoles    []string // names of the roles that the cluster's instances run with; without them the user can launch only with roles it has made

	// Of the function. ARNs are of its own account and region.
	Secrets        []string // ARNs of what it reads from Secrets Manager: the log-in, the CA, the key for CAST AI
	Parameters     []string // ARNs of what it reads from Systems Manager
	Keys           []string // ARNs of the KMS keys of one's own that those are encrypted with
	Queues, Topics []string // ARNs of where its outcomes go
	Subnets        []string // subnet-…: in a VPC
	SecurityGroups []string // sg-…: in a VPC

	StateStore string // kOps', as bucket or bucket/prefix: for whoever onboards, to read the cluster's specification
}

// A placeholder is what may stand in a document's angle brackets.
type placeholder struct {
	what     string
	values   []string
	fits     func(string) bool
	want     string
	optional bool // without a value the statement is left out; otherwise that is an error
}

// placeholders are all that the documents have, by name.
func (v Values) placeholders() map[string]placeholder {
	return map[string]placeholder{
		"partition": {what: "partition", values: one(v.Partition),
			fits: form(`aws(-[a-z]+)*`), want: "a partition, such as aws"},
		"region": {what: "region", values: one(v.Region),
			fits: form(`[a-z]{2,}(-[a-z]+)+-[0-9]+`), want: "a region, such as eu-west-1"},
		"account": {what: "account", values: one(v.Account), fits: form(`[0-9]{12}`), want: "twelve digits"},
		"vpc": {what: "VPC", values: one(v.VPC),
			fits: form(`vpc-` + ec2ID), want: "a VPC's id, such as vpc-0123456789abcdef0"},

		"cluster":  v.fromCluster(func(cluster string) string { return cluster }),
		"function": v.fromCluster(FunctionName),
		"user":     v.fromCluster(UserName),

		"function-role": {what: "function's role", values: one(v.FunctionRole), fits: form(roleName), want: aRole},
		"node-role":     {what: "nodes' role", values: v.NodeRoles, optional: true, fits: form(roleName), want: aRole},

		"secret":    v.fromARNs("secret", v.Secrets, "secretsmanager", "secret:"),
		"parameter": v.fromARNs("parameter", v.Parameters, "ssm", "parameter/"),
		"key":       v.fromARNs("key", v.Keys, "kms", "key/"),
		"queue":     v.fromARNs("queue", v.Queues, "sqs", ""),
		"topic":     v.fromARNs("topic", v.Topics, "sns", ""),

		"subnet": {what: "subnet", values: v.Subnets,
			fits: form(`subnet-` + ec2ID), want: "a subnet's id, such as subnet-0123456789abcdef0"},
		"security-group": {what: "security group", values: v.SecurityGroups,
			fits: form(`sg-` + ec2ID), want: "a security group's id, such as sg-0123456789abcdef0"},

		"state-store": {what: "state store", values: one(v.StateStore), optional: true,
			fits: form(`[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)*`), want: "a bucket, or bucket/prefix"},
	}
}

// No pattern matches what means something to IAM or JSON: a wildcard, a variable, a quote.
const (
	label   = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
	dnsName = label + `(\.` + label + `)+`
	ec2ID   = `([0-9a-f]{8}|[0-9a-f]{17})`

	// STS leaves a role's path out of a session's ARN, and then no mapping in a cluster would fit it.
	roleName = `[A-Za-z0-9_+=,.@-]{1,64}`

	aRole = "a role's name without its path"

	// kOps tags everything with the key kubernetes.io/cluster/<name>, and EC2's keys have 128 characters.
	longestCluster = 128 - len("kubernetes.io/cluster/")
)

// check says what is wrong with a value.
func (p placeholder) check(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the %s is missing: it is to be %s", p.what, p.want)
	case !p.fits(s):
		return fmt.Errorf("the %s is to be %s, not %q", p.what, p.want, s)
	}
	return nil
}

// one is a value, unless it is missing.
func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// fromCluster is the cluster's name, or one that is made of it; it is as good as that is.
func (v Values) fromCluster(name func(cluster string) string) placeholder {
	p := placeholder{
		what: "cluster",
		want: fmt.Sprintf("a kOps cluster's name of at most %d characters, such as prod.example.com", longestCluster),
		fits: func(string) bool { return form(dnsName)(v.Cluster) && len(v.Cluster) <= longestCluster },
	}
	if v.Cluster != "" {
		p.values = []string{name(v.Cluster)}
	}
	return p
}

func form(pattern string) func(string) bool {
	return func(s string) bool { return regexp.MustCompile(`^(` + pattern + `)$`).MatchString(s) }
}

// fromARNs accepts ARNs of one kind of resource in the cluster's own partition, region and account.
func (v Values) fromARNs(what string, values []string, service, kind string) placeholder {
	return placeholder{what: what, values: values, optional: true, want: "the ARN of one in the cluster's account and region",
		fits: form(regexp.QuoteMeta(v.arn(service, v.Region, kind)) + `[A-Za-z0-9_+=,.@/-]+`)}
}
