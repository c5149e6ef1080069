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

const (
	claimGroup = "karpenter.sh"
	claimKind  = "NodeClaim"
)

// DeleteNodeClaim implements spot.Cluster. Karpenter serves v1 from 1.0 and v1beta1 from 0.32.
func (c *Cluster) DeleteNodeClaim(ctx context.Context, name string) (err error) {
	doing := "deleting NodeClaim " + name
	for _, version := range []string{"v1", "v1beta1"} {
		err = do(ctx, writeLimit, c.client.Delete().AbsPath("/apis", claimGroup, version, "nodeclaims", name), nil)
		if !isUnknownResource(err) {
			break
		}
	}
	if apierrors.IsForbidden(err) && !isWebhook(err) {
		return spot.PossiblyTransient(fmt.Errorf("%s: the credential is valid but not authorized (403): "+
			"apply deploy/rbac-karpenter.yaml: %w", doing, err))
	}
	return translate(err, doing)
}

// isUnknownResource reports whether a 404 means that the server does not know the resource. Its body is then plain text
// instead of a Status.
func isUnknownResource(err error) bool {
	status := apierrors.APIStatus(nil)
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	d := status.Status().Details
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

// claimOf returns the NodeClaim that owns a node.
func claimOf(owners []metav1.OwnerReference) string {
	for _, o := range owners {
		if group, _, _ := strings.Cut(o.APIVersion, "/"); o.Kind == claimKind && group == claimGroup {
			return o.Name
		}
	}
	return ""
}
