package operator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cfntypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// snapshot returns one line for each resource of the account that onboarding could change, and, in the account with
// installations, for each resource that an installation could change there and in its cluster.
func (w *world) snapshot() (all []string) {
	w.Helper()
	ctx, client := w.Context(), w.iam()
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, u := range must(client.ListUsers(ctx, &awsiam.ListUsersInput{})).Users {
		user := "user " + *u.UserName
		add("%s", user)
		for _, p := range must(client.ListAttachedUserPolicies(ctx, &awsiam.ListAttachedUserPoliciesInput{UserName: u.UserName})).AttachedPolicies {
			add("%s has %s", user, *p.PolicyArn)
		}
		for _, p := range must(client.ListUserPolicies(ctx, &awsiam.ListUserPoliciesInput{UserName: u.UserName})).PolicyNames {
			out := must(client.GetUserPolicy(ctx, &awsiam.GetUserPolicyInput{UserName: u.UserName, PolicyName: &p}))
			add("%s inline %s %s", user, p, document(out.PolicyDocument))
		}
		for _, t := range must(client.ListUserTags(ctx, &awsiam.ListUserTagsInput{UserName: u.UserName})).Tags {
			add("%s tag %s=%s", user, *t.Key, *t.Value)
		}
		for _, k := range must(client.ListAccessKeys(ctx, &awsiam.ListAccessKeysInput{UserName: u.UserName})).AccessKeyMetadata {
			add("%s key %s %s", user, *k.AccessKeyId, k.Status)
		}
	}
	for _, r := range must(client.ListRoles(ctx, &awsiam.ListRolesInput{})).Roles {
		role := "role " + *r.RoleName
		add("%s trusts %s", role, document(r.AssumeRolePolicyDocument))
		if strings.Contains(*r.RoleName, ".") { // kOps' own, which nobody calls anything of
			continue
		}
		for _, p := range must(client.ListAttachedRolePolicies(ctx, &awsiam.ListAttachedRolePoliciesInput{RoleName: r.RoleName})).AttachedPolicies {
			add("%s has %s", role, *p.PolicyArn)
		}
		for _, p := range must(client.ListRolePolicies(ctx, &awsiam.ListRolePoliciesInput{RoleName: r.RoleName})).PolicyNames {
			out := must(client.GetRolePolicy(ctx, &awsiam.GetRolePolicyInput{RoleName: r.RoleName, PolicyName: &p}))
			add("%s inline %s %s", role, p, document(out.PolicyDocument))
		}
		for _, t := range must(client.ListRoleTags(ctx, &awsiam.ListRoleTagsInput{RoleName: r.RoleName})).Tags {
			add("%s tag %s=%s", role, *t.Key, *t.Value)
		}
	}
	for _, p := range must(client.ListPolicies(ctx, &awsiam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal})).Policies {
		for _, v := range must(client.ListPolicyVersions(ctx, &awsiam.ListPolicyVersionsInput{PolicyArn: p.Arn})).Versions {
			out := must(client.GetPolicyVersion(ctx, &awsiam.GetPolicyVersionInput{PolicyArn: p.Arn, VersionId: v.VersionId}))
			add("policy %s %s %t %s", *p.PolicyName, *v.VersionId, v.IsDefaultVersion, document(out.PolicyVersion.Document))
		}
		for _, t := range must(client.ListPolicyTags(ctx, &awsiam.ListPolicyTagsInput{PolicyArn: p.Arn})).Tags {
			add("policy %s tag %s=%s", *p.PolicyName, *t.Key, *t.Value)
		}
	}
	for _, s := range must(w.secrets().ListSecrets(ctx, &secretsmanager.ListSecretsInput{})).SecretList {
		add("secret %s", *s.Name)
		for _, t := range s.Tags {
			add("secret %s tag %s=%s", *s.Name, aws.ToString(t.Key), aws.ToString(t.Value))
		}
		out, err := w.secrets().GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: s.Name})
		if err != nil {
			continue // it holds nothing
		}
		held := map[string]string{}
		_ = json.Unmarshal([]byte(*out.SecretString), &held)
		add("secret %s holds %s of %s", *s.Name, strings.Join(slices.Sorted(maps.Keys(held)), ","), held["accessKeyId"])
	}
	if w.account == account {
		all = slices.Concat(all, w.installation(), inCluster(w.T))
	}
	slices.Sort(all)
	return all
}

// installation returns one line for each resource, other than roles and secrets, that an installation could change.
func (w *world) installation() (all []string) {
	w.Helper()
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	ctx := w.Context()
	for _, s := range must(cloudformation.NewFromConfig(w.direct).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{})).Stacks {
		if s.StackStatus != cfntypes.StackStatusDeleteComplete {
			add("stack %s %s", *s.StackName, strings.Replace(string(s.StackStatus), "UPDATE", "CREATE", 1))
		}
	}
	for _, f := range must(lambda.NewFromConfig(w.direct).ListFunctions(ctx, &lambda.ListFunctionsInput{})).Functions {
		add("function %s %s %v", *f.FunctionName, *f.Role, f.Environment.Variables)
		policy := must(lambda.NewFromConfig(w.direct).GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: f.FunctionName}))
		add("function %s policy of %d statements", *f.FunctionName, strings.Count(*policy.Policy, `"Sid"`))
		async := must(lambda.NewFromConfig(w.direct).GetFunctionEventInvokeConfig(ctx,
			&lambda.GetFunctionEventInvokeConfigInput{FunctionName: f.FunctionName}))
		add("function %s to %s", *f.FunctionName, *async.DestinationConfig.OnFailure.Destination)
	}
	for _, r := range must(eventbridge.NewFromConfig(w.direct).ListRules(ctx, &eventbridge.ListRulesInput{})).Rules {
		add("rule %s %s %s", *r.Name, r.State, aws.ToString(r.EventPattern))
	}
	for _, c := range must(eventbridge.NewFromConfig(w.direct).ListConnections(ctx, &eventbridge.ListConnectionsInput{})).Connections {
		add("connection %s", *c.Name)
	}
	for _, d := range must(eventbridge.NewFromConfig(w.direct).ListApiDestinations(ctx, &eventbridge.ListApiDestinationsInput{})).ApiDestinations {
		add("destination %s", *d.Name)
	}
	for _, url := range must(sqs.NewFromConfig(w.direct).ListQueues(ctx, &sqs.ListQueuesInput{})).QueueUrls {
		add("queue %s", url[strings.LastIndexByte(url, '/')+1:])
	}
	for _, g := range must(cloudwatchlogs.NewFromConfig(w.direct).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})).LogGroups {
		add("log group %s %d", *g.LogGroupName, aws.ToInt32(g.RetentionInDays))
	}
	for _, b := range must(s3.NewFromConfig(w.direct).ListBuckets(ctx, &s3.ListBucketsInput{})).Buckets {
		add("bucket %s", *b.Name)
		for _, o := range must(s3.NewFromConfig(w.direct).ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: b.Name})).Contents {
			add("object %s/%s", *b.Name, *o.Key)
		}
		block := must(s3.NewFromConfig(w.direct).GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: b.Name}))
		add("bucket %s private %t", *b.Name, *block.PublicAccessBlockConfiguration.BlockPublicPolicy)
		for _, t := range must(s3.NewFromConfig(w.direct).GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: b.Name})).TagSet {
			add("bucket %s tag %s=%s", *b.Name, *t.Key, *t.Value)
		}
		policy := must(s3.NewFromConfig(w.direct).GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b.Name}))
		add("bucket %s policy %s", *b.Name, *policy.Policy)
	}
	return all
}

func document(text *string) string {
	plain, err := url.QueryUnescape(aws.ToString(text))
	if err != nil {
		return aws.ToString(text)
	}
	return strings.Join(strings.Fields(plain), " ")
}

var (
	keyID    = regexp.MustCompile(`AKIA[A-Z0-9]{12,}`)
	tokenARN = regexp.MustCompile(`/token-[A-Za-z0-9]{6}`)
	vpcID    = regexp.MustCompile(`vpc-[0-9a-f]+`)
)

// alike replaces values that differ between runs and accounts.
func (w *world) alike(text string) string {
	text = keyID.ReplaceAllString(strings.ReplaceAll(text, w.account, "ACCOUNT"), "AKIA…")
	return vpcID.ReplaceAllString(tokenARN.ReplaceAllString(text, "/token-…"), "vpc-…")
}

// of returns the lines of a snapshot that begin with one of the names.
func of(snapshot []string, names ...string) (lines []string) {
	for _, line := range snapshot {
		for _, n := range names {
			if strings.HasPrefix(line, n+" ") || line == n {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// difference returns the lines that only one of two snapshots has.
func difference(a, b []string) string {
	var out strings.Builder
	for _, l := range a {
		if !slices.Contains(b, l) {
			fmt.Fprintf(&out, "- %.300s\n", l)
		}
	}
	for _, r := range b {
		if !slices.Contains(a, r) {
			fmt.Fprintf(&out, "+ %.300s\n", r)
		}
	}
	if len(a) != len(b) { // what was replaced may be alike
		fmt.Fprintf(&out, "%d lines, and not %d\n", len(b), len(a))
	}
	return out.String()
}

// unchanged compares the account with a snapshot.
func (w *world) unchanged(when string, before []string) {
	w.Helper()
	if d := difference(w.lines(before), w.lines(w.snapshot())); d != "" {
		w.Errorf("%s, the account has changed:\n%s", when, d)
	}
}

// lines returns a snapshot without values that differ between runs and accounts.
func (w *world) lines(snapshot []string) []string {
	return strings.Split(w.alike(strings.Join(snapshot, "\n")), "\n")
}

// inCluster returns one line for each object of the cluster that onboarding and installing could change.
func inCluster(t *testing.T) (lines []string) {
	t.Helper()
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	core, rbac := cp().Client().CoreV1(), cp().Client().RbacV1()
	for _, c := range must(core.ConfigMaps(kubeSystem).List(t.Context(), metav1.ListOptions{})).Items {
		add("ConfigMap %s %v", c.Name, c.Data)
	}
	for _, s := range must(core.Secrets(kubeSystem).List(t.Context(), metav1.ListOptions{})).Items {
		add("Secret %s", s.Name)
	}
	for _, s := range must(core.ServiceAccounts(kubeSystem).List(t.Context(), metav1.ListOptions{})).Items {
		add("ServiceAccount %s", s.Name)
	}
	for _, r := range must(rbac.ClusterRoles().List(t.Context(), metav1.ListOptions{})).Items {
		add("ClusterRole %s %v", r.Name, r.Rules)
	}
	for _, b := range must(rbac.ClusterRoleBindings().List(t.Context(), metav1.ListOptions{})).Items {
		add("ClusterRoleBinding %s %v", b.Name, b.RoleRef)
	}
	return lines
}
