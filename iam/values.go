package iam

import (
	"fmt"
	"regexp"
	"strings"
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
	of       func(Values) []string
	fits     func(Values, string) bool
	want     string
	optional bool // without a value the statement is left out; otherwise that is an error
}

var placeholders = map[string]placeholder{
	"partition": {what: "partition", of: one(func(v Values) string { return v.Partition }),
		fits: form(`aws(-[a-z]+)*`), want: "a partition, such as aws"},
	"region": {what: "region", of: one(func(v Values) string { return v.Region }),
		fits: form(`[a-z]{2,}(-[a-z]+)+-[0-9]+`), want: "a region, such as eu-west-1"},
	"account": {what: "account", of: one(func(v Values) string { return v.Account }),
		fits: form(`[0-9]{12}`), want: "twelve digits"},
	"vpc": {what: "VPC", of: one(func(v Values) string { return v.VPC }),
		fits: form(`vpc-` + ec2ID), want: "a VPC's id, such as vpc-0123456789abcdef0"},

	"cluster":  fromCluster(func(cluster string) string { return cluster }),
	"function": fromCluster(FunctionName),
	"user":     fromCluster(UserName),

	"function-role": {what: "function's role", of: one(func(v Values) string { return v.FunctionRole }),
		fits: form(roleName), want: "a role's name without its path"},
	"node-role": {what: "nodes' role", of: func(v Values) []string { return v.NodeRoles }, optional: true,
		fits: form(roleName), want: "a role's name without its path"},

	"secret":    {what: "secret", of: func(v Values) []string { return v.Secrets }, optional: true, fits: arnOf("secretsmanager", "secret:"), want: own},
	"parameter": {what: "parameter", of: func(v Values) []string { return v.Parameters }, optional: true, fits: arnOf("ssm", "parameter/"), want: own},
	"key":       {what: "key", of: func(v Values) []string { return v.Keys }, optional: true, fits: arnOf("kms", "key/"), want: own},
	"queue":     {what: "queue", of: func(v Values) []string { return v.Queues }, optional: true, fits: arnOf("sqs", ""), want: own},
	"topic":     {what: "topic", of: func(v Values) []string { return v.Topics }, optional: true, fits: arnOf("sns", ""), want: own},

	"subnet": {what: "subnet", of: func(v Values) []string { return v.Subnets },
		fits: form(`subnet-` + ec2ID), want: "a subnet's id, such as subnet-0123456789abcdef0"},
	"security-group": {what: "security group", of: func(v Values) []string { return v.SecurityGroups },
		fits: form(`sg-` + ec2ID), want: "a security group's id, such as sg-0123456789abcdef0"},

	"state-store": {what: "state store", of: one(func(v Values) string { return v.StateStore }), optional: true,
		fits: form(`[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.-]+)*`), want: "a bucket, or bucket/prefix"},
}

// No pattern matches what means something to IAM or JSON: a wildcard, a variable, a quote.
const (
	label   = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
	dnsName = label + `(\.` + label + `)+`
	ec2ID   = `([0-9a-f]{8}|[0-9a-f]{17})`

	// STS leaves a role's path out of a session's ARN, and then no mapping in a cluster would fit it.
	roleName = `[A-Za-z0-9_+=,.@-]{1,64}`

	own = "the ARN of one in the cluster's account and region"

	// kOps tags everything with the key kubernetes.io/cluster/<name>, and EC2's keys have 128 characters.
	longestCluster = 128 - len("kubernetes.io/cluster/")
)

// check says what is wrong with a value.
func (p placeholder) check(v Values, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the %s is missing: it is to be %s", p.what, p.want)
	case !p.fits(v, s):
		return fmt.Errorf("the %s is to be %s, not %q", p.what, p.want, s)
	}
	return nil
}

func one(of func(Values) string) func(Values) []string {
	return func(v Values) []string {
		if s := of(v); s != "" {
			return []string{s}
		}
		return nil
	}
}

// fromCluster is the cluster's name, or one that is made of it; it is as good as that is.
func fromCluster(name func(cluster string) string) placeholder {
	fits := form(dnsName)
	return placeholder{
		what: "cluster",
		want: fmt.Sprintf("a kOps cluster's name of at most %d characters, such as prod.example.com", longestCluster),
		of: one(func(v Values) string {
			if v.Cluster == "" {
				return ""
			}
			return name(v.Cluster)
		}),
		fits: func(v Values, _ string) bool { return fits(v, v.Cluster) && len(v.Cluster) <= longestCluster },
	}
}

func form(pattern string) func(Values, string) bool {
	re := regexp.MustCompile(`^(` + pattern + `)$`)
	return func(_ Values, s string) bool { return re.MatchString(s) }
}

var resourceName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@/-]+$`)

// arnOf accepts ARNs of one kind of resource in the cluster's own partition, region and account.
func arnOf(service, kind string) func(Values, string) bool {
	return func(v Values, s string) bool {
		name, ok := strings.CutPrefix(s, v.arn(service, v.Region, kind))
		return ok && resourceName.MatchString(name)
	}
}
