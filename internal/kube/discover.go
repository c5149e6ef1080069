package kube

import (
	"context"
	"encoding/json"
	"fmt"
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

// KopsName reads the cluster's name and state store from the annotations of kube-system.
func (c *Cluster) KopsName(ctx context.Context) (Kops, error) {
	const doing = "reading the cluster's name from the namespace kube-system"
	var namespace corev1.Namespace
	err := do(ctx, readLimit, c.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem), &namespace)
	switch {
	case apierrors.IsForbidden(err):
		return Kops{}, fmt.Errorf("%s: use credentials that may read it: %w", doing, err)
	case err != nil:
		return Kops{}, translate(err, doing)
	}
	return kopsName(namespace.Annotations)
}

// kopsName takes the cluster's name from the end of the channel's path: the state store may be in a folder of its
// bucket.
func kopsName(annotations map[string]string) (Kops, error) {
	var names []string
	bucket := ""
	for key, value := range annotations {
		var addon struct{ Channel string }
		if !strings.HasPrefix(key, addonPrefix) || json.Unmarshal([]byte(value), &addon) != nil {
			continue
		}
		store, ours := strings.CutSuffix(addon.Channel, channelFile)
		at := strings.LastIndexByte(store, '/') + 1
		name := store[at:]
		if !ours || !IsKopsName(name) {
			continue
		}
		if path, inS3 := strings.CutPrefix(strings.TrimRight(store[:at], "/"), "s3://"); inS3 {
			bucket = path
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return Kops{}, nil
	case 1:
		return Kops{Name: names[0], Store: bucket}, nil
	}
	return Kops{}, fmt.Errorf("this cluster has addons from several kOps clusters: %s: "+
		"check the annotations of the namespace kube-system", strings.Join(names, ", "))
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
