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

// Kops is what kOps has left in a cluster of who made it.
type Kops struct {
	Name  string // empty if it has left nothing, as in a cluster that is not kOps'
	Store string // where its state store is, as bucket or bucket/prefix; empty where it is in no S3 bucket
}

// KopsName is the name that kOps has given the cluster, and from which state store.
func (c *Cluster) KopsName(ctx context.Context) (Kops, error) {
	const doing = "reading the namespace kube-system, in which kOps has left the cluster's name"
	var namespace corev1.Namespace
	err := do(ctx, readLimit, c.client.Get().Resource("namespaces").Name(metav1.NamespaceSystem), &namespace)
	switch {
	case apierrors.IsForbidden(err):
		return Kops{}, fmt.Errorf("%s: log in as somebody who may read it: %w", doing, err)
	case err != nil:
		return Kops{}, translate(err, doing)
	}
	return kopsName(namespace.Annotations)
}

// kopsName finds the cluster's name in the annotations of kube-system. The state store may be in a folder of its bucket,
// so it is the end of the channel's path that tells.
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
	return Kops{}, fmt.Errorf("the addons of this cluster are from more than one kOps cluster: %s: "+
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
