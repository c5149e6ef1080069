package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// defaultGrace is the API server's default.
	defaultGrace = corev1.DefaultTerminationGracePeriodSeconds * time.Second

	// watchLimit ends a watch over HTTP/1.1.
	watchLimit = 20 * time.Second
)

// ofNode selects a node's pods. Version "0" allows the watch cache, which has an index of spec.nodeName. The watch
// starts at the list's version, so it misses nothing.
func ofNode(node string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "spec.nodeName=" + node, ResourceVersion: "0"}
}

// FollowPods implements spot.Cluster with one list and one watch. Over HTTP/1.1, it returns after watchLimit.
func (c *Cluster) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	opts := ofNode(node)
	var list corev1.PodList
	err := do(ctx, readLimit, c.client.Get().Resource("pods").VersionedParams(&opts, c.params), &list)
	if err != nil {
		return translate(err, "listing the pods of node "+node)
	}
	pods := make([]spot.Pod, len(list.Items))
	for i := range list.Items {
		pods[i] = podOf(&list.Items[i])
	}
	see(spot.PodChange{All: true, Pods: pods})
	opts.ResourceVersion, opts.Watch = list.ResourceVersion, true
	return c.watch(ctx, c.client.Get().Resource("pods"), opts, "watching the pods of node "+node, func(e watch.Event) {
		if pod, ok := e.Object.(*corev1.Pod); ok {
			see(spot.PodChange{Gone: e.Type == watch.Deleted, Pods: []spot.Pod{podOf(pod)}})
		}
	})
}

// watch calls see with each event until the first error event: then the version is too old, and the caller starts
// again.
func (c *Cluster) watch(ctx context.Context, request *rest.Request, opts metav1.ListOptions, doing string,
	see func(watch.Event)) error {
	if c.http1.Load() { // no pings detect a dead connection
		seconds := int64(watchLimit / time.Second)
		opts.TimeoutSeconds = &seconds
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, watchLimit+readLimit)
		defer cancel()
	}
	w, err := request.VersionedParams(&opts, c.params).MaxRetries(0).Watch(ctx)
	if err != nil {
		return translate(err, doing)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return nil
		}
		see(e)
	}
	return nil
}

// ReadPod implements spot.Cluster with a list, which needs no further permission.
func (c *Cluster) ReadPod(ctx context.Context, p spot.Pod) (spot.Pod, error) {
	doing := "reading pod " + p.ID()
	opts := metav1.ListOptions{FieldSelector: "metadata.name=" + p.Name}
	var list corev1.PodList
	request := c.client.Get().Namespace(p.Namespace).Resource("pods").VersionedParams(&opts, c.params)
	if err := do(ctx, readLimit, request, &list); err != nil {
		return p, translate(err, doing)
	}
	for i := range list.Items {
		if string(list.Items[i].UID) == p.UID {
			return podOf(&list.Items[i]), nil
		}
	}
	return p, fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
}

// Evict implements spot.Cluster. Kubernetes has had policy/v1 since 1.22.
func (c *Cluster) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: deleteOptions(p, grace, exact),
	}
	request := c.client.Post().Namespace(p.Namespace).Resource("pods").Name(p.Name).SubResource("eviction")
	return refusal(do(ctx, writeLimit, request.Body(eviction), nil), "evicting "+p.ID())
}

// Disrupt implements spot.Cluster. The UID in the patch is a precondition.
func (c *Cluster) Disrupt(ctx context.Context, p spot.Pod) (spot.Pod, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.UID}, "status": map[string]any{
		"conditions": []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: spot.DisruptionReason, Message: "the pod's instance is interrupted", LastTransitionTime: metav1.Now()}}}})
	if err != nil {
		return p, err
	}
	var after corev1.Pod
	request := c.client.Patch(types.StrategicMergePatchType).Namespace(p.Namespace).Resource("pods").Name(p.Name)
	err = do(ctx, writeLimit, request.SubResource("status").Param("fieldManager", reporter).Body(patch), &after)
	doing := "setting the condition DisruptionTarget of pod " + p.ID()
	switch {
	case apierrors.IsInvalid(err): // another UID
		return p, fmt.Errorf("%s: %w: %w", doing, spot.ErrChanged, err)
	case err != nil:
		return p, refusal(err, doing)
	}
	return podOf(&after), nil
}

// Delete implements spot.Cluster. With a grace period below 1 s, the API server deletes the pod without waiting for the
// kubelet.
func (c *Cluster) Delete(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	request := c.client.Delete().Namespace(p.Namespace).Resource("pods").Name(p.Name)
	return refusal(do(ctx, writeLimit, request.Body(deleteOptions(p, grace, exact)), nil), "deleting "+p.ID())
}

func deleteOptions(p spot.Pod, grace time.Duration, exact bool) *metav1.DeleteOptions {
	seconds := int64(grace / time.Second)
	uid := types.UID(p.UID)
	pre := &metav1.Preconditions{UID: &uid}
	if exact {
		pre.ResourceVersion = &p.Version
	}
	return &metav1.DeleteOptions{GracePeriodSeconds: &seconds, Preconditions: pre}
}

func podOf(p *corev1.Pod) spot.Pod {
	out := spot.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Version: p.ResourceVersion, GracePeriod: defaultGrace,
		Created:         p.CreationTimestamp.Time,
		Finished:        p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Critical:        p.Spec.Priority != nil && *p.Spec.Priority >= spot.CriticalPriority,
		ToleratesCordon: toleratesCordon(p.Spec.Tolerations),
		Finalizers:      slices.Clone(p.Finalizers), DisruptedBy: disruptedBy(p.Status.Conditions), Annotations: ours(p.Annotations)}
	if s := p.Spec.TerminationGracePeriodSeconds; s != nil {
		out.GracePeriod = time.Duration(*s) * time.Second
	}
	if p.DeletionTimestamp != nil {
		out.Terminating, out.DeletionTimestamp = true, p.DeletionTimestamp.Time
	}
	_, out.Mirror = p.Annotations[corev1.MirrorPodAnnotationKey]
	if o := metav1.GetControllerOfNoCopy(p); o != nil {
		out.Owner = spot.Owner{Kind: o.Kind, Name: o.Name, UID: string(o.UID)}
	}
	for _, v := range p.Spec.Volumes {
		out.Volumes = out.Volumes || v.PersistentVolumeClaim != nil || v.Ephemeral != nil
		out.EmptyDir = out.EmptyDir || v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumMemory
	}
	return out
}

// disruptedBy returns the reason of the condition DisruptionTarget, which the eviction API, the taint eviction
// controller, the pod garbage collector, the scheduler and the kubelet set. A plain delete sets none.
func disruptedBy(cs []corev1.PodCondition) string {
	for _, c := range cs {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return c.Reason
		}
	}
	return ""
}

// ours returns the annotations of kops-spot.
func ours(annotations map[string]string) map[string]string {
	var found map[string]string
	for k, v := range annotations {
		if strings.HasPrefix(k, spot.AnnotationPrefix) {
			if found == nil {
				found = map[string]string{}
			}
			found[k] = v
		}
	}
	return found
}

// toleratesCordon reports whether the scheduler could put a pod with these tolerations on a cordoned node.
func toleratesCordon(ts []corev1.Toleration) bool {
	for _, taint := range spot.CordonTaints() {
		t := corev1.Taint{Key: taint.Key, Value: taint.Value, Effect: corev1.TaintEffect(taint.Effect)}
		tolerated := false
		for i := range ts {
			tolerated = tolerated || ts[i].ToleratesTaint(klog.Background(), &t, false)
		}
		if !tolerated {
			return false
		}
	}
	return true
}
