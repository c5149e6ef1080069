package iam_test

import (
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/castai/kops-spot/iam"
)

// Two clusters in one account and region, each with its own VPC.
const (
	account      = "123456789012"
	otherAccount = "210987654321"
	region       = "eu-west-1"
	otherRegion  = "us-east-1"
)

var (
	clusterA = onboarded("prod.example.com", iam.FunctionRole, "0a")
	clusterB = onboarded("staging.example.com", iam.FunctionRoleName("staging.example.com"), "0b")
)

// onboarded returns a cluster with every optional feature.
func onboarded(cluster, functionRole, id string) iam.Values {
	id = strings.Repeat(id, 4)
	v := iam.Values{
		Partition: "aws", Region: region, Account: account, Cluster: cluster, VPC: "vpc-" + id,
		FunctionRole: functionRole, NodeRoles: []string{"nodes." + cluster},
		Subnets: []string{"subnet-" + id}, SecurityGroups: []string{"sg-" + id},
		StateStore: "state/kops",
	}
	own := func(service, resource string) []string {
		return []string{strings.Join([]string{"arn:aws", service, region, account, resource}, ":")}
	}
	v.Secrets = own("secretsmanager", "secret:cast-kops/"+cluster+"/token-AbCdEf")
	v.Parameters = own("ssm", "parameter/cast-kops/"+cluster+"/token")
	v.Keys = own("kms", "key/"+id)
	v.Queues = []string{v.QueueARN(iam.Failures)}
	return v
}

// named returns the name of a document in the library: one rendered for a cluster, or AWS's own.
func named(cluster, document string) string { return cluster + " " + document }

const (
	trust = "trust"

	// KMS also evaluates the key policy. This is KMS's default, which delegates to IAM.
	keyPolicy = "key policy"
)

// library has every document of both clusters as stored in IAM.
func library(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	documents, err := renderAll()
	if err != nil {
		t.Fatal(err)
	}
	return documents
}

var renderAll = sync.OnceValues(func() (map[string]json.RawMessage, error) {
	documents := maps.Clone(managedByAWS)
	maps.Copy(documents, managedByKops)
	documents[keyPolicy] = json.RawMessage(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*",
		"Principal": {"AWS": "arn:aws:iam::` + account + `:root"}}]}`)
	for _, v := range []iam.Values{clusterA, clusterB} {
		for _, d := range iam.Documents {
			text, err := iam.Render(d, v)
			if err != nil {
				return nil, err
			}
			name := d.Name
			if name == "" {
				name = trust
			}
			documents[named(v.Cluster, name)] = text
		}
	}
	return documents, nil
})

// An actor is a principal with policies.
type actor struct {
	name      string
	principal string
	cluster   iam.Values
	documents []string
	boundary  string
	facts     facts // of the principal
}

// userOf is the cluster's IAM user, with the tags that its managed policy evaluates.
func userOf(v iam.Values) actor {
	tags, err := iam.UserTags(v)
	if err != nil {
		panic(err)
	}
	a := actor{name: "the user of " + v.Cluster, principal: v.UserARN(), cluster: v, facts: facts{}}
	for key, value := range tags {
		a.facts["aws:PrincipalTag/"+key] = value
	}
	a.documents = append(a.ours(iam.ManagedPolicy, iam.RestrictedPolicy, iam.ClusterPolicy), iam.UserManaged...)
	return a
}

// functionOf is the cluster's function: its code, unless Lambda itself uses its role.
func functionOf(v iam.Values, lambdaItself bool) actor {
	a := actor{
		name:      "the function of " + v.Cluster,
		principal: "arn:aws:sts::" + account + ":assumed-role/" + v.FunctionRole + "/" + iam.FunctionName(v.Cluster),
		cluster:   v,
		facts:     facts{"lambda:SourceFunctionArn": v.FunctionARN()},
	}
	if lambdaItself {
		a.name, a.facts = "Lambda for the function of "+v.Cluster, facts{}
	}
	a.documents = a.ours(iam.HandlerPolicy, iam.RuntimePolicy, iam.NetworkPolicy)
	return a
}

// withGuidePermissions adds the AWS managed policies that the guide attaches to the function's role.
func (a actor) withGuidePermissions() actor {
	a.name += " with the guide's permissions"
	a.documents = append(a.documents, iam.GuideRoleManaged...)
	return a
}

// roleMadeBy is a role that the cluster's user has created. It may have any policy, under the account's boundary.
func roleMadeBy(v iam.Values) actor {
	a := userOf(v) // for its tags
	a.name, a.principal = "a role created by the user of "+v.Cluster, aRole.arn(thingOf(v))
	a.documents, a.boundary = []string{"AdministratorAccess"}, named(v.Cluster, iam.Boundary.Name)
	return a
}

// installerOf is the person who onboards the cluster, with only the installer's policy.
func installerOf(v iam.Values) actor {
	a := actor{name: "the installer of " + v.Cluster, principal: v.UserARN() + "-installer", cluster: v, facts: facts{}}
	a.documents = a.ours(iam.InstallerPolicy)
	return a
}

// estimatorOf is the person who runs kops-spot savings, with only its policy.
func estimatorOf(v iam.Values) actor {
	a := actor{name: "the estimator of " + v.Cluster, principal: v.UserARN() + "-estimator", cluster: v, facts: facts{}}
	a.documents = a.ours(iam.SavingsPolicy)
	return a
}

// ours adds documents of the actor's cluster.
func (a actor) ours(documents ...iam.Document) []string {
	var names []string
	for _, d := range documents {
		names = append(names, named(a.cluster.Cluster, d.Name))
	}
	return names
}

// does is the actor's request for an action on a resource, with its facts.
func (a actor) does(action, resource string, of facts) request {
	all := facts{}
	maps.Copy(all, a.facts)
	maps.Copy(all, of)
	return a.exactly(action, resource, all)
}

// exactly is a request with these facts and no others.
func (a actor) exactly(action, resource string, all facts) request {
	owner := account // also for resources without an account: an image, a bucket, everything
	if parts := strings.Split(resource, ":"); len(parts) > 5 && parts[4] != "" {
		owner = parts[4]
	}
	r := request{Documents: a.documents, Boundary: a.boundary, Principal: a.principal, Account: owner,
		Action: action, Resource: resource, Facts: all}
	if strings.HasPrefix(action, "kms:") {
		r.ResourcePolicy = keyPolicy
	}
	return r
}

// A statement is a statement of a policy document.
type statement struct {
	Sid       string
	Effect    string
	Action    oneOrMany
	Resource  oneOrMany
	Condition map[string]map[string]any
}

// oneOrMany is a list that IAM may write as a single string.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*o = oneOrMany{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

func statementsOf(t *testing.T, document json.RawMessage) []statement {
	t.Helper()
	var policy struct{ Statement []statement }
	if err := json.Unmarshal(document, &policy); err != nil {
		t.Fatal(err)
	}
	return policy.Statement
}

// managedByAWS are AWS managed policies as documented (AWS Managed Policy Reference, versions of February 2026). AWS
// can change them at any time. The tests prove their claims only for these versions.
var managedByAWS = map[string]json.RawMessage{
	"AmazonEC2ReadOnlyAccess": allow("ec2:Describe*", "ec2:GetSecurityGroupsForVpc", "elasticloadbalancing:Describe*",
		"cloudwatch:ListMetrics", "cloudwatch:GetMetricStatistics", "cloudwatch:Describe*", "autoscaling:Describe*"),
	"IAMReadOnlyAccess": allow("iam:GenerateCredentialReport", "iam:GenerateServiceLastAccessedDetails", "iam:Get*",
		"iam:List*", "iam:SimulateCustomPolicy", "iam:SimulatePrincipalPolicy"),
	"CloudWatchLogsFullAccess": allow("logs:*", "cloudwatch:GenerateQuery", "cloudwatch:GenerateQueryResultsSummary",
		"observabilityadmin:GetS3TableIntegration", "observabilityadmin:ListS3TableIntegrations",
		"observabilityadmin:ListTelemetryPipelines"),
	"service-role/AWSLambdaRole": allow("lambda:InvokeFunction"),
	"AdministratorAccess":        allow("*"),
}

// allow returns a policy that allows actions on everything.
func allow(actions ...string) json.RawMessage {
	text, err := json.Marshal(map[string]any{
		"Version":   "2012-10-17",
		"Statement": []any{map[string]any{"Effect": "Allow", "Action": actions, "Resource": "*"}},
	})
	if err != nil {
		panic(err)
	}
	return text
}
