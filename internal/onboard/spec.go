package onboard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

	// Set has precedence over the parameters of the function's stack, which say what its role needs.
	Set map[string]string

	// Tags are more tags for what onboarding creates. They never replace its own.
	Tags map[string]string
}

// FunctionRole and these are the parameters of the stack that concern onboarding.
const FunctionRole = "FunctionRole"

var Settings = []string{FunctionRole, "KeyArns", "ParameterArns", "PermissionsBoundary", "SecretArns", "SecurityGroupIds",
	"SubnetIds"}

// tags adds Tags to tags of ours.
func (w Spec) tags(ours map[string]string) map[string]string {
	all := maps.Clone(w.Tags)
	if all == nil {
		return ours
	}
	maps.Copy(all, ours)
	return all
}

// checkConflicts returns the reasons not to start.
func (w Spec) checkConflicts(s State, files Files) error {
	return errors.Join(w.checkUserOwner(s), w.checkRoleOwner(s), w.checkSettings(s), w.checkPolicyUsers(s, files),
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
	for _, s := range reviewUser(u.Name, u, known, "") {
		differs = append(differs, "has the "+s.Kind+" "+s.Name)
	}
	return differs
}

// checkRoleOwner refuses a role of another cluster or of another stack, and somebody else's role that nobody has chosen.
// The original script creates none of the cluster's name.
func (w Spec) checkRoleOwner(s State) error {
	given := s.Settings[FunctionRole]
	isARN := strings.Contains(given, ":")
	const other = "; choose another role with --set FunctionRole=ARN"
	if isARN && given != w.Environment.RoleARN(s.RolePath+s.RoleName) {
		return fmt.Errorf("FunctionRole=%s is not a role of the account %s%s", given, w.Environment.Account, other)
	}
	if s.Role == nil {
		if isARN && s.RoleOwner != "" {
			return fmt.Errorf("role %s does not exist: create it%s", given, other)
		}
		return nil
	}
	stack, own, c := s.Role.Tags[iam.TagStack], iam.FunctionName(w.Environment.Cluster), s.Role.Tags[iam.TagCluster]
	switch {
	case isOurs(s.Role.Tags, w.Environment.Cluster), stack == own && given != "":
		return nil
	case stack == own:
		return fmt.Errorf("role %s was created by the stack %s, which no longer exists: delete the role", s.RoleName, stack)
	case stack != "":
		return fmt.Errorf("role %s belongs to the stack %s, which is not the cluster's: it is not changed%s", s.RoleName, stack, other)
	case c != "" && c != w.Environment.Cluster:
		return fmt.Errorf("role %s is tagged with the cluster %s: it is not changed%s", s.RoleName, c, other)
	case isARN:
		return nil
	}
	return fmt.Errorf("role %s has the name of the cluster's role, but not the tags of kops-spot: somebody else may have "+
		"created it to get into the cluster: delete it or, if you know who uses it, run %s", s.RoleName,
		awsCLI(append([]string{"iam", "tag-role", "--role-name", s.RoleName, "--tags"}, w.ownerTags()...)...))
}

// checkSettings refuses settings that the function's stack would refuse, too, or that its role cannot have.
func (w Spec) checkSettings(s State) error {
	if (s.Settings["SubnetIds"] == "") != (s.Settings["SecurityGroupIds"] == "") {
		return errors.New("set both SubnetIds and SecurityGroupIds, or neither")
	}
	if w.Permissions == Guide && s.RoleOwner != "" {
		return fmt.Errorf("--permissions guide is only for a role that onboarding creates, and not for %s: %s; attached "+
			"policies would block its deletion: omit the flag, or run kops-spot uninstall and then kops-spot install "+
			"--onboard --permissions guide", s.RoleName, s.RoleOwner)
	}
	return nil
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

// document renders a document for the cluster, by the settings of its function.
func (w Spec) document(d iam.Document, s State) (string, error) {
	v := w.Environment.Values
	v.FunctionRole = s.RolePath + s.RoleName
	token := ""
	if s.TokenSecret != nil && !s.TokenSecret.Deleted {
		token = s.TokenSecret.ARN
	}
	v.Secrets = SecretARNs(s.Settings["SecretArns"], v.Cluster, token)
	slices.Sort(v.Secrets)
	v.Parameters, v.Keys = awsadmin.List(s.Settings["ParameterArns"]), awsadmin.List(s.Settings["KeyArns"])
	v.Queues = []string{v.QueueARN(iam.Failures)}
	v.Subnets, v.SecurityGroups = awsadmin.List(s.Settings["SubnetIds"]), awsadmin.List(s.Settings["SecurityGroupIds"])
	text, err := iam.Render(d, v)
	return string(text), err
}

// SecretARNs returns the ARNs of the secrets that the function reads: those of SecretArns, and its token's. A secret that
// is created again has another ARN.
func SecretARNs(parameter, cluster, token string) []string {
	arns := slices.DeleteFunc(awsadmin.List(parameter), func(arn string) bool {
		return strings.Contains(arn, ":secret:"+TokenSecret(cluster)+"-")
	})
	if token != "" {
		arns = append(arns, token)
	}
	return arns
}
