// Package inventory reads what the savings estimates are based on: the cluster's objects, EC2's instance types, the
// Auto Scaling groups and the prices. It only gets and lists.
package inventory

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/pager"

	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/savings"
	"github.com/castai/kops-spot/internal/spot"
)

// NodeFacts are what EC2 knows about a node.
type NodeFacts struct {
	Group        string // the kOps instance group; may be empty
	Spot         bool
	ControlPlane bool
}

// objects are the kinds of objects to read.
func objects(into *savings.Cluster, nodes map[string]NodeFacts) []object {
	return []object{
		kind(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, func(n corev1.Node) {
			facts, known := nodes[n.Name]
			if !known {
				n.Labels = nil // it joined after the instances were read: the estimates leave it out
			}
			if n.Labels[spot.KarpenterKey] != "" || n.Labels[spot.LabelAutoscalerID] != "" {
				facts.Group = "" // an autoscaler launched it: kOps' Karpenter sets the tags of an instance group, too
			}
			into.Nodes = append(into.Nodes,
				savings.Node{Node: n, Group: facts.Group, Spot: facts.Spot, ControlPlane: facts.ControlPlane})
		}),
		kind(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, collect(&into.Namespaces)),
		kind(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, collect(&into.Pods)),
		kind(schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumes"}, collect(&into.Volumes)),
		kind(schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}, collect(&into.Claims)),
		kind(appsv1.SchemeGroupVersion.WithResource("daemonsets"), collect(&into.DaemonSets)),
		kind(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"), collect(&into.Budgets)),
		kind(storagev1.SchemeGroupVersion.WithResource("csinodes"), collect(&into.CSINodes)),
	}
}

// object is a kind of objects, and what to do with each of them.
type object struct {
	resource schema.GroupVersionResource
	add      func(*unstructured.Unstructured) error
}

func kind[T any](resource schema.GroupVersionResource, add func(T)) object {
	return object{resource, func(o *unstructured.Unstructured) error {
		o.SetManagedFields(nil) // often half of an object
		var typed T
		err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &typed)
		add(typed)
		return err
	}}
}

func collect[T any](all *[]T) func(T) { return func(one T) { *all = append(*all, one) } }

// list reads all objects of the kind in pages, and returns how many there are.
func (k object) list(ctx context.Context, cluster dynamic.Interface) (n int, err error) {
	client := cluster.Resource(k.resource)
	pages := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) })
	err = pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		n++
		return k.add(o.(*unstructured.Unstructured))
	})
	switch {
	case apierrors.IsForbidden(err): // Read says what to do
		return n, fmt.Errorf("listing %s: %w", k.resource.Resource, err)
	case err != nil:
		return n, fmt.Errorf("listing %s: %w", k.resource.Resource, kube.Advise(err))
	}
	return n, nil
}
