package onboard

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path"
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

	// RoleName is the name of the function's role, which may not exist yet, and RolePath its path: "team/".
	RoleName, RolePath string

	// RoleOwner says why onboarding leaves the role and its policies alone; empty if onboarding creates it.
	RoleOwner string

	// Settings are the parameters of the function's stack, and Spec.Set. FunctionRole is empty if there is no stack.
	Settings map[string]string

	// UntaggedUsers have the managed policy without the tags that it requires: the original or somebody else has
	// created them. TaggedUsers have both. The operator may not read UnreadableUsers.
	UntaggedUsers, TaggedUsers, UnreadableUsers []string

	// RolesMadeByUser are the roles that the cluster's user has created.
	RolesMadeByUser []string
}

// inspect reads what exists of onboarding's resources for the cluster.
func (r *Onboarding) inspect(ctx context.Context) (s State, err error) {
	aws, cluster := r.AWS, r.Spec.Environment.Cluster
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
	paths, err := aws.RoleNames(ctx)
	if err != nil {
		return s, err
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		if paths[name] == iam.RolePath(cluster) {
			s.RolesMadeByUser = append(s.RolesMadeByUser, name)
		}
	}
	if err := s.role(ctx, r, paths); err != nil {
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
		case errors.Is(err, awsadmin.ErrNotFound): // deleted a moment ago: IAM still lists it
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

// role finds the function's role: the one that the stack's parameter FunctionRole or Spec.Set names, else the one that
// onboarding has created, else the guide's name if it is free, else the cluster's own name. So every command finds the
// same role, in whichever order they run. paths are those of all roles, if the caller has them.
func (s *State) role(ctx context.Context, r *Onboarding, paths map[string]string) error {
	aws, cluster := r.AWS, r.Spec.Environment.Cluster
	stack, err := aws.Stack(ctx, iam.FunctionName(cluster))
	if err != nil {
		return err
	}
	s.Settings = map[string]string{}
	if stack != nil && !stack.InReview() {
		maps.Copy(s.Settings, stack.Parameters)
		s.Settings[FunctionRole] = cmp.Or(s.Settings[FunctionRole], iam.FunctionRole)
	}
	maps.Copy(s.Settings, r.Spec.Set)
	if given := s.Settings[FunctionRole]; given != "" {
		return s.givenRole(ctx, r, given)
	}
	if paths == nil {
		if paths, err = aws.RoleNames(ctx); err != nil {
			return err
		}
	}
	names := slices.Sorted(maps.Keys(paths))
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

// givenRole reads the role of the stack's parameter FunctionRole: a name for a role that the stack creates, or an ARN.
func (s *State) givenRole(ctx context.Context, r *Onboarding, given string) (err error) {
	cluster := r.Spec.Environment.Cluster
	_, name, isARN := strings.Cut(given, ":role/")
	s.RolePath, s.RoleName = path.Split(name)
	if !isARN {
		s.RolePath, s.RoleName = "", given
	}
	if s.Role, err = r.AWS.Role(ctx, s.RoleName); err != nil {
		return err
	}
	switch {
	case s.Role != nil && isOurs(s.Role.Tags, cluster), // even if the stack has not been created with it yet
		s.Role == nil && isARN && slices.Contains([]string{iam.FunctionRole, iam.FunctionRoleName(cluster)}, name):
	case isARN:
		s.RoleOwner = "FunctionRole of the stack names it, and somebody else manages it"
	default:
		s.RoleOwner = "the stack " + iam.FunctionName(cluster) + " creates it with its policies"
	}
	return nil
}
