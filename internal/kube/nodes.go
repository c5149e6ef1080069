package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/castai/kops-spot/internal/spot"
)

// pageSize is kubectl's.
const pageSize = 500

// maxConflicts bounds the attempts to patch a node that others change at the same time.
const maxConflicts = 10

// NodeNamed implements spot.Cluster.
func (c *Cluster) NodeNamed(ctx context.Context, name string) (spot.Node, error) {
	var n corev1.Node
	err := do(ctx, readLimit, c.client.Get().Resource("nodes").Name(name), &n)
	return nodeOf(&n), translate(err, "reading node "+name)
}

// FollowNode implements spot.Cluster. Over HTTP/1.1, it returns after watchLimit.
func (c *Cluster) FollowNode(ctx context.Context, n spot.Node, see func(spot.Node)) error {
	opts := metav1.ListOptions{FieldSelector: "metadata.name=" + n.Name, ResourceVersion: n.Version, Watch: true}
	request := c.client.Get().Resource("nodes")
	return c.watch(ctx, request, opts, "watching node "+n.Name, func(e watch.Event) {
		if node, ok := e.Object.(*corev1.Node); ok && e.Type != watch.Deleted {
			see(nodeOf(node))
		}
	})
}

// NodeOf implements spot.Cluster.
func (c *Cluster) NodeOf(ctx context.Context, instanceID string) (spot.Node, error) {
	doing := "searching the nodes for " + instanceID
	var found *spot.Node
	err := c.eachNode(ctx, "", "0", func(n spot.Node) (more bool) {
		if n.IsInstance(instanceID) {
			found = &n
		}
		return found == nil
	})
	switch {
	case err != nil:
		return spot.Node{}, translate(err, doing)
	case found == nil:
		return spot.Node{}, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	}
	return *found, nil
}

// CordonedNodes implements spot.CordonedNodeLister.
func (c *Cluster) CordonedNodes(ctx context.Context) (cordoned []spot.Node, err error) {
	const latest = "" // a rehearsal has to see the others
	err = c.eachNode(ctx, spot.DrainingSelector, latest, func(n spot.Node) (more bool) {
		cordoned = append(cordoned, n)
		return true
	})
	if err != nil {
		return nil, translate(err, "listing the nodes that kops-spot has cordoned")
	}
	return cordoned, nil
}

// eachNode calls see for each node that the selector matches, until it returns false. Version "0" allows the API
// server's cache, so that a list does not read from etcd.
func (c *Cluster) eachNode(ctx context.Context, selector, version string, see func(spot.Node) (more bool)) error {
	for opts := (metav1.ListOptions{LabelSelector: selector, Limit: pageSize, ResourceVersion: version}); ; {
		var page corev1.NodeList
		if err := do(ctx, readLimit, c.client.Get().Resource("nodes").VersionedParams(&opts, c.params), &page); err != nil {
			return err
		}
		for i := range page.Items {
			if !see(nodeOf(&page.Items[i])) {
				return nil
			}
		}
		if opts.Continue, opts.ResourceVersion = page.Continue, ""; opts.Continue == "" {
			return nil
		}
	}
}

// ChangeNode implements spot.Cluster with a merge patch that carries the resourceVersion.
func (c *Cluster) ChangeNode(ctx context.Context, n spot.Node, change func(spot.Node) spot.Node) (spot.Node, error) {
	doing := "changing node " + n.Name
	for range maxConflicts {
		patch, err := patchOf(n, change(n))
		if err != nil {
			return n, fmt.Errorf("%s: %w", doing, err)
		}
		if patch == nil {
			return n, nil
		}
		var after corev1.Node
		request := c.client.Patch(types.MergePatchType).Resource("nodes").Name(n.Name).Param("fieldManager", reporter)
		err = do(ctx, writeLimit, request.Body(patch), &after)
		if err == nil {
			return nodeOf(&after), nil
		}
		if !apierrors.IsConflict(err) {
			return n, translate(err, doing)
		}
		now, err := c.NodeNamed(ctx, n.Name)
		if err != nil {
			return n, err
		}
		if now.UID != n.UID {
			return n, fmt.Errorf("%s: the name now belongs to another node: %w", doing, spot.ErrNotFound)
		}
		n = now
	}
	return n, fmt.Errorf("%s: conflicts in all %d attempts", doing, maxConflicts)
}

// patchOf returns the merge patch from a to b; nil if they are equal.
func patchOf(a, b spot.Node) ([]byte, error) {
	meta := map[string]any{}
	if labels := diff(a.Labels, b.Labels); len(labels) > 0 {
		meta["labels"] = labels
	}
	if annotations := diff(a.Annotations, b.Annotations); len(annotations) > 0 {
		meta["annotations"] = annotations
	}
	spec := map[string]any{}
	if a.Unschedulable != b.Unschedulable {
		spec["unschedulable"] = b.Unschedulable
	}
	if !slices.Equal(a.Taints, b.Taints) {
		spec["taints"] = taintsOf(b.Taints)
	}
	if len(meta) == 0 && len(spec) == 0 {
		return nil, nil
	}
	meta["resourceVersion"] = a.Version
	meta["uid"] = a.UID
	return json.Marshal(map[string]any{"metadata": meta, "spec": spec})
}

// diff returns the merge patch from a to b: null removes a key.
func diff(a, b map[string]string) map[string]any {
	d := map[string]any{}
	for k, v := range b {
		if old, ok := a[k]; !ok || old != v {
			d[k] = v
		}
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			d[k] = nil
		}
	}
	return d
}

func nodeOf(n *corev1.Node) spot.Node {
	out := spot.Node{Name: n.Name, UID: string(n.UID), Version: n.ResourceVersion, ProviderID: n.Spec.ProviderID,
		Labels: maps.Clone(n.Labels), Annotations: maps.Clone(n.Annotations), Unschedulable: n.Spec.Unschedulable,
		CordonedBy: cordonedBy(n), NodeClaim: claimOf(n.OwnerReferences)}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			out.InternalIP = a.Address
			break
		}
	}
	for _, t := range n.Spec.Taints {
		taint := spot.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)}
		if t.TimeAdded != nil {
			taint.TimeAdded = t.TimeAdded.Time
		}
		out.Taints = append(out.Taints, taint)
	}
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			out.NotReady = condition.Status != corev1.ConditionTrue
		}
	}
	for _, v := range n.Status.VolumesAttached {
		out.AttachedVolumes = append(out.AttachedVolumes, string(v.Name))
	}
	return out
}

// cordonedBy returns the field manager that made the node unschedulable; of several, the last one.
func cordonedBy(n *corev1.Node) (by string) {
	if !n.Spec.Unschedulable {
		return ""
	}
	var last time.Time
	for _, entry := range n.ManagedFields {
		var fields struct {
			Spec struct {
				Unschedulable *struct{} `json:"f:unschedulable"`
			} `json:"f:spec"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil || fields.Spec.Unschedulable == nil {
			continue
		}
		var at time.Time
		if entry.Time != nil {
			at = entry.Time.Time
		}
		if by == "" || at.After(last) {
			by, last = entry.Manager, at
		}
	}
	return by
}

func taintsOf(taints []spot.Taint) []corev1.Taint {
	out := make([]corev1.Taint, len(taints))
	for i, t := range taints {
		out[i] = corev1.Taint{Key: t.Key, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)}
		if !t.TimeAdded.IsZero() {
			at := metav1.NewTime(t.TimeAdded)
			out[i].TimeAdded = &at
		}
	}
	return out
}

// FollowVolumes implements spot.Cluster with one list and one watch. The API server cannot select VolumeAttachments by
// node, so this reads all of the cluster, from the API server's cache.
func (c *Cluster) FollowVolumes(ctx context.Context, node string, see func(attached []string)) error {
	const path = "/apis/storage.k8s.io/v1/volumeattachments"
	opts := metav1.ListOptions{ResourceVersion: "0"}
	var list storagev1.VolumeAttachmentList
	if err := do(ctx, readLimit, c.client.Get().AbsPath(path).VersionedParams(&opts, c.params), &list); err != nil {
		return translate(err, "listing the VolumeAttachments of node "+node)
	}
	attached := map[string]bool{}
	for _, a := range list.Items {
		if a.Spec.NodeName == node {
			attached[a.Name] = true
		}
	}
	see(slices.Sorted(maps.Keys(attached)))
	opts.ResourceVersion, opts.Watch = list.ResourceVersion, true
	doing := "watching the VolumeAttachments of node " + node
	return c.watch(ctx, c.client.Get().AbsPath(path), opts, doing, func(e watch.Event) {
		a, ok := e.Object.(*storagev1.VolumeAttachment)
		if !ok || a.Spec.NodeName != node || attached[a.Name] == (e.Type != watch.Deleted) {
			return
		}
		if e.Type == watch.Deleted {
			delete(attached, a.Name)
		} else {
			attached[a.Name] = true
		}
		see(slices.Sorted(maps.Keys(attached)))
	})
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
		return spot.Permanent(fmt.Errorf("%s: the credential is valid but not authorized (403): "+
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
