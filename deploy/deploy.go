// Package deploy holds what is put into a cluster, so that the binary carries what it installs.
package deploy

import _ "embed"

// RBAC is the manifest of what the handler may do in the cluster.
//
//go:embed rbac.yaml
var RBAC []byte
