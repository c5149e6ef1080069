package iamcloud

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
func (a *Account) PolicyARNs(ctx context.Context) (arns map[string]string, err error) {
	arns = map[string]string{}
	for pages := iam.NewListPoliciesPaginator(a.iam, &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListPolicies", "listing the account's policies", "", err)
		}
		for _, p := range page.Policies {
			arns[aws.ToString(p.PolicyName)] = aws.ToString(p.Arn)
		}
	}
	return arns, nil
}

// Policy reads a policy of the account.
func (a *Account) Policy(ctx context.Context, name, arn string) (*Policy, error) {
	doing := "reading policy " + name
	out, err := a.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
	if err != nil {
		return nil, translate("iam:GetPolicy", doing, arn, err)
	}
	p := &Policy{Name: name, ARN: arn, Tags: tagMap(out.Policy.Tags)}
	for pages := iam.NewListPolicyVersionsPaginator(a.iam, &iam.ListPolicyVersionsInput{PolicyArn: &arn}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListPolicyVersions", doing, arn, err)
		}
		for _, v := range page.Versions {
			p.Versions = append(p.Versions, Version{aws.ToString(v.VersionId), v.IsDefaultVersion, aws.ToTime(v.CreateDate)})
		}
	}
	version, err := a.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: out.Policy.DefaultVersionId})
	if err != nil {
		return nil, translate("iam:GetPolicyVersion", doing, arn, err)
	}
	p.Document = decoded(version.PolicyVersion.Document)
	for pages := iam.NewListEntitiesForPolicyPaginator(a.iam, &iam.ListEntitiesForPolicyInput{PolicyArn: &arn}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListEntitiesForPolicy", doing, arn, err)
		}
		for _, u := range page.PolicyUsers {
			p.Users = append(p.Users, aws.ToString(u.UserName))
		}
		for _, r := range page.PolicyRoles {
			p.Roles = append(p.Roles, aws.ToString(r.RoleName))
		}
		for _, g := range page.PolicyGroups {
			p.Groups = append(p.Groups, aws.ToString(g.GroupName))
		}
	}
	return p, nil
}
