package awsadmin

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// Policy is a customer managed policy, and who has it: to act by it, or as a boundary.
type Policy struct {
	Name, ARN            string
	Document             string // of the version that counts
	Tags                 map[string]string
	Versions             []Version
	Users, Roles, Groups []string
}

// Version is one of the five that a managed policy may have.
type Version struct {
	ID      string
	Default bool // it is the one that counts, and cannot be deleted
	Created time.Time
}

// MaxVersions is how many IAM keeps of a policy.
const MaxVersions = 5

// PolicyARNs lists the account's own policies, by name.
func (a *Account) PolicyARNs(ctx context.Context) (map[string]string, error) {
	all, err := every(ctx, iam.NewListPoliciesPaginator(a.iam, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal}),
		func(p *iam.ListPoliciesOutput) []types.Policy { return p.Policies }, func(p types.Policy) types.Policy { return p })
	arns := map[string]string{}
	for _, p := range all {
		arns[aws.ToString(p.PolicyName)] = aws.ToString(p.Arn)
	}
	return arns, translate("listing the account's policies", "", err)
}

// Policy reads a policy of the account.
func (a *Account) Policy(ctx context.Context, name, arn string) (*Policy, error) {
	failed := func(err error) error { return translate("reading policy "+name, arn, err) }
	out, err := a.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
	if err != nil {
		return nil, failed(err)
	}
	p := &Policy{Name: name, ARN: arn, Tags: tagMap(out.Policy.Tags)}
	if p.Versions, err = every(ctx, iam.NewListPolicyVersionsPaginator(a.iam,
		&iam.ListPolicyVersionsInput{PolicyArn: &arn}),
		func(page *iam.ListPolicyVersionsOutput) []types.PolicyVersion { return page.Versions },
		func(v types.PolicyVersion) Version {
			return Version{aws.ToString(v.VersionId), v.IsDefaultVersion, aws.ToTime(v.CreateDate)}
		}); err != nil {
		return nil, failed(err)
	}
	version, err := a.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: out.Policy.DefaultVersionId})
	if err != nil {
		return nil, failed(err)
	}
	p.Document = decoded(version.PolicyVersion.Document)
	_, err = every(ctx, iam.NewListEntitiesForPolicyPaginator(a.iam, &iam.ListEntitiesForPolicyInput{PolicyArn: &arn}),
		func(page *iam.ListEntitiesForPolicyOutput) []string {
			for _, u := range page.PolicyUsers {
				p.Users = append(p.Users, aws.ToString(u.UserName))
			}
			for _, r := range page.PolicyRoles {
				p.Roles = append(p.Roles, aws.ToString(r.RoleName))
			}
			for _, g := range page.PolicyGroups {
				p.Groups = append(p.Groups, aws.ToString(g.GroupName))
			}
			return nil
		}, itself)
	return p, failed(err)
}
