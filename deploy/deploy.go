// Package deploy holds what is put into a cluster, so that the binary carries what it installs.
package deploy

import _ "embed"

// RBAC is the manifest of what the handler may do in the cluster.
//
//go:embed rbac.yaml
var RBAC []byte

// KarpenterRBAC is the manifest of what the handler may do beside that where it deletes Karpenter's NodeClaims. It is applied
// only by who wants that.
//
//go:embed rbac-karpenter.yaml
var KarpenterRBAC []byte
