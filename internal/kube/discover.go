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
	// addonPrefix begins the annotations of kube-system in which kOps keeps which addons it has put into the cluster,
	// from which file of the state store: s3://<bucket>[/<prefix>]/<cluster>/addons/bootstrap-channel.yaml.
	addonPrefix = "addons.k8s.io/"

	// channelFile is the file's name for the addons of kOps' own. Users may add channels of other names and places.
	channelFile = "/addons/bootstrap-channel.yaml"
)

// KopsName is the name that kOps has given the cluster, by what it has left there; empty if it has left nothing, as in a
// cluster that is not kOps'.
func (c *Cluster) KopsName(ctx context.Context) (string, error) {
	const doing = "reading the namespace kube-system, in which kOps has left the cluster's name"
	var namespace corev1.Namespace
	err := do(ctx, readLimit, c.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem), &namespace)
	switch {
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("%s: log in as somebody who may read it: %w", doing, err)
	case err != nil:
		return "", translate(err, doing)
	}
	return kopsName(namespace.Annotations)
}

// kopsName finds the cluster's name in the annotations of kube-system. The state store may be in a folder of its bucket,
// so it is the end of the channel's path that tells.
func kopsName(annotations map[string]string) (string, error) {
	var names []string
	for key, value := range annotations {
		var addon struct{ Channel string }
		if !strings.HasPrefix(key, addonPrefix) || json.Unmarshal([]byte(value), &addon) != nil {
			continue
		}
		store, ours := strings.CutSuffix(addon.Channel, channelFile)
		if name := store[strings.LastIndexByte(store, '/')+1:]; ours && IsKopsName(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	switch len(names) {
	case 0:
		return "", nil
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("the addons of this cluster are from more than one kOps cluster: %s: "+
		"see the annotations of the namespace kube-system", strings.Join(names, ", "))
}

// IsKopsName reports whether kOps could have given the name to a cluster: it is a DNS name with a dot in it.
func IsKopsName(name string) bool {
	return strings.Contains(name, ".") && !strings.ContainsAny(name, "/:@ ")
}

// NodeOfPod is the name of the node that a pod is on; empty if it is on none yet, ErrNotFound if there is no such pod.
func (c *Cluster) NodeOfPod(ctx context.Context, namespace, name string) (string, error) {
	var pod corev1.Pod
	err := do(ctx, readLimit, c.client.Get().Namespace(namespace).Resource("pods").Name(name), &pod)
	if err != nil {
		return "", translate(err, "reading pod "+namespace+"/"+name)
	}
	return pod.Spec.NodeName, nil
}
