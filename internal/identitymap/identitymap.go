package identitymap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

// Mapping is the part of onboarding that lets IAM identities into the cluster, and says what they may do there.
type Mapping struct {
	Cluster    string     // the cluster's name, as kOps knows it
	Identities []Identity // whom the cluster is to know

	// Karpenter lets the function delete Karpenter's NodeClaims: deploy/rbac-karpenter.yaml beside deploy/rbac.yaml.
	Karpenter bool
}

// Identity is an IAM role or user, and who it is to be in the cluster. Without groups it is to be nobody: what we have given
// it before is taken away.
type Identity struct {
	Kind     Kind
	ARN      string
	Username string
	Groups   []string
}

// Kind is what an ARN is of.
type Kind string

const (
	Role Kind = "role"
	User Kind = "user"
)

// HandlerGroup is the group that rbac.yaml lets do what the function does.
const HandlerGroup = "cast:spot-handler"

// Plan is what is to be changed in the cluster, and how the function logs in afterwards.
type Plan struct {
	Changes change.Plan

	// Backends say by ARN where the authenticator finds an identity. NoBackend is an identity that cannot log in as itself.
	Backends map[string]Backend

	// ClusterID is what the authenticator calls the cluster; empty if there is none.
	ClusterID string

	// NeedsToken says that the function has to log in with its ServiceAccount's token.
	NeedsToken bool

	Files map[string][]byte // the objects and list entries to write, for --export

	state state // what the plan is made of
	steps []step
	err   error // the first
}

// annotationOwnership is where we ownership in an object what in it is ours.
const annotationOwnership = spot.AnnotationPrefix + "mapped"

// Labels by which we know our own objects again.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = fieldManager
)

// valid holds the identities to what an authenticator can map, and to what we promise.
func (m Mapping) validate() error {
	for _, id := range m.Identities {
		is, err := arn.Parse(id.ARN)
		switch {
		case err != nil || is.Service != "iam" || is.AccountID == "" || !strings.HasPrefix(is.Resource, string(id.Kind)+"/"):
			return fmt.Errorf("mapping %s: it is not the ARN of an IAM %s", id.ARN, id.Kind)
		case id.Username == "":
			return fmt.Errorf("mapping %s: it has to have a name in the cluster", id.ARN)
		case id.Kind == Role && slices.ContainsFunc(id.Groups, isSystem):
			return fmt.Errorf("mapping %s: the function's role gets the rights of rbac.yaml, and no group of Kubernetes' own: %s",
				id.ARN, strings.Join(id.Groups, ", "))
		}
	}
	return nil
}

func isSystem(group string) bool { return strings.HasPrefix(group, "system:") }

// canonical is the ARN by which the authenticator knows an identity: STS tells it a session's role without the role's path,
// and a user with the user's.
func (id Identity) canonicalARN() string {
	head, last := id.ARN, ""
	if i := strings.LastIndexByte(id.ARN, '/'); id.Kind == Role && i >= 0 {
		head, last = id.ARN[:strings.IndexByte(id.ARN, '/')], id.ARN[i:]
	}
	return head + last
}

// accountOf is the AWS account in an ARN.
func accountOf(s string) string {
	a, _ := arn.Parse(s)
	return a.AccountID
}

// title is the identity as a plan names it.
func (id Identity) kindName() string { return "IAM " + string(id.Kind) }
