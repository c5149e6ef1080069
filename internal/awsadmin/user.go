package awsadmin

import (
	"context"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// Rights are the policies of a user or a role.
type Rights struct {
	Attached []string          // ARNs of managed policies
	Inline   map[string]string // documents by the policies' names
}

// User is an IAM user with all that it may do.
type User struct {
	Name string
	Tags map[string]string
	Rights
	Groups []string
	Keys   []Key
}

// Key is what IAM tells of an access key.
type Key struct {
	ID      string
	Active  bool
	Created time.Time
	Used    bool // ever; only KeysUsed finds out
}

// UserNames lists all users. Names that differ in case only cannot be together in an account, and yet are looked up
// as they are written.
func (a *Account) UserNames(ctx context.Context) ([]string, error) {
	names, err := every(ctx, iam.NewListUsersPaginator(a.iam, &iam.ListUsersInput{}),
		func(p *iam.ListUsersOutput) []types.User { return p.Users },
		func(u types.User) string { return aws.ToString(u.UserName) })
	return names, translate("listing the account's users", "", err)
}

// User reads a user; nil if there is none.
func (a *Account) User(ctx context.Context, name string) (*User, error) {
	tags, err := a.UserTags(ctx, name)
	if err != nil {
		return nil, unlessNone(err)
	}
	u := &User{Name: name, Tags: tags}
	failed := func(err error) error { return translate("reading user "+name, "user "+name, err) }
	if u.Rights, err = rights(ctx,
		iam.NewListAttachedUserPoliciesPaginator(a.iam, &iam.ListAttachedUserPoliciesInput{UserName: &name}),
		func(p *iam.ListAttachedUserPoliciesOutput) []types.AttachedPolicy { return p.AttachedPolicies },
		iam.NewListUserPoliciesPaginator(a.iam, &iam.ListUserPoliciesInput{UserName: &name}),
		func(p *iam.ListUserPoliciesOutput) []string { return p.PolicyNames },
		func(policy string) (*iam.GetUserPolicyOutput, error) {
			return a.iam.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: &name, PolicyName: &policy})
		}, func(p *iam.GetUserPolicyOutput) *string { return p.PolicyDocument }); err != nil {
		return nil, failed(err)
	}
	if u.Groups, err = every(ctx, iam.NewListGroupsForUserPaginator(a.iam, &iam.ListGroupsForUserInput{UserName: &name}),
		func(p *iam.ListGroupsForUserOutput) []types.Group { return p.Groups },
		func(g types.Group) string { return aws.ToString(g.GroupName) }); err != nil {
		return nil, failed(err)
	}
	u.Keys, err = every(ctx, iam.NewListAccessKeysPaginator(a.iam, &iam.ListAccessKeysInput{UserName: &name}),
		func(p *iam.ListAccessKeysOutput) []types.AccessKeyMetadata { return p.AccessKeyMetadata },
		func(k types.AccessKeyMetadata) Key {
			return Key{aws.ToString(k.AccessKeyId), k.Status == types.StatusTypeActive, aws.ToTime(k.CreateDate), false}
		})
	return u, failed(err)
}

// UserTags reads the tags of a user.
func (a *Account) UserTags(ctx context.Context, name string) (map[string]string, error) {
	out, err := a.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if err != nil {
		return nil, translate("reading user "+name, "user "+name, err)
	}
	return tagMap(out.User.Tags), nil
}

// KeysUsed finds out which of a user's keys have ever been used.
func (a *Account) KeysUsed(ctx context.Context, u *User) error {
	for i := range u.Keys {
		out, err := a.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &u.Keys[i].ID})
		if err != nil {
			return translate("asking when access key "+u.Keys[i].ID+" was used last", "user "+u.Name, err)
		}
		u.Keys[i].Used = out.AccessKeyLastUsed != nil && out.AccessKeyLastUsed.LastUsedDate != nil
	}
	return nil
}

// rights reads the policies of a user or a role: the lists of those that are attached and of the names of the inline
// ones, and each of these.
func rights[Attached, Inline, Options, Policy any](ctx context.Context,
	attached pages[Attached, Options], policies func(*Attached) []types.AttachedPolicy,
	inline pages[Inline, Options], names func(*Inline) []string,
	read func(name string) (*Policy, error), document func(*Policy) *string) (r Rights, err error) {
	r.Attached, err = every(ctx, attached, policies, func(p types.AttachedPolicy) string { return aws.ToString(p.PolicyArn) })
	if err != nil {
		return r, err
	}
	all, err := every(ctx, inline, names, itself)
	r.Inline = map[string]string{}
	for _, name := range all {
		policy, err := read(name)
		if err != nil {
			return r, err
		}
		r.Inline[name] = decoded(document(policy))
	}
	return r, err
}

func itself(s string) string { return s }

func tagMap(tags []types.Tag) map[string]string {
	return mapOf(tags, func(t types.Tag) (key, value *string) { return t.Key, t.Value })
}

// decoded is a document as it was written: IAM tells them as they stand in a URL.
func decoded(document *string) string {
	text := aws.ToString(document)
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}
