package iamcloud

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// Role is an IAM role, with all that it may do and who may be it.
type Role struct {
	Name     string
	Trust    string
	Tags     map[string]string
	Attached []string          // ARNs of managed policies
	Inline   map[string]string // documents by the policies' names
	Profiles []string          // instance profiles that it is in
}

// RoleNames lists all roles, with their paths: IAM has no other way to find those whose names differ in case only.
func (a *Account) RoleNames(ctx context.Context) (paths map[string]string, err error) {
	paths = map[string]string{}
	for pages := iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListRoles", "listing the account's roles", "", err)
		}
		for _, r := range page.Roles {
			paths[aws.ToString(r.RoleName)] = aws.ToString(r.Path)
		}
	}
	return paths, nil
}

// RoleTags reads the tags of a role, and needs to read no more of it.
func (a *Account) RoleTags(ctx context.Context, name string) (map[string]string, error) {
	out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return nil, translate("iam:GetRole", "reading role "+name, "role "+name, err)
	}
	return tagMap(out.Role.Tags), nil
}

// Role reads a role; nil if there is none.
func (a *Account) Role(ctx context.Context, name string) (*Role, error) {
	on, doing := "role "+name, "reading role "+name
	out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		err = translate("iam:GetRole", doing, on, err)
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	r := &Role{Name: name, Trust: decoded(out.Role.AssumeRolePolicyDocument), Tags: tagMap(out.Role.Tags), Inline: map[string]string{}}
	for pages := iam.NewListAttachedRolePoliciesPaginator(a.iam, &iam.ListAttachedRolePoliciesInput{RoleName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListAttachedRolePolicies", doing, on, err)
		}
		r.Attached = append(r.Attached, attached(page.AttachedPolicies)...)
	}
	for pages := iam.NewListRolePoliciesPaginator(a.iam, &iam.ListRolePoliciesInput{RoleName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListRolePolicies", doing, on, err)
		}
		for _, policy := range page.PolicyNames {
			out, err := a.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
			if err != nil {
				return nil, translate("iam:GetRolePolicy", doing, on, err)
			}
			r.Inline[policy] = decoded(out.PolicyDocument)
		}
	}
	for pages := iam.NewListInstanceProfilesForRolePaginator(a.iam, &iam.ListInstanceProfilesForRoleInput{RoleName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListInstanceProfilesForRole", doing, on, err)
		}
		for _, p := range page.InstanceProfiles {
			r.Profiles = append(r.Profiles, aws.ToString(p.InstanceProfileName))
		}
	}
	return r, nil
}

// RolesOfProfile are the names of the roles in an instance profile: one, as a rule.
func (a *Account) RolesOfProfile(ctx context.Context, profile string) (names []string, err error) {
	out, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &profile})
	if err != nil {
		return nil, translate("iam:GetInstanceProfile", "reading instance profile "+profile, "instance profile "+profile, err)
	}
	for _, r := range out.InstanceProfile.Roles {
		names = append(names, aws.ToString(r.RoleName))
	}
	return names, nil
}
