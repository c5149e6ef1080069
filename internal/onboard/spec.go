package onboard

import (
	"errors"
	"fmt"

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
	return errors.Join(w.checkUserOwner(s), w.checkPolicyUsers(s, files),
		w.checkNotDeleting(secretAccessKey, s.KeySecret), w.checkNotDeleting(secretToken, s.TokenSecret))
}

// checkNotDeleting refuses a secret that blocks its name for days.
func (w Spec) checkNotDeleting(secret string, is *awsadmin.Secret) error {
	if is == nil || !is.Deleted {
		return nil
	}
	name := iam.SecretName(w.Environment.Cluster, secret)
	return fmt.Errorf("secret %s is scheduled for deletion, which blocks its name until then: to restore it, run "+
		"aws secretsmanager restore-secret --secret-id %s --region %s", name, name, w.Environment.Region)
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
	return nil
}

// checkPolicyUsers refuses an update of the managed policy that removes permissions of users without tags.
func (w Spec) checkPolicyUsers(s State, files Files) error {
	if len(s.UntaggedUsers) == 0 || w.ReplaceShared ||
		awsadmin.SameDocument(s.Managed.Document, files.text(iam.ManagedPolicy)) {
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
