package onboard

import (
	"errors"
	"fmt"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
)

// Permissions of the function's role.
const (
	Least = "least" // our own documents alone
	Guide = "guide" // and what the guide attaches to it, which is not scoped to the cluster
)

// Spec is what onboarding is to bring about.
type Spec struct {
	Environment Environment
	Permissions string // Least or Guide
	Store       KeyStore
	RotateKey   bool

	// ReplaceShared says that the account's managed policy may be written though users have it who lose rights by that.
	ReplaceShared bool

	// UserIsMaster has the user mapped to system:masters, as the guide implies; otherwise it is not let into the cluster at all.
	UserIsMaster bool

	// Karpenter lets the function delete Karpenter's NodeClaims.
	Karpenter bool

	// Subnets and SecurityGroups are of a function in the VPC: both, or neither.
	Subnets, SecurityGroups []string
}

// Check refuses what makes no sense whatever the cluster and the account have.
func (w Spec) Check() error {
	if (len(w.Subnets) > 0) != (len(w.SecurityGroups) > 0) {
		return errors.New("--subnets and --security-groups go together: a function in the VPC has both")
	}
	return nil
}

// checkConflicts are the reasons for which nothing is done at all.
func (w Spec) checkConflicts(s State, files Files) error {
	return errors.Join(w.checkUserOwner(s), w.checkPolicyUsers(s, files),
		w.checkNotDeleting(secretAccessKey, s.KeySecret), w.checkNotDeleting(secretToken, s.TokenSecret))
}

// checkNotDeleting refuses a secret of whose name no other can be made for days.
func (w Spec) checkNotDeleting(secret string, is *awsadmin.Secret) error {
	if is == nil || !is.Deleted {
		return nil
	}
	name := iam.SecretName(w.Environment.Cluster, secret)
	return fmt.Errorf("secret %s is scheduled to be deleted, and until then no other can have its name: "+
		"aws secretsmanager restore-secret --secret-id %s --region %s brings it back", name, name, w.Environment.Region)
}

// checkUserOwner refuses a user that is another cluster's: names of clusters are not unique in an account, but in a region.
func (w Spec) checkUserOwner(s State) error {
	if s.User == nil {
		return nil
	}
	name, tags := s.User.Name, s.User.Tags
	if c := tags[iam.TagCluster]; c != "" && c != w.Environment.Cluster {
		return fmt.Errorf("user %s is tagged as of the cluster %s: it is not changed", name, c)
	}
	if r := tags[iam.TagRegion]; r != "" && r != w.Environment.Region {
		return fmt.Errorf("user %s is of a cluster of the same name in %s: two clusters of one name cannot both be onboarded in one account", name, r)
	}
	return nil
}

// checkPolicyUsers refuses to write the managed policy where that takes rights away from users that no tag gives them back.
func (w Spec) checkPolicyUsers(s State, files Files) error {
	if len(s.UntaggedUsers) == 0 || w.ReplaceShared ||
		awsadmin.SameDocument(s.Managed.Document, files.text(iam.ManagedPolicy)) {
		return nil
	}
	return fmt.Errorf("policy %s is to be written anew, and then allows nothing to %s, whose tags do not say which cluster they are of: "+
		"these are of clusters that were onboarded in another way. Onboard those clusters too, in one go, with --replace-shared-policy, which "+
		"leaves them without these rights until then", s.Managed.Name, joinAnd(s.UntaggedUsers))
}

// document renders one of the documents for the cluster.
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
