package iam

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// The tags of what onboarding makes. A user's say what its managed policy allows: who could write them could choose the
// cluster, and nobody but an administrator can.
const (
	TagManagedBy = "cast:managed-by"
	TagCluster   = "cast:cluster"
	TagName      = "cast:name" // Name of the cluster, which the names of its function, rules and roles are made of
	TagRegion    = "cast:region"
	TagVPC       = "cast:vpc"
	TagStack     = "cast:stack" // of what template.yaml has made, and onboarding must leave to it

	ManagedBy = "kops-spot" // the original's things say cast.ai
)

// FunctionRole is the guide's name for the role of the function. It is the first cluster's of an account; a second one's is
// FunctionRoleName: one role for two clusters could act on both.
const FunctionRole = "CastLambdaRoleForSpot"

const (
	prefix      = "cast-kops-"
	longestName = 64 // of an IAM user or role, a Lambda function and an EventBridge rule
	hashLength  = 8
	bodyLength  = 31 // of a Name, so that RuleName has 13 characters left for the event
)

// UserName returns the name of a cluster's user: the guide's, shortened with a hash if IAM does not take one as long.
func UserName(cluster string) string {
	name := prefix + cluster
	if len(name) <= longestName {
		return name
	}
	return strings.TrimRight(name[:longestName-1-hashLength], "-.") + "-" + hash(cluster)
}

// Name returns what stands for the cluster in the names of its other things. A function's name has no dots, and without
// them a.b and a-b would be one: so it always ends in a hash. It has no dot and no underscore, so a name that goes on with
// one of these is never the beginning of another cluster's.
func Name(cluster string) string {
	body := strings.ReplaceAll(cluster, ".", "-")
	if len(body) > bodyLength {
		body = strings.TrimRight(body[:bodyLength], "-")
	}
	return body + "-" + hash(cluster)
}

// FunctionName returns the name of a cluster's function.
func FunctionName(cluster string) string { return prefix + Name(cluster) }

// LogGroup returns the log group that Lambda gives a cluster's function.
func LogGroup(cluster string) string { return "/aws/lambda/" + FunctionName(cluster) }

// RuleName returns the name of the EventBridge rule for an event, of which 13 characters fit. It does not begin with the
// cluster's name: kOps deletes every rule that does when it deletes the cluster.
func RuleName(cluster, event string) string { return prefix + Name(cluster) + "." + event }

// FunctionRoleName returns the name of the role of a cluster's function, where another cluster of the account has
// FunctionRole.
func FunctionRoleName(cluster string) string { return FunctionRole + "-" + Name(cluster) }

// RolePath returns the path of the roles and instance profiles that a cluster's user may make.
func RolePath(cluster string) string { return "/cast-kops/" + Name(cluster) + "/" }

// SecretName returns the name in Secrets Manager of one of a cluster's secrets.
func SecretName(cluster, secret string) string { return "cast-kops/" + cluster + "/" + secret }

// QueueName returns the name of one of the queues of a cluster's function. kOps deletes every queue whose name begins with the
// cluster's with dashes for dots when it deletes the cluster; an underscore is in no cluster's name.
func QueueName(cluster, queue string) string { return "cast_kops-" + Name(cluster) + "-" + queue }

// Queues and topics of a cluster's function that the function's role sends to; template.yaml makes them.
const (
	Outcomes = "outcomes" // the queue of what came of each event, or with people to tell the topic before it
	Failures = "failures" // the queue of events that came to nothing
)

// QueueARN returns the ARN of one of the queues of the cluster's function.
func (v Values) QueueARN(queue string) string {
	return v.arn("sqs", v.Region, QueueName(v.Cluster, queue))
}

// TopicARN returns the ARN of one of the topics of the cluster's function.
func (v Values) TopicARN(topic string) string {
	return v.arn("sns", v.Region, FunctionName(v.Cluster)+"-"+topic)
}

// UserTags returns the tags of a cluster's user. Its managed policy means nothing without them.
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

// Tags returns the tags of everything else that is one cluster's.
func Tags(cluster string) map[string]string {
	return map[string]string{TagManagedBy: ManagedBy, TagCluster: cluster}
}

// PolicyARN returns the ARN of a customer managed policy.
func (v Values) PolicyARN(d Document) string { return v.arn("iam", "", "policy/"+d.Name) }

// AWSPolicyARN returns the ARN of one of AWS's own policies.
func (v Values) AWSPolicyARN(name string) string {
	return "arn:" + v.Partition + ":iam::aws:policy/" + name
}

// UserARN returns the ARN of the cluster's user.
func (v Values) UserARN() string { return v.arn("iam", "", "user/"+UserName(v.Cluster)) }

// FunctionRoleARN returns the ARN of the function's role.
func (v Values) FunctionRoleARN() string { return v.arn("iam", "", "role/"+v.FunctionRole) }

// FunctionARN returns the ARN of the cluster's function.
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
