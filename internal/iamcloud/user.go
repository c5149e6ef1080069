package iamcloud

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// User is an IAM user with all that it may do.
type User struct {
	Name     string
	Tags     map[string]string
	Attached []string          // ARNs of managed policies
	Inline   map[string]string // documents by the policies' names
	Groups   []string
	Keys     []Key
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
func (a *Account) UserNames(ctx context.Context) (names []string, err error) {
	for pages := iam.NewListUsersPaginator(a.iam, &iam.ListUsersInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListUsers", "listing the account's users", "", err)
		}
		for _, u := range page.Users {
			names = append(names, aws.ToString(u.UserName))
		}
	}
	return names, nil
}

// User reads a user; nil if there is none.
func (a *Account) User(ctx context.Context, name string) (*User, error) {
	on, doing := "user "+name, "reading user "+name
	tags, err := a.UserTags(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	u := &User{Name: name, Tags: tags, Inline: map[string]string{}}
	for pages := iam.NewListAttachedUserPoliciesPaginator(a.iam, &iam.ListAttachedUserPoliciesInput{UserName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListAttachedUserPolicies", doing, on, err)
		}
		u.Attached = append(u.Attached, attached(page.AttachedPolicies)...)
	}
	for pages := iam.NewListUserPoliciesPaginator(a.iam, &iam.ListUserPoliciesInput{UserName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListUserPolicies", doing, on, err)
		}
		for _, policy := range page.PolicyNames {
			out, err := a.iam.GetUserPolicy(ctx, &iam.GetUserPolicyInput{UserName: &name, PolicyName: &policy})
			if err != nil {
				return nil, translate("iam:GetUserPolicy", doing, on, err)
			}
			u.Inline[policy] = decoded(out.PolicyDocument)
		}
	}
	for pages := iam.NewListGroupsForUserPaginator(a.iam, &iam.ListGroupsForUserInput{UserName: &name}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListGroupsForUser", doing, on, err)
		}
		for _, g := range page.Groups {
			u.Groups = append(u.Groups, aws.ToString(g.GroupName))
		}
	}
	if u.Keys, err = a.keys(ctx, name); err != nil {
		return nil, err
	}
	return u, nil
}

// UserTags reads the tags of a user.
func (a *Account) UserTags(ctx context.Context, name string) (map[string]string, error) {
	out, err := a.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name})
	if err != nil {
		return nil, translate("iam:GetUser", "reading user "+name, "user "+name, err)
	}
	return tagMap(out.User.Tags), nil
}

func (a *Account) keys(ctx context.Context, user string) (keys []Key, err error) {
	for pages := iam.NewListAccessKeysPaginator(a.iam, &iam.ListAccessKeysInput{UserName: &user}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, translate("iam:ListAccessKeys", "listing the access keys of user "+user, "user "+user, err)
		}
		for _, k := range page.AccessKeyMetadata {
			keys = append(keys, Key{aws.ToString(k.AccessKeyId), k.Status == types.StatusTypeActive, aws.ToTime(k.CreateDate), false})
		}
	}
	return keys, nil
}

// KeysUsed finds out which of a user's keys have ever been used.
func (a *Account) KeysUsed(ctx context.Context, u *User) error {
	for i := range u.Keys {
		out, err := a.iam.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &u.Keys[i].ID})
		if err != nil {
			return translate("iam:GetAccessKeyLastUsed", "asking when access key "+u.Keys[i].ID+" was used last", "user "+u.Name, err)
		}
		u.Keys[i].Used = out.AccessKeyLastUsed != nil && out.AccessKeyLastUsed.LastUsedDate != nil
	}
	return nil
}

func attached(policies []types.AttachedPolicy) (arns []string) {
	for _, p := range policies {
		arns = append(arns, aws.ToString(p.PolicyArn))
	}
	return arns
}

func tagMap(list []types.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

// decoded is a document as it was written: IAM tells them as they stand in a URL.
func decoded(document *string) string {
	text := aws.ToString(document)
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}
