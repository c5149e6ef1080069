package kube

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
)

// VolumeAttachments implements spot.Cluster. The API server cannot select them by node, so this lists all of the cluster.
func (c *Cluster) VolumeAttachments(ctx context.Context, node string) (names []string, err error) {
	for opts := (metav1.ListOptions{Limit: pageSize}); ; {
		var page storagev1.VolumeAttachmentList
		request := c.client.Get().AbsPath("/apis/storage.k8s.io/v1/volumeattachments").VersionedParams(&opts, c.params)
		if err := do(ctx, readLimit, request, &page); err != nil {
			return nil, translate(err, "listing the VolumeAttachments of node "+node)
		}
		for _, a := range page.Items {
			if a.Spec.NodeName == node {
				names = append(names, a.Name)
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return names, nil
		}
	}
}

// DeleteNode implements spot.Cluster.
func (c *Cluster) DeleteNode(ctx context.Context, n spot.Node) error {
	doing := "deleting node " + n.Name
	uid := types.UID(n.UID)
	only := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
	err := do(ctx, writeLimit, c.client.Delete().Resource("nodes").Name(n.Name).Body(only), nil)
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%s: %w: %w", doing, spot.ErrChanged, err)
	}
	return translate(err, doing)
}
