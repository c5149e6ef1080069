package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// addonPrefix begins kube-system's annotations that record kOps addons and their file in the state store:
	// s3://<bucket>[/<prefix>]/<cluster>/addons/bootstrap-channel.yaml.
	addonPrefix = "addons.k8s.io/"

	// channelFile is the channel of kOps' own addons. Users may add other channels.
	channelFile = "/addons/bootstrap-channel.yaml"
)

// Kops identifies the kOps cluster.
type Kops struct {
	Name  string // empty if kOps did not create the cluster
	Store string // bucket[/prefix] of the state store; empty if it is not in S3
}

// KopsName reads the cluster's name and state store from the annotations of kube-system. If they name several clusters,
// as after a migration, the given one decides. If they cannot be read, so does the given one.
func (c *Cluster) KopsName(ctx context.Context, given string) (Kops, error) {
	const doing = "reading the cluster's name from the namespace kube-system"
	var namespace corev1.Namespace
	err := do(ctx, readLimit, c.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem), &namespace)
	switch {
	case apierrors.IsForbidden(err) && IsKopsName(given):
		return Kops{}, nil
	case apierrors.IsForbidden(err):
		return Kops{}, fmt.Errorf("%s: use credentials that may read it, or set --cluster: %w", doing, err)
	case err != nil:
		return Kops{}, translate(err, doing)
	}
	return kopsName(namespace.Annotations, given)
}

// kopsName takes the cluster's name from the end of the channel's path: the state store may be in a folder of its
// bucket.
func kopsName(annotations map[string]string, given string) (Kops, error) {
	stores := map[string]string{} // by name
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		var addon struct{ Channel string }
		if !strings.HasPrefix(key, addonPrefix) || json.Unmarshal([]byte(annotations[key]), &addon) != nil {
			continue
		}
		store, ours := strings.CutSuffix(addon.Channel, channelFile)
		at := strings.LastIndexByte(store, '/') + 1
		name := store[at:]
		if !ours || !IsKopsName(name) {
			continue
		}
		path, inS3 := strings.CutPrefix(strings.TrimRight(store[:at], "/"), "s3://")
		if !inS3 {
			path = ""
		}
		stores[name] = cmp.Or(path, stores[name])
	}
	names := slices.Sorted(maps.Keys(stores))
	if len(names) == 1 {
		given = names[0] // the caller compares them
	}
	store, known := stores[given]
	switch {
	case len(names) == 0:
		return Kops{}, nil
	case known:
		return Kops{Name: given, Store: store}, nil
	}
	return Kops{}, fmt.Errorf("the annotations of the namespace kube-system name several kOps clusters: %s: "+
		"set --cluster to the one of this kubeconfig context", strings.Join(names, ", "))
}

// IsKopsName reports whether kOps accepts the cluster name: a DNS name with a dot.
func IsKopsName(name string) bool {
	return strings.Contains(name, ".") && !strings.ContainsAny(name, "/:@ ")
}

// NodeOfPod returns the name of a pod's node; empty if it is not scheduled yet.
func (c *Cluster) NodeOfPod(ctx context.Context, namespace, name string) (string, error) {
	var pod corev1.Pod
	err := do(ctx, readLimit, c.client.Get().Namespace(namespace).Resource("pods").Name(name), &pod)
	if err != nil {
		return "", translate(err, "reading pod "+namespace+"/"+name)
	}
	return pod.Spec.NodeName, nil
}
