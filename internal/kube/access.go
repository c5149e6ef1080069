package kube

import (
	"context"
	"slices"

	authorizationv1 "k8s.io/api/authorization/v1"
)

// A Request is one kind of request that the handler makes of the API server.
type Request struct {
	Verb, Group, Resource, Subresource string

	For      string // what it is for
	Manifest string // the file in deploy/ that allows it
}

// String is the request as RBAC knows it: verb group/resource.
func (r Request) String() string {
	s := r.Verb + " " + r.Group + "/" + r.Resource
	if r.Subresource != "" {
		s += "/" + r.Subresource
	}
	return s
}

// The manifests that say what a log-in may do.
const (
	manifestBase      = "rbac.yaml"
	manifestKarpenter = "rbac-karpenter.yaml" // opt-in
)

// requests are all that the handler makes, but for the question what is allowed, which everybody may ask who is logged in.
// Tests hold them equal to the manifests, and to what the methods send that the domain calls. (What discovery reads for
// people at a terminal is not among them: it is done as they are logged in.)
var requests = []Request{
	{Verb: "get", Resource: "nodes", For: "finding the node by its name", Manifest: manifestBase},
	{Verb: "list", Resource: "nodes", For: "finding the node where no name matches, and finding the nodes that we have marked", Manifest: manifestBase},
	{Verb: "patch", Resource: "nodes", For: "cordoning and marking the node, and taking that back", Manifest: manifestBase},
	{Verb: "delete", Resource: "nodes", For: "deleting the Node of an instance that is terminated", Manifest: manifestBase},
	{Verb: "list", Resource: "pods", For: "knowing which pods are on the node", Manifest: manifestBase},
	{Verb: "watch", Resource: "pods", For: "seeing pods leave and arrive", Manifest: manifestBase},
	{Verb: "create", Resource: "pods", Subresource: "eviction", For: "asking pods to leave", Manifest: manifestBase},
	{Verb: "delete", Resource: "pods", For: "ending pods past their budgets when the machine ends anyway, and removing those of a machine that has ended", Manifest: manifestBase},
	{Verb: "list", Group: "storage.k8s.io", Resource: "volumeattachments", For: "seeing the volumes of a machine that has ended come free", Manifest: manifestBase},
	{Verb: "create", Group: "events.k8s.io", Resource: "events", For: "telling of it where operators look first", Manifest: manifestBase},
	{Verb: "delete", Group: claimGroup, Resource: "nodeclaims", For: "having Karpenter replace a node of its own", Manifest: manifestKarpenter},
}

// Requests are all kinds of requests that the handler makes of the API server, each once.
func Requests() []Request { return slices.Clone(requests) }

// Allowed asks the API server whether we may do something, in all namespaces where the resource is in one. reason is the
// server's, and often empty.
func (c *Cluster) Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Subresource: subresource}}}
	var answer authorizationv1.SelfSubjectAccessReview
	request := c.client.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").Body(review)
	if err := do(ctx, readLimit, request, &answer); err != nil {
		return false, "", translate(err, "asking what we may do")
	}
	reason = answer.Status.Reason
	if reason == "" {
		reason = answer.Status.EvaluationError
	}
	return answer.Status.Allowed, reason, nil
}
