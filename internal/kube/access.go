package kube

import (
	"context"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// A Request is a kind of request that the handler sends to the API server.
type Request struct {
	Verb, Group, Resource, Subresource string

	For      string // what it is for
	Manifest string // the file in deploy/ that allows it
}

// String returns the request in RBAC's terms: verb group/resource.
func (r Request) String() string {
	s := r.Verb + " " + r.Group + "/" + r.Resource
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	return s
}

const (
	manifestBase      = "rbac.yaml"
	manifestKarpenter = "rbac-karpenter.yaml" // opt-in
)

// requests lists all requests of the handler except SelfSubjectAccessReview, which every authenticated user may create.
// Tests compare it with the manifests and with the requests that are sent. Discovery by the command line is not
// included.
var requests = []Request{
	{Verb: "get", Resource: "nodes", For: "finding the node by its name", Manifest: manifestBase},
	{Verb: "list", Resource: "nodes", For: "finding the node if no name matches, and the nodes that kops-spot has cordoned", Manifest: manifestBase},
	{Verb: "watch", Resource: "nodes", For: "cordoning the node again if it is uncordoned", Manifest: manifestBase},
	{Verb: "patch", Resource: "nodes", For: "cordoning and uncordoning the node", Manifest: manifestBase},
	{Verb: "delete", Resource: "nodes", For: "deleting the Node of a terminated instance", Manifest: manifestBase},
	{Verb: "list", Resource: "pods", For: "listing the pods of the node", Manifest: manifestBase},
	{Verb: "watch", Resource: "pods", For: "watching the pods of the node", Manifest: manifestBase},
	{Verb: "create", Resource: "pods", Subresource: "eviction", For: "evicting pods", Manifest: manifestBase},
	{Verb: "patch", Resource: "pods", Subresource: "status", For: "setting the condition DisruptionTarget before a force deletion",
		Manifest: manifestBase},
	{Verb: "delete", Resource: "pods", For: "force-deleting pods before the deadline, and deleting the pods of a terminated instance",
		Manifest: manifestBase},
	{Verb: "list", Group: "storage.k8s.io", Resource: "volumeattachments", For: "listing the node's volumes", Manifest: manifestBase},
	{Verb: "watch", Group: "storage.k8s.io", Resource: "volumeattachments", For: "waiting until volumes are detached",
		Manifest: manifestBase},
	{Verb: "create", Group: "events.k8s.io", Resource: "events", For: "creating Kubernetes Events", Manifest: manifestBase},
	{Verb: "delete", Group: claimGroup, Resource: "nodeclaims", For: "having Karpenter replace its node", Manifest: manifestKarpenter},
}

// Requests returns all kinds of requests that the handler sends to the API server.
func Requests() []Request { return slices.Clone(requests) }

// Allowed checks a permission, in all namespaces if the resource is namespaced. reason is the server's, and often
// empty.
func (c *Cluster) Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Subresource: subresource}}}
	var result authorizationv1.SelfSubjectAccessReview
	request := c.client.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").Body(review)
	if err := do(ctx, readLimit, request, &result); err != nil {
		return false, "", translate(err, "checking permissions")
	}
	reason = result.Status.Reason
	if reason == "" {
		reason = result.Status.EvaluationError
	}
	return result.Status.Allowed, reason, nil
}
