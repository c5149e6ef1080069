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

const (
	secretAccessKey = "access-key" // the user's
	secretToken     = "token"      // of the function's ServiceAccount, where IAM is not available in the cluster

	// tagKeyReplaces is on a user while a key is created: "none", or the old key. If the run is interrupted, the next
	// one knows which key has a secret that nobody has stored.
	tagKeyReplaces = "cast:key-replaces"

	// tagInConsole is the ID of the key that CAST AI's console has, since the console does not return it.
	tagInConsole = "cast:key-in-console"

	originalFunction = "cast-ai-ec2-events-handler"
)

// State is what exists of onboarding's resources in an account; nil for none.
type State struct {
	User              *awsadmin.User
	Managed, Boundary *awsadmin.Policy
	ClusterPolicy     *awsadmin.Policy
	Role              *awsadmin.Role
	KeySecret         *awsadmin.Secret
	TokenSecret       *awsadmin.Secret

	// RoleName is the name of the function's role, which may not exist yet.
	RoleName string

	// UntaggedUsers have the managed policy without the tags that it requires: the original or somebody else has
	// created them. TaggedUsers have both. The operator may not read UnreadableUsers.
	UntaggedUsers, TaggedUsers, UnreadableUsers []string

	// RolesMadeByUser are the roles that the cluster's user has created.
	RolesMadeByUser []string
}

// Inspect reads what exists of onboarding's resources for the cluster.
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

// findFold returns the name in a list that is equal but for its case; empty for none. An exact match wins.
func findFold(all []string, name string) string {
	if slices.Contains(all, name) {
		return name
	}
	if i := slices.IndexFunc(all, func(s string) bool { return strings.EqualFold(s, name) }); i >= 0 {
		return all[i]
	}
	return ""
}

func (s *State) policies(ctx context.Context, aws *awsadmin.Account, cluster string) error {
	arns, err := aws.PolicyARNs(ctx)
	if err != nil {
		return err
	}
	read := func(d iam.Document) (*awsadmin.Policy, error) {
		name := findFold(slices.Collect(maps.Keys(arns)), iam.Values{Cluster: cluster}.PolicyName(d))
		if name == "" {
			return nil, nil
		}
		return aws.Policy(ctx, name, arns[name])
	}
	if s.Boundary, err = read(iam.Boundary); err != nil {
		return err
	}
	if s.ClusterPolicy, err = read(iam.ClusterPolicy); err != nil {
		return err
	}
	if s.Managed, err = read(iam.ManagedPolicy); err != nil || s.Managed == nil {
		return err
	}
	for _, user := range s.Managed.Users {
		if strings.EqualFold(user, iam.UserName(cluster)) {
			continue
		}
		tags, err := aws.UserTags(ctx, user)
		switch {
		case errors.Is(err, awsadmin.ErrDenied):
			s.UnreadableUsers = append(s.UnreadableUsers, user)
		case err != nil:
			return err
		case tags[iam.TagCluster] == "" || tags[iam.TagName] == "":
			s.UntaggedUsers = append(s.UntaggedUsers, user)
		default:
			s.TaggedUsers = append(s.TaggedUsers, user)
		}
	}
	return nil
}

// role finds the function's role. The first cluster of an account uses the guide's name; if that belongs to another
// cluster or to somebody else, the cluster has its own.
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
	s.RoleName = iam.FunctionRoleName(cluster)
	if !slices.Contains(names, s.RoleName) {
		first := findFold(names, iam.FunctionRole)
		if first == "" {
			s.RoleName = iam.FunctionRole
			return nil
		}
		tags, err := aws.RoleTags(ctx, first)
		switch {
		case errors.Is(err, awsadmin.ErrDenied): // whoever cannot read it cannot onboard with it either
			return nil
		case err != nil:
			return err
		case !isOurs(tags, cluster):
			return nil
		}
		s.RoleName = first
	}
	s.Role, err = aws.Role(ctx, s.RoleName)
	return err
}
