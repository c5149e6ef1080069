package iamflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// snapshot is all that an account has of what onboarding could touch, a line each.
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
	slices.Sort(all)
	return all
}

func document(text *string) string {
	plain, err := url.QueryUnescape(aws.ToString(text))
	if err != nil {
		return aws.ToString(text)
	}
	return strings.Join(strings.Fields(plain), " ")
}

var keyID = regexp.MustCompile(`AKIA[A-Z0-9]{12,}`)

// alike is a snapshot without what differs from run to run: the ids of keys.
func alike(snapshot []string) string {
	return keyID.ReplaceAllString(strings.Join(snapshot, "\n"), "AKIA…")
}

// of are the lines of a snapshot that are about the names.
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

// difference is what only one of two snapshots has.
func difference(a, b string) string {
	var out []string
	left, right := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range left {
		if !slices.Contains(right, l) {
			out = append(out, fmt.Sprintf("- %.300s", l))
		}
	}
	for _, r := range right {
		if !slices.Contains(left, r) {
			out = append(out, fmt.Sprintf("+ %.300s", r))
		}
	}
	return strings.Join(out, "\n")
}

// isAsItWas holds the account to a snapshot of it from before it was onboarded.
func (w *world) isAsItWas(before []string) {
	w.Helper()
	if d := difference(strings.Join(before, "\n"), strings.Join(w.snapshot(), "\n")); d != "" {
		w.Errorf("offboarding does not leave the account as it was:\n%s", d)
	}
}
