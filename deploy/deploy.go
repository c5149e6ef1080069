// Package deploy embeds what kops-spot installs.
package deploy

import _ "embed" // for the manifests

// RBAC is the manifest of the function's permissions in the cluster.
//
//go:embed rbac.yaml
var RBAC []byte

// KarpenterRBAC is the manifest of the additional permission to delete Karpenter NodeClaims. It is optional.
//
//go:embed rbac-karpenter.yaml
var KarpenterRBAC []byte

// Code returns the zip that Lambda runs on an architecture, "arm64" or "x86_64"; nil if the binary does not contain it.
func Code(architecture string) []byte {
	content, err := code.ReadFile("code/" + architecture + ".zip")
	if err != nil {
		return nil
	}
	return content
}
