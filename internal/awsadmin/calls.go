package awsadmin

import (
	"context"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	secretstypes "github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
)

// listOf converts a map to a list in the order of its keys.
func listOf[T any](of map[string]string, one func(key, value *string) T) (list []T) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		list = append(list, one(aws.String(key), aws.String(of[key])))
	}
	return list
}

// mapOf converts such a list to a map.
func mapOf[T any](list []T, of func(T) (key, value *string)) map[string]string {
	all := map[string]string{}
	for _, one := range list {
		key, value := of(one)
		all[aws.ToString(key)] = aws.ToString(value)
	}
	return all
}

func tagList(tags map[string]string) []types.Tag {
	return listOf(tags, func(key, value *string) types.Tag { return types.Tag{Key: key, Value: value} })
}

// CreateUser creates a user, with a permissions boundary unless that is empty.
func CreateUser(name, boundary string, tags map[string]string) Call {
	return call("user "+name, (*iam.Client).CreateUser, &iam.CreateUserInput{UserName: &name, Tags: tagList(tags),
		PermissionsBoundary: optional(boundary)})
}

func PutUserBoundary(name, arn string) Call {
	return call("user "+name, (*iam.Client).PutUserPermissionsBoundary,
		&iam.PutUserPermissionsBoundaryInput{UserName: &name, PermissionsBoundary: &arn})
}

func DeleteUser(name string) Call {
	return call("user "+name, (*iam.Client).DeleteUser, &iam.DeleteUserInput{UserName: &name})
}

func TagUser(name string, tags map[string]string) Call {
	return call("user "+name, (*iam.Client).TagUser, &iam.TagUserInput{UserName: &name, Tags: tagList(tags)})
}

func UntagUser(name string, keys ...string) Call {
	return call("user "+name, (*iam.Client).UntagUser, &iam.UntagUserInput{UserName: &name, TagKeys: keys})
}

func AttachUserPolicy(name, arn string) Call {
	return call("user "+name, (*iam.Client).AttachUserPolicy, &iam.AttachUserPolicyInput{UserName: &name, PolicyArn: &arn})
}

func DetachUserPolicy(name, arn string) Call {
	return call("user "+name, (*iam.Client).DetachUserPolicy, &iam.DetachUserPolicyInput{UserName: &name, PolicyArn: &arn})
}

func PutUserPolicy(name, policy, document string) Call {
	return call("user "+name, (*iam.Client).PutUserPolicy,
		&iam.PutUserPolicyInput{UserName: &name, PolicyName: &policy, PolicyDocument: &document})
}

func DeleteUserPolicy(name, policy string) Call {
	return call("user "+name, (*iam.Client).DeleteUserPolicy,
		&iam.DeleteUserPolicyInput{UserName: &name, PolicyName: &policy})
}

func DeactivateKey(user, key string) Call {
	return call("user "+user, (*iam.Client).UpdateAccessKey,
		&iam.UpdateAccessKeyInput{UserName: &user, AccessKeyId: &key, Status: types.StatusTypeInactive})
}

func DeleteKey(user, key string) Call {
	return call("user "+user, (*iam.Client).DeleteAccessKey, &iam.DeleteAccessKeyInput{UserName: &user, AccessKeyId: &key})
}

func CreatePolicy(name, description, document string, tags map[string]string) Call {
	return call("policy "+name, (*iam.Client).CreatePolicy,
		&iam.CreatePolicyInput{PolicyName: &name, Description: &description, PolicyDocument: &document, Tags: tagList(tags)})
}

// CreatePolicyVersion creates a version of a managed policy and makes it the default.
func CreatePolicyVersion(arn, document string) Call {
	return call(arn, (*iam.Client).CreatePolicyVersion,
		&iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: &document, SetAsDefault: true})
}

func DeletePolicyVersion(arn, version string) Call {
	return call(arn, (*iam.Client).DeletePolicyVersion,
		&iam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: &version})
}

func DeletePolicy(arn string) Call {
	return call(arn, (*iam.Client).DeletePolicy, &iam.DeletePolicyInput{PolicyArn: &arn})
}

func TagPolicy(arn string, tags map[string]string) Call {
	return call(arn, (*iam.Client).TagPolicy, &iam.TagPolicyInput{PolicyArn: &arn, Tags: tagList(tags)})
}

// CreateRole creates a role, with a permissions boundary unless that is empty.
func CreateRole(name, description, trust, boundary string, tags map[string]string) Call {
	return call("role "+name, (*iam.Client).CreateRole,
		&iam.CreateRoleInput{RoleName: &name, Description: &description, AssumeRolePolicyDocument: &trust,
			Tags: tagList(tags), PermissionsBoundary: optional(boundary)})
}

func PutRoleBoundary(name, arn string) Call {
	return call("role "+name, (*iam.Client).PutRolePermissionsBoundary,
		&iam.PutRolePermissionsBoundaryInput{RoleName: &name, PermissionsBoundary: &arn})
}

func DeleteRole(name string) Call {
	return call("role "+name, (*iam.Client).DeleteRole, &iam.DeleteRoleInput{RoleName: &name})
}

func TagRole(name string, tags map[string]string) Call {
	return call("role "+name, (*iam.Client).TagRole, &iam.TagRoleInput{RoleName: &name, Tags: tagList(tags)})
}

func UpdateTrust(name, trust string) Call {
	return call("role "+name, (*iam.Client).UpdateAssumeRolePolicy,
		&iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: &trust})
}

func AttachRolePolicy(name, arn string) Call {
	return call("role "+name, (*iam.Client).AttachRolePolicy, &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: &arn})
}

func DetachRolePolicy(name, arn string) Call {
	return call("role "+name, (*iam.Client).DetachRolePolicy, &iam.DetachRolePolicyInput{RoleName: &name, PolicyArn: &arn})
}

func PutRolePolicy(name, policy, document string) Call {
	return call("role "+name, (*iam.Client).PutRolePolicy,
		&iam.PutRolePolicyInput{RoleName: &name, PolicyName: &policy, PolicyDocument: &document})
}

func DeleteRolePolicy(name, policy string) Call {
	return call("role "+name, (*iam.Client).DeleteRolePolicy,
		&iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &policy})
}

// CreateSecret creates a secret without a value, and waits until Secret returns it: a policy needs its ARN.
func CreateSecret(name, description string, tags map[string]string) Call {
	list := listOf(tags, func(key, value *string) secretstypes.Tag { return secretstypes.Tag{Key: key, Value: value} })
	return Call{"secret " + name, func(ctx context.Context, a *Account) error {
		_, err := a.secrets.CreateSecret(ctx,
			&secretsmanager.CreateSecretInput{Name: &name, Description: &description, Tags: list})
		if err != nil {
			return err
		}
		return a.Do(ctx, call("secret "+name, (*secretsmanager.Client).DescribeSecret,
			&secretsmanager.DescribeSecretInput{SecretId: &name}))
	}}
}

// DeleteSecret deletes a secret immediately, so that its name can be used again.
func DeleteSecret(name string) Call {
	return call("secret "+name, (*secretsmanager.Client).DeleteSecret,
		&secretsmanager.DeleteSecretInput{SecretId: &name, ForceDeleteWithoutRecovery: aws.Bool(true)})
}

func RemoveTargets(rule string, ids []string) Call {
	return call("rule "+rule, (*eventbridge.Client).RemoveTargets,
		&eventbridge.RemoveTargetsInput{Rule: &rule, EventBusName: aws.String(defaultBus), Ids: ids})
}

func DeleteRule(rule string) Call {
	return call("rule "+rule, (*eventbridge.Client).DeleteRule,
		&eventbridge.DeleteRuleInput{Name: &rule, EventBusName: aws.String(defaultBus)})
}

func DeleteFunction(name string) Call {
	return call("function "+name, (*lambda.Client).DeleteFunction, &lambda.DeleteFunctionInput{FunctionName: &name})
}
