package awsadmin

import (
	"context"
	"encoding/json"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// Role is an IAM role, with all that it may do and who may be it.
type Role struct {
	Name  string
	Trust string
	Tags  map[string]string
	Rights
	Profiles []string // instance profiles that it is in
}

// RoleNames lists all roles, with their paths: IAM has no other way to find those whose names differ in case only.
func (a *Account) RoleNames(ctx context.Context) (map[string]string, error) {
	roles, err := every(ctx, iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{}),
		func(p *iam.ListRolesOutput) []types.Role { return p.Roles }, func(r types.Role) types.Role { return r })
	paths := map[string]string{}
	for _, r := range roles {
		paths[aws.ToString(r.RoleName)] = aws.ToString(r.Path)
	}
	return paths, translate("listing the account's roles", "", err)
}

// role reads what of a role needs the least permission.
func (a *Account) role(ctx context.Context, name string) (*Role, error) {
	out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return nil, translate("reading role "+name, "role "+name, err)
	}
	return &Role{Name: name, Trust: decoded(out.Role.AssumeRolePolicyDocument), Tags: tagMap(out.Role.Tags)}, nil
}

// RoleTags reads the tags of a role, and needs to read no more of it.
func (a *Account) RoleTags(ctx context.Context, name string) (map[string]string, error) {
	r, err := a.role(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.Tags, nil
}

// Role reads a role; nil if there is none.
func (a *Account) Role(ctx context.Context, name string) (*Role, error) {
	r, err := a.role(ctx, name)
	if err != nil {
		return nil, unlessNone(err)
	}
	failed := func(err error) error { return translate("reading role "+name, "role "+name, err) }
	if r.Rights, err = rights(ctx,
		iam.NewListAttachedRolePoliciesPaginator(a.iam, &iam.ListAttachedRolePoliciesInput{RoleName: &name}),
		func(p *iam.ListAttachedRolePoliciesOutput) []types.AttachedPolicy { return p.AttachedPolicies },
		iam.NewListRolePoliciesPaginator(a.iam, &iam.ListRolePoliciesInput{RoleName: &name}),
		func(p *iam.ListRolePoliciesOutput) []string { return p.PolicyNames },
		func(policy string) (*iam.GetRolePolicyOutput, error) {
			return a.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
		}, func(p *iam.GetRolePolicyOutput) *string { return p.PolicyDocument }); err != nil {
		return nil, failed(err)
	}
	r.Profiles, err = every(ctx, iam.NewListInstanceProfilesForRolePaginator(a.iam,
		&iam.ListInstanceProfilesForRoleInput{RoleName: &name}),
		func(p *iam.ListInstanceProfilesForRoleOutput) []types.InstanceProfile { return p.InstanceProfiles },
		func(p types.InstanceProfile) string { return aws.ToString(p.InstanceProfileName) })
	return r, failed(err)
}

// RolesOfProfile are the names of the roles in an instance profile: one, as a rule.
func (a *Account) RolesOfProfile(ctx context.Context, profile string) (names []string, err error) {
	out, err := a.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &profile})
	if err != nil {
		return nil, translate("reading instance profile "+profile, "instance profile "+profile, err)
	}
	for _, r := range out.InstanceProfile.Roles {
		names = append(names, aws.ToString(r.RoleName))
	}
	return names, nil
}

// Trusted are the services that may take a role, by its trust policy.
func (a *Account) Trusted(ctx context.Context, role string) (services []string, err error) {
	r, err := a.role(ctx, role)
	if err != nil {
		return nil, err
	}
	var document struct {
		Statement []struct {
			Effect    string
			Principal struct{ Service oneOrMore }
		}
	}
	if json.Unmarshal([]byte(r.Trust), &document) != nil {
		return nil, nil // a principal of another form is no service
	}
	for _, s := range document.Statement {
		if s.Effect == "Allow" {
			services = append(services, s.Principal.Service...)
		}
	}
	return services, nil
}

// oneOrMore is a text or a list of them, as policies have both.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}
