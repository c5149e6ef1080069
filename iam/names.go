package iam

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// The tags of onboarding's resources. A user's tags decide what its managed policy allows: whoever can change them can
// choose the cluster, so only an administrator can. The keys that the policy reads have no colon: AWS does not document
// whether ${aws:PrincipalTag/…} accepts one.
const (
	TagManagedBy = "cast:managed-by"
	TagCluster   = "cast-cluster"
	TagName      = "cast-name" // Name(cluster)
	TagRegion    = "cast-region"
	TagVPC       = "cast-vpc"
	TagStack     = "cast:stack" // on resources of template.yaml, which onboarding must not touch

	ManagedBy = "kops-spot" // the original's resources have cast.ai
)

// FunctionRole is the guide's name for the function's role. Only one cluster of an account can use it; the role of any
// other is FunctionRoleName, since one role for two clusters could act on both.
const FunctionRole = "CastLambdaRoleForSpot"

const (
	prefix      = "cast-kops-"
	longestName = 64 // for an IAM user or role, a Lambda function and an EventBridge rule
	hashLength  = 12 // 32 bits would let somebody search for a name that collides with a given one within an hour
	bodyLength  = 27 // in a Name, which leaves 13 characters for the event in RuleName
)

// UserName returns the name of a cluster's user: the guide's, or shortened with a hash if that is too long for IAM.
func UserName(cluster string) string {
	name := prefix + cluster
	if len(name) <= longestName {
		return name
	}
	return strings.TrimRight(name[:longestName-1-hashLength], "-.") + "-" + hash(cluster)
}

// Name returns the cluster's part in the names of its other resources. A function's name cannot have dots, and without
// dots a.b and a-b would collide: so it always ends in a hash. It has no dot and no underscore, so that a name which
// continues with one of these is never a prefix of another cluster's.
func Name(cluster string) string {
	body := strings.ReplaceAll(cluster, ".", "-")
	if len(body) > bodyLength {
		body = strings.TrimRight(body[:bodyLength], "-")
	}
	return body + "-" + hash(cluster)
}

func FunctionName(cluster string) string { return prefix + Name(cluster) }

// LogGroup returns the log group of a cluster's function.
func LogGroup(cluster string) string { return "/aws/lambda/" + FunctionName(cluster) }

// RuleName returns the name of the EventBridge rule for an event of at most 13 characters. It does not begin with the
// cluster's name, since kOps deletes every such rule with the cluster.
func RuleName(cluster, event string) string { return prefix + Name(cluster) + "." + event }

// FunctionRoleName returns the name of the function's role if another cluster of the account has FunctionRole.
func FunctionRoleName(cluster string) string { return FunctionRole + "-" + Name(cluster) }

// RolePath returns the path of the roles and instance profiles that a cluster's user may create.
func RolePath(cluster string) string { return "/cast-kops/" + Name(cluster) + "/" }

// SecretName returns the name of one of a cluster's secrets in Secrets Manager.
func SecretName(cluster, secret string) string { return "cast-kops/" + cluster + "/" + secret }

// QueueName returns the name of one of a cluster's queues. With a cluster, kOps deletes every queue whose name begins
// with the cluster's, with dashes for dots; cast_kops does not occur in any: cluster names have no underscore.
func QueueName(cluster, queue string) string { return "cast_kops-" + Name(cluster) + "-" + queue }

// Failures is the queue of events that could not be handled. template.yaml creates it.
const Failures = "failures"

func (v Values) QueueARN(queue string) string {
	return v.arn("sqs", v.Region, QueueName(v.Cluster, queue))
}

// UserTags returns the tags of a cluster's user. Without them its managed policy allows nothing.
func UserTags(v Values) (map[string]string, error) {
	for name, value := range map[string]string{"cluster": v.Cluster, "region": v.Region, "vpc": v.VPC} {
		if err := v.placeholders()[name].check(value); err != nil {
			return nil, err
		}
	}
	tags := Tags(v.Cluster)
	tags[TagName], tags[TagRegion], tags[TagVPC] = Name(v.Cluster), v.Region, v.VPC
	return tags, nil
}

// Tags returns the tags of a cluster's other resources.
func Tags(cluster string) map[string]string {
	return map[string]string{TagManagedBy: ManagedBy, TagCluster: cluster}
}

// PolicyName returns the name of a policy.
func (v Values) PolicyName(d Document) string {
	if d.perCluster {
		return d.Name + "-" + Name(v.Cluster)
	}
	return d.Name
}

// PolicyARN returns the ARN of a customer managed policy.
func (v Values) PolicyARN(d Document) string { return v.arn("iam", "", "policy/"+v.PolicyName(d)) }

// AWSPolicyARN returns the ARN of an AWS managed policy.
func (v Values) AWSPolicyARN(name string) string {
	return "arn:" + v.Partition + ":iam::aws:policy/" + name
}

func (v Values) UserARN() string { return v.arn("iam", "", "user/"+UserName(v.Cluster)) }

func (v Values) FunctionRoleARN() string { return v.RoleARN(v.FunctionRole) }

// RoleARN returns the ARN of a role by its name or its path and name.
func (v Values) RoleARN(name string) string { return v.arn("iam", "", "role/"+name) }

func (v Values) FunctionARN() string {
	return v.arn("lambda", v.Region, "function:"+FunctionName(v.Cluster))
}

func (v Values) arn(service, region, resource string) string {
	return strings.Join([]string{"arn", v.Partition, service, region, v.Account, resource}, ":")
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:hashLength]
}
