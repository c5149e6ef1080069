package onboard

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

// Permissions of the function's role.
const (
	Least = "least" // only our own documents
	Guide = "guide" // also the guide's policies, which are not limited to the cluster
)

// Spec is the wanted result of onboarding.
type Spec struct {
	Environment Environment
	Permissions string // Least or Guide
	Store       KeyStore
	RotateKey   bool

	// ReplaceShared allows to update the account's managed policy even if users lose permissions by that.
	ReplaceShared bool

	// UserIsMaster maps the user to system:masters, like the guide. Otherwise it gets no access to the cluster.
	UserIsMaster bool

	// Karpenter allows the function to delete Karpenter's NodeClaims.
	Karpenter bool

	// Subnets and SecurityGroups are those of a function in the VPC: both or neither.
	Subnets, SecurityGroups []string
}

// Check validates the flags.
func (w Spec) Check() error {
	if (len(w.Subnets) > 0) != (len(w.SecurityGroups) > 0) {
		return errors.New("set both --subnets and --security-groups, or neither")
	}
	return nil
}

// checkConflicts returns the reasons not to start.
func (w Spec) checkConflicts(s State, files Files) error {
	return errors.Join(w.checkUserOwner(s), w.checkRoleOwner(s), w.checkPolicyUsers(s, files),
		w.checkNotDeleting(secretAccessKey, s.KeySecret), w.checkNotDeleting(secretToken, s.TokenSecret))
}

// checkNotDeleting refuses a secret that blocks its name for days.
func (w Spec) checkNotDeleting(secret string, is *awsadmin.Secret) error {
	if is == nil || !is.Deleted {
		return nil
	}
	name := iam.SecretName(w.Environment.Cluster, secret)
	return fmt.Errorf("secret %s is scheduled for deletion, which blocks its name until then: to restore it, run %s",
		name, awsCLI("secretsmanager", "restore-secret", "--secret-id", name, "--region", w.Environment.Region))
}

// checkUserOwner refuses another cluster's user: a cluster's name is unique in a region, but not in an account.
func (w Spec) checkUserOwner(s State) error {
	if s.User == nil {
		return nil
	}
	name, tags := s.User.Name, s.User.Tags
	if c := tags[iam.TagCluster]; c != "" && c != w.Environment.Cluster {
		return fmt.Errorf("user %s is tagged with the cluster %s: it is not changed", name, c)
	}
	if r := tags[iam.TagRegion]; r != "" && r != w.Environment.Region {
		return fmt.Errorf("user %s belongs to a cluster of the same name in %s: "+
			"an account can have only one onboarded cluster of a name", name, r)
	}
	differs := w.notOriginal(*s.User)
	if isOurs(tags, w.Environment.Cluster) || len(differs) == 0 {
		return nil
	}
	return fmt.Errorf("user %s has neither the tags of kops-spot nor exactly what CAST AI's original script creates: it %s. "+
		"Somebody else may have created it to get the cluster's permissions: delete it or, if you know who uses it, run %s",
		name, joinAnd(differs), awsCLI(append([]string{"iam", "tag-user", "--user-name", name, "--tags"}, w.ownerTags()...)...))
}

// ownerTags are the tags of our resources in the form of the AWS CLI.
func (w Spec) ownerTags() []string {
	return []string{"Key=" + iam.TagManagedBy + ",Value=" + iam.ManagedBy, "Key=" + iam.TagCluster + ",Value=" + w.Environment.Cluster}
}

// notOriginal returns how a user differs from what CAST AI's original script creates; empty if it does not.
func (w Spec) notOriginal(u awsadmin.User) (differs []string) {
	managed := findFold(u.Attached, w.Environment.PolicyARN(iam.ManagedPolicy))
	known := map[string]string{managed: ""}
	for _, name := range slices.Concat(iam.UserManaged, iam.OriginalUserManaged) {
		known[w.Environment.AWSPolicyARN(name)] = ""
	}
	if managed == "" {
		differs = append(differs, "lacks the policy "+iam.ManagedPolicy.Name)
	}
	if findFold(slices.Collect(maps.Keys(u.Inline)), iam.RestrictedPolicy.Name) == "" {
		differs = append(differs, "lacks the inline policy "+iam.RestrictedPolicy.Name)
	}
	for _, s := range reviewUser(u.Name, u, known) {
		differs = append(differs, "has the "+s.Kind+" "+s.Name)
	}
	return differs
}

// checkRoleOwner refuses somebody else's role of the cluster's name. The original script creates none of that name.
func (w Spec) checkRoleOwner(s State) error {
	if s.Role == nil || isOurs(s.Role.Tags, w.Environment.Cluster) {
		return nil
	}
	if stack := s.Role.Tags[iam.TagStack]; stack != "" {
		return fmt.Errorf("role %s belongs to the stack %s: run kops-spot uninstall, onboard, and install again", s.RoleName, stack)
	}
	return fmt.Errorf("role %s has the name of the cluster's role, but not the tags of kops-spot: somebody else may have "+
		"created it to get into the cluster: delete it or, if you know who uses it, run %s", s.RoleName,
		awsCLI(append([]string{"iam", "tag-role", "--role-name", s.RoleName, "--tags"}, w.ownerTags()...)...))
}

// checkPolicyUsers refuses an update of the managed policy that removes permissions of users without tags.
func (w Spec) checkPolicyUsers(s State, files Files) error {
	switch {
	case w.ReplaceShared || s.Managed == nil, awsadmin.SameDocument(s.Managed.Document, files.text(iam.ManagedPolicy)):
		return nil
	case len(s.UnreadableUsers) > 0:
		return fmt.Errorf("updating policy %s may remove all its permissions from %s, whose tags you may not read: allow "+
			"iam:GetUser on them or, if kops-spot has onboarded their clusters, set --replace-shared-policy", s.Managed.Name,
			joinAnd(s.UnreadableUsers))
	case len(s.UntaggedUsers) == 0:
		return nil
	}
	return fmt.Errorf("updating policy %s would remove all its permissions from %s, whose tags name no cluster: "+
		"their clusters were onboarded in another way. Onboard those clusters too, in one go and with "+
		"--replace-shared-policy; until then they lack these permissions", s.Managed.Name, joinAnd(s.UntaggedUsers))
}

// document renders a document for the cluster.
func (w Spec) document(d iam.Document, s State) (string, error) {
	v := w.Environment.Values
	v.FunctionRole = s.RoleName
	if s.TokenSecret != nil && !s.TokenSecret.Deleted {
		v.Secrets = []string{s.TokenSecret.ARN}
	}
	v.Queues = []string{v.QueueARN(iam.Outcomes), v.QueueARN(iam.Failures)}
	v.Topics = []string{v.TopicARN(iam.Outcomes)}
	v.Subnets, v.SecurityGroups = w.Subnets, w.SecurityGroups
	text, err := iam.Render(d, v)
	return string(text), err
}
