// Package iam holds the IAM policy documents, renders them for a cluster, and names its resources. docs/iam.md says who
// gets which document and why; test/iam proves what they allow.
package iam

import "embed"

// Document is a policy document.
type Document struct {
	Name       string // of the policy, or its beginning; empty for a trust policy
	file       string
	limit      int  // characters without white space
	perCluster bool // a managed policy of one cluster, whose name ends in the cluster's: see PolicyName
}

// IAM's limits. For inline policies, they hold for the sum of a user's or a role's.
const (
	managedLimit    = 6144
	userInlineLimit = 2048
	roleInlineLimit = 10240
	trustLimit      = 2048
)

var (
	// ManagedPolicy is what the users of all clusters may create. It depends on the user's tags: without them it allows
	// nothing.
	ManagedPolicy = Document{Name: "CASTKopsPolicyV2", file: "policy.json", limit: managedLimit}

	// RestrictedPolicy is what a cluster's user may do with the cluster's workers, groups and subnets.
	RestrictedPolicy = Document{Name: "CASTKopsRestrictedaccess", file: "restricted.json", limit: userInlineLimit}

	// ClusterPolicy is what a cluster's user may do with the function and its rules, and the roles that it may pass. As
	// an inline policy, it would exceed the user's limit with a few node roles.
	ClusterPolicy = Document{Name: "CASTKopsCluster", file: "cluster.json", limit: managedLimit, perCluster: true}

	// Boundary limits all roles that a cluster's user creates. It is read-only, and the same for all clusters.
	Boundary = Document{Name: "CASTKopsBoundary", file: "boundary.json", limit: managedLimit}

	// Trust says who may assume the function's role.
	Trust = Document{file: "trust.json", limit: trustLimit}

	// HandlerPolicy is what the function's code calls; its text is Handler.
	HandlerPolicy = Document{Name: "CASTKopsHandler", file: "handler.json", limit: roleInlineLimit}

	// RuntimePolicy is what Lambda does with the function's role: write logs, send failed events.
	RuntimePolicy = Document{Name: "CASTKopsRuntime", file: "runtime.json", limit: roleInlineLimit}

	// NetworkPolicy is what Lambda does with the role of a function in a VPC. The function's own code may not do it.
	NetworkPolicy = Document{Name: "CASTKopsNetwork", file: "network.json", limit: roleInlineLimit}

	// InstallerPolicy is what the operator needs to onboard and offboard a cluster. It amounts to administrator access:
	// whoever can write the user's policies can write anything into them.
	InstallerPolicy = Document{Name: "CASTKopsInstaller", file: "installer.json", limit: managedLimit}

	// SavingsPolicy is what kops-spot savings calls. It is read-only, and the same for all clusters.
	SavingsPolicy = Document{Name: "CASTKopsSavings", file: "savings.json", limit: managedLimit}
)

// Documents are all documents.
var Documents = []Document{
	ManagedPolicy, RestrictedPolicy, ClusterPolicy, Boundary, Trust, HandlerPolicy, RuntimePolicy, NetworkPolicy, InstallerPolicy,
	SavingsPolicy,
}

// AWS managed policies that CAST AI's guide attaches.
var (
	// UserManaged are attached to a cluster's user.
	UserManaged = []string{"AmazonEC2ReadOnlyAccess", "IAMReadOnlyAccess"}

	// OriginalUserManaged are attached to the user by CAST AI's original script beside these. No cluster limits them.
	OriginalUserManaged = []string{"AmazonEventBridgeReadOnlyAccess", "AWSLambda_ReadOnlyAccess", "AmazonS3ReadOnlyAccess"}

	// GuideRoleManaged are attached to the function's role only with --permissions guide.
	GuideRoleManaged = []string{"CloudWatchLogsFullAccess", "service-role/AWSLambdaRole", "AmazonEC2ReadOnlyAccess"}
)

// Handler is the text of HandlerPolicy, with placeholders in angle brackets. Some statements apply only to some
// settings: those for authentication, and the one for terminating instances.
//
//go:embed handler.json
var Handler []byte

//go:embed *.json
var files embed.FS
