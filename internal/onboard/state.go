package onboard

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

// Names of a cluster's secrets, and of tags that are ours alone.
const (
	secretAccessKey = "access-key" // the user's
	secretToken     = "token"      // of the function's ServiceAccount, where IAM is not known in the cluster

	// tagKeyReplaces is on a user while a key is being made: "none", or the key that the new one takes the place of. A run that
	// was broken off then leaves a key whose secret nobody has, and this tells which it is.
	tagKeyReplaces = "cast:key-replaces"

	// tagInConsole is the id of the key that CAST AI's console has been given, which nobody can ask.
	tagInConsole = "cast:key-in-console"

	originalFunction = "cast-ai-ec2-events-handler"
)

// State is what an account has of what onboarding makes. Nil is what is not there.
type State struct {
	User              *awsadmin.User
	Managed, Boundary *awsadmin.Policy
	Role              *awsadmin.Role
	KeySecret         *awsadmin.Secret
	TokenSecret       *awsadmin.Secret

	// RoleName is what the function's role is called, or would be.
	RoleName string

	// Strangers have the managed policy and not the tags by which it tells clusters apart: the original has made them, or
	// people have. Others have both.
	UntaggedUsers, TaggedUsers []string

	// Made are the roles that the cluster's user has made.
	RolesMadeByUser []string
}

// Inspect reads what there is of what onboarding makes for the cluster.
func Inspect(ctx context.Context, aws *awsadmin.Account, cluster string) (s State, err error) {
	users, err := aws.UserNames(ctx)
	if err != nil {
		return s, err
	}
	if name := findFold(users, iam.UserName(cluster)); name != "" {
		if s.User, err = aws.User(ctx, name); err != nil {
			return s, err
		}
	}
	if s.User != nil && s.User.Tags[tagKeyReplaces] != "" {
		if err := aws.KeysUsed(ctx, s.User); err != nil {
			return s, err
		}
	}
	if err := s.policies(ctx, aws, cluster); err != nil {
		return s, err
	}
	if err := s.role(ctx, aws, cluster); err != nil {
		return s, err
	}
	if s.KeySecret, err = aws.Secret(ctx, iam.SecretName(cluster, secretAccessKey)); err != nil {
		return s, err
	}
	s.TokenSecret, err = aws.Secret(ctx, TokenSecret(cluster))
	return s, err
}

// written is the name among all that is one but for its case; empty if there is none.
func findFold(all []string, name string) string {
	if slices.Contains(all, name) {
		return name
	}
	for _, s := range all {
		if strings.EqualFold(s, name) {
			return s
		}
	}
	return ""
}

func (s *State) policies(ctx context.Context, aws *awsadmin.Account, cluster string) error {
	arns, err := aws.PolicyARNs(ctx)
	if err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(arns))
	for _, p := range []struct {
		into *(*awsadmin.Policy)
		name string
	}{{&s.Managed, iam.ManagedPolicy.Name}, {&s.Boundary, iam.Boundary.Name}} {
		name := findFold(names, p.name)
		if name == "" {
			continue
		}
		if *p.into, err = aws.Policy(ctx, name, arns[name]); err != nil {
			return err
		}
	}
	if s.Managed == nil {
		return nil
	}
	for _, user := range s.Managed.Users {
		if strings.EqualFold(user, iam.UserName(cluster)) {
			continue
		}
		tags, err := aws.UserTags(ctx, user)
		if err != nil && !errors.Is(err, awsadmin.ErrDenied) { // whose tags may not be read is taken for one without
			return err
		}
		if tags[iam.TagCluster] == "" || tags[iam.TagName] == "" {
			s.UntaggedUsers = append(s.UntaggedUsers, user)
		} else {
			s.TaggedUsers = append(s.TaggedUsers, user)
		}
	}
	return nil
}

// role finds the function's role. The first cluster of an account has the guide's name for it; where that is another
// cluster's or nobody's that we know, there is one of the cluster's own.
func (s *State) role(ctx context.Context, aws *awsadmin.Account, cluster string) error {
	paths, err := aws.RoleNames(ctx)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(paths))
	for _, name := range names {
		if paths[name] == iam.RolePath(cluster) {
			s.RolesMadeByUser = append(s.RolesMadeByUser, name)
		}
	}
	own := iam.FunctionRoleName(cluster)
	s.RoleName = own
	if slices.Contains(names, own) {
		s.Role, err = aws.Role(ctx, own)
		return err
	}
	first := findFold(names, iam.FunctionRole)
	if first == "" {
		s.RoleName = iam.FunctionRole
		return nil
	}
	tags, err := aws.RoleTags(ctx, first)
	switch {
	case errors.Is(err, awsadmin.ErrDenied): // who may not read it may not onboard with it either
		return nil
	case err != nil:
		return err
	case !isOurs(tags, cluster):
		return nil
	}
	s.RoleName = first
	s.Role, err = aws.Role(ctx, first)
	return err
}
