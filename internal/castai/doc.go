// Package castai notifies CAST AI's autoscaler of interruptions, so that it replaces the node.
//
// It uses POST /v1/kubernetes/external-clusters/{cluster}/events with the key in the header X-API-Key. CAST AI finds its
// own nodes by their ID and others by provider ID. Requests are idempotent and may be repeated.
package castai
