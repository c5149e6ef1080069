// Package identitymap maps IAM identities to Kubernetes users for aws-iam-authenticator: it inspects the mappings of
// each backend, plans changes, applies them and checks the result.
package identitymap

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/spot"
)

// Mapping is the access that identities get to a cluster.
type Mapping struct {
	Cluster    string // name in kOps
	Identities []Identity

	// Karpenter allows the function to delete Karpenter's NodeClaims: deploy/rbac-karpenter.yaml beside
	// deploy/rbac.yaml.
	Karpenter bool

	// IdentitiesOnly makes PlanRemoval keep the function's RBAC and token.
	IdentitiesOnly bool
}

// Identity is an IAM role or user, and its username and groups in the cluster. Without groups it gets no access, and
// loses what earlier runs have added.
type Identity struct {
	Kind     Kind
	ARN      string
	Username string
	Groups   []string
}

// Kind is the kind of an IAM identity.
type Kind string

const (
	Role Kind = "role"
	User Kind = "user"
)

// HandlerGroup is the group that rbac.yaml binds.
const HandlerGroup = "cast:spot-handler"

// Plan is what to change in the cluster, and how the function authenticates afterwards.
type Plan struct {
	Changes change.Plan

	// Backends has the backend of each identity by ARN. With NoBackend, the identity cannot authenticate with IAM.
	Backends map[string]Backend

	// ClusterID is the authenticator's ID of the cluster; empty without an authenticator.
	ClusterID string

	// NeedsToken means that the function has to authenticate with a token of its ServiceAccount.
	NeedsToken bool

	Files map[string][]byte // the objects and list entries to write, for --export

	state state
	steps []step
	err   error // the first
}

const (
	// annotationOwnership holds what in an object is ours.
	annotationOwnership = spot.AnnotationPrefix + "mapped"

	// The label of our own objects.
	labelManagedBy = "app.kubernetes.io/managed-by"
	managedBy      = fieldManager
)

// validate refuses identities that an authenticator cannot map, and any that break our promises.
func (m Mapping) validate() error {
	for _, id := range m.Identities {
		is, err := arn.Parse(id.ARN)
		switch {
		case err != nil || is.Service != "iam" || is.AccountID == "" || !strings.HasPrefix(is.Resource, string(id.Kind)+"/"):
			return fmt.Errorf("mapping %s: it is not the ARN of an IAM %s", id.ARN, id.Kind)
		case id.Username == "":
			return fmt.Errorf("mapping %s: set a username", id.ARN)
		case id.Kind == Role && slices.ContainsFunc(id.Groups, isSystem):
			return fmt.Errorf("mapping %s: the function's role gets only the permissions of rbac.yaml, "+
				"and none of Kubernetes' own groups: remove %s", id.ARN, strings.Join(id.Groups, ", "))
		}
	}
	return nil
}

func isSystem(group string) bool { return strings.HasPrefix(group, "system:") }

// canonicalARN returns the ARN that the authenticator compares: STS omits the path of a session's role, but not that of
// a user.
func (id Identity) canonicalARN() string {
	if id.Kind != Role {
		return id.ARN
	}
	head, _, _ := strings.Cut(id.ARN, "/")
	return head + id.ARN[strings.LastIndexByte(id.ARN, '/'):]
}

// leave is the row that says what about an identity is not changed, and why.
func (id Identity) leave(format string, args ...any) change.Change {
	why := fmt.Sprintf(format, args...)
	return change.Change{Verb: change.Leave, Kind: "IAM " + string(id.Kind), Name: id.ARN, Why: why}
}

// The files of --export.
const (
	fileKustomization = "kustomization.yaml" // of the files with objects
	fileRBAC          = "rbac.yaml"
	fileToken         = "token.yaml"
	fileMapping       = "identity-mapping.yaml"
	fileKops          = "identity-mapping-kops.yaml" // what kOps' cluster spec has in place of fileMapping

	// FileEntries has the entries for lists that others also edit.
	FileEntries = "identity-mapping-entries.yaml"
)

// export renders the objects that a plan writes, as files for --export.
func (m Mapping) export(p Plan) (map[string][]byte, error) {
	files := map[string][]byte{}
	var failed error
	add := func(name, head string, v any) {
		out := bytes.NewBuffer(append(files[name], head...))
		encoder := yaml.NewEncoder(out)
		encoder.SetIndent(2)
		failed = errors.Join(failed, encoder.Encode(v))
		files[name] = out.Bytes()
	}
	addNew := func(name string, mutate mutateFunc) {
		o, _, err := mutate(nil)
		failed = errors.Join(failed, err)
		add(name, "---\n", o.Object)
	}
	for _, o := range m.manifests() {
		add(fileRBAC, "---\n", o.Object)
	}
	if p.NeedsToken {
		addNew(fileToken, mutateToken)
	}
	var inSpec []*yaml.Node
	for _, id := range m.Identities {
		switch b := p.Backends[id.ARN]; b {
		case CRD:
			addNew(fileMapping, mutateCRD(crdRef(p.state, id), id, false))
			inSpec = append(inSpec, entryNode("arn", id))
		case EKSConfigMap, MountedFile:
			list := awsAuthBackend()
			if b == MountedFile {
				list = p.state.file(m.Cluster)
			}
			at := list.location(id.Kind)
			add(FileEntries, "# An entry for "+at.name(list.ref)+"\n", []*yaml.Node{entryNode(at.arnKey, id)})
		}
	}
	objects := slices.DeleteFunc([]string{fileRBAC, fileToken, fileMapping},
		func(name string) bool { return files[name] == nil })
	type fields = map[string]any
	add(fileKustomization, "", fields{"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
		"resources": objects})
	if inSpec != nil {
		add(fileKops, "# For kops edit cluster, in place of "+fileMapping+"\n",
			fields{"spec": fields{"authentication": fields{"aws": fields{"identityMappings": inSpec}}}})
	}
	return files, failed
}
