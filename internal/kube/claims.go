package kube

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/spot"
)

// Karpenter's kind for a node that it has asked for, or is about to.
const (
	claimGroup = "karpenter.sh"
	claimKind  = "NodeClaim"
)

// DeleteNodeClaim implements spot.Cluster. Karpenter has served NodeClaims as v1 since its 1.0, and as v1beta1 from 0.32 on.
func (c *Cluster) DeleteNodeClaim(ctx context.Context, name string) (err error) {
	doing := "deleting NodeClaim " + name
	for _, version := range []string{"v1", "v1beta1"} {
		err = do(ctx, writeLimit, c.client.Delete().AbsPath("/apis", claimGroup, version, "nodeclaims", name), nil)
		if !isUnknownResource(err) {
			break
		}
	}
	if apierrors.IsForbidden(err) && !isWebhook(err) {
		return spot.PossiblyTransient(fmt.Errorf("%s: the credential is good but may not do this (403): apply deploy/rbac-karpenter.yaml: %w", doing, err))
	}
	return translate(err, doing)
}

// isUnknownResource reports whether a 404 is about the kind of the object, which the server does not know, and not about the
// object: then it is plain text and no Status, and the client notes that.
func isUnknownResource(err error) bool {
	answer := apierrors.APIStatus(nil)
	if !apierrors.IsNotFound(err) || !errors.As(err, &answer) {
		return false
	}
	d := answer.Status().Details
	if d == nil || d.Name == "" {
		return true
	}
	for _, cause := range d.Causes {
		if cause.Type == metav1.CauseTypeUnexpectedServerResponse {
			return true
		}
	}
	return false
}

// claimOf is the NodeClaim that owns a node.
func claimOf(owners []metav1.OwnerReference) string {
	for _, o := range owners {
		if group, _, _ := strings.Cut(o.APIVersion, "/"); o.Kind == claimKind && group == claimGroup {
			return o.Name
		}
	}
	return ""
}
