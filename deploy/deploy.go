// Package deploy holds what is put into a cluster, so that the binary carries what it installs.
package deploy

import _ "embed" // for the manifests

// RBAC is the manifest of what the handler may do in the cluster.
//
//go:embed rbac.yaml
var RBAC []byte

// KarpenterRBAC is the manifest of what the handler may do beside that where it deletes Karpenter's NodeClaims. It is applied
// only by who wants that.
//
//go:embed rbac-karpenter.yaml
var KarpenterRBAC []byte

// Code is the zip that Lambda runs on a processor, "arm64" or "x86_64"; nothing if this binary was built without it.
func Code(architecture string) []byte {
	content, err := code.ReadFile("code/" + architecture + ".zip")
	if err != nil {
		return nil
	}
	return content
}
