package install

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// get is what a call gives; the test ends where it fails.
func get[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// snapshot is all that the account and the cluster have of what an installation could touch, a line each.
func snapshot(t *testing.T) string {
	t.Helper()
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	ctx := t.Context()
	for _, s := range get[*cloudformation.DescribeStacksOutput](t)(cloudformation.NewFromConfig(world.aws).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{})).Stacks {
		if s.StackStatus != types.StackStatusDeleteComplete {
			add("stack %s %s", *s.StackName, strings.Replace(string(s.StackStatus), "UPDATE", "CREATE", 1))
		}
	}
	for _, f := range get[*lambda.ListFunctionsOutput](t)(lambda.NewFromConfig(world.aws).ListFunctions(ctx, &lambda.ListFunctionsInput{})).Functions {
		add("function %s %s %v", *f.FunctionName, *f.Role, f.Environment.Variables)
		policy := get[*lambda.GetPolicyOutput](t)(lambda.NewFromConfig(world.aws).GetPolicy(ctx, &lambda.GetPolicyInput{FunctionName: f.FunctionName}))
		add("function %s policy of %d statements", *f.FunctionName, strings.Count(*policy.Policy, `"Sid"`))
		async := get[*lambda.GetFunctionEventInvokeConfigOutput](t)(lambda.NewFromConfig(world.aws).GetFunctionEventInvokeConfig(ctx,
			&lambda.GetFunctionEventInvokeConfigInput{FunctionName: f.FunctionName}))
		add("function %s to %s", *f.FunctionName, *async.DestinationConfig.OnSuccess.Destination)
	}
	for _, r := range get[*eventbridge.ListRulesOutput](t)(eventbridge.NewFromConfig(world.aws).ListRules(ctx, &eventbridge.ListRulesInput{})).Rules {
		add("rule %s %s %s", *r.Name, r.State, aws.ToString(r.EventPattern))
	}
	for _, url := range get[*sqs.ListQueuesOutput](t)(sqs.NewFromConfig(world.aws).ListQueues(ctx, &sqs.ListQueuesInput{})).QueueUrls {
		add("queue %s", url[strings.LastIndexByte(url, '/')+1:])
	}
	for _, g := range get[*cloudwatchlogs.DescribeLogGroupsOutput](t)(cloudwatchlogs.NewFromConfig(world.aws).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})).LogGroups {
		add("log group %s %d", *g.LogGroupName, aws.ToInt32(g.RetentionInDays))
	}
	for _, r := range get[*iam.ListRolesOutput](t)(iam.NewFromConfig(world.aws).ListRoles(ctx, &iam.ListRolesInput{})).Roles {
		add("role %s", *r.RoleName)
	}
	for _, s := range get[*secretsmanager.ListSecretsOutput](t)(secretsmanager.NewFromConfig(world.aws).ListSecrets(ctx, &secretsmanager.ListSecretsInput{})).SecretList {
		add("secret %s", *s.Name)
	}
	for _, b := range get[*s3.ListBucketsOutput](t)(s3.NewFromConfig(world.aws).ListBuckets(ctx, &s3.ListBucketsInput{})).Buckets {
		add("bucket %s", *b.Name)
		for _, o := range get[*s3.ListObjectsV2Output](t)(s3.NewFromConfig(world.aws).ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: b.Name})).Contents {
			add("object %s/%s", *b.Name, *o.Key)
		}
		block := get[*s3.GetPublicAccessBlockOutput](t)(s3.NewFromConfig(world.aws).GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: b.Name}))
		add("bucket %s private %t", *b.Name, *block.PublicAccessBlockConfiguration.BlockPublicPolicy)
		policy := get[*s3.GetBucketPolicyOutput](t)(s3.NewFromConfig(world.aws).GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b.Name}))
		add("bucket %s policy %s", *b.Name, *policy.Policy)
	}
	client := world.cp.Client()
	_, err := client.CoreV1().ServiceAccounts("kube-system").Get(ctx, "kops-spot", metav1.GetOptions{})
	add("service account %t", err == nil)
	_, err = client.CoreV1().Secrets("kube-system").Get(ctx, "kops-spot-token", metav1.GetOptions{})
	add("token %t", err == nil)
	_, err = client.RbacV1().ClusterRoles().Get(ctx, "kops-spot", metav1.GetOptions{})
	add("cluster role %t", err == nil)
	_, err = client.RbacV1().ClusterRoleBindings().Get(ctx, "kops-spot", metav1.GetOptions{})
	add("cluster role binding %t", err == nil)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// isTheSame compares two snapshots.
func isTheSame(t *testing.T, when, is, want string) {
	t.Helper()
	has, wanted := strings.Split(is, "\n"), strings.Split(want, "\n")
	for _, line := range wanted {
		if !slices.Contains(has, line) {
			t.Errorf("%s: there is no more: %.300s", when, line)
		}
	}
	for _, line := range has {
		if !slices.Contains(wanted, line) {
			t.Errorf("%s: there is now: %.300s", when, line)
		}
	}
}
