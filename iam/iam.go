// Package iam holds the IAM policy documents, fills them in for one cluster, and knows the names of what they speak of.
// docs/iam.md says who gets which and why; test/iam proves what they allow.
package iam

import "embed"

// Document is one of the policy documents, as IAM gets to know it.
type Document struct {
	Name  string // of the policy; a role's trust policy has none
	file  string
	limit int // characters that IAM allows, white space not counted
}

// IAM's limits. Those for inline policies hold for all of a user's, or a role's, together.
const (
	managedLimit    = 6144
	userInlineLimit = 2048
	roleInlineLimit = 10240
	trustLimit      = 2048
)

var (
	// ManagedPolicy is what a cluster's user may create. All users of the account share it, so it tells clusters apart by the
	// user's tags: without them it allows nothing.
	ManagedPolicy = Document{Name: "CASTKopsPolicyV2", file: "policy.json", limit: managedLimit}

	// RestrictedPolicy is what a cluster's user may do to what the cluster has.
	RestrictedPolicy = Document{Name: "CASTKopsRestrictedaccess", file: "restricted.json", limit: userInlineLimit}

	// Boundary is the most that any role can do that a cluster's user makes, whatever policies the role has. It reads, and
	// writes nothing, so that it is the same for all clusters of the account.
	Boundary = Document{Name: "CASTKopsBoundary", file: "boundary.json", limit: managedLimit}

	// Trust says who may be the function's role.
	Trust = Document{file: "trust.json", limit: trustLimit}

	// HandlerPolicy is what the function's code can call; its text is Handler.
	HandlerPolicy = Document{Name: "CASTKopsHandler", file: "handler.json", limit: roleInlineLimit}

	// RuntimePolicy is what Lambda does for the function with the function's role: its log, its outcomes.
	RuntimePolicy = Document{Name: "CASTKopsRuntime", file: "runtime.json", limit: roleInlineLimit}

	// NetworkPolicy is what Lambda does with the role of a function in a VPC. The function's own code may not.
	NetworkPolicy = Document{Name: "CASTKopsNetwork", file: "network.json", limit: roleInlineLimit}

	// InstallerPolicy is what the person needs who onboards a cluster and takes it away again. It is an administrator's: who
	// may write the user's policies can write anything into them.
	InstallerPolicy = Document{Name: "CASTKopsInstaller", file: "installer.json", limit: managedLimit}
)

// Documents are all of them.
var Documents = []Document{
	ManagedPolicy, RestrictedPolicy, Boundary, Trust, HandlerPolicy, RuntimePolicy, NetworkPolicy, InstallerPolicy,
}

// The policies of AWS's own that the guide lists, as their ARNs name them.
var (
	// UserManaged are attached to a cluster's user.
	UserManaged = []string{"AmazonEC2ReadOnlyAccess", "IAMReadOnlyAccess"}

	// GuideRoleManaged are attached to the function's role where the guide's own permissions are asked for.
	GuideRoleManaged = []string{"CloudWatchLogsFullAccess", "service-role/AWSLambdaRole", "AmazonEC2ReadOnlyAccess"}
)

// Handler is the text of HandlerPolicy: what the function's code can call, and nothing else. What stands in angle brackets
// is to be filled in. The statements for the log-in are for the log-ins that need them; the one that ends instances is for
// those who ask for it.
//
//go:embed handler.json
var Handler []byte

//go:embed *.json
var files embed.FS
