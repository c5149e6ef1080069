// Package agent embeds the manifests of CAST AI's agent.
package agent

import _ "embed" // for the manifests

// Manifests are the agent's objects, without the values of a cluster and without the API token.
//
//go:embed agent.yaml
var Manifests []byte
