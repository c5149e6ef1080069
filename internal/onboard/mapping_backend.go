package onboard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Backend is where an aws-iam-authenticator takes from who is who.
type Backend string

const (
	EKSConfigMap Backend = "EKSConfigMap" // the ConfigMap aws-auth, watched
	CRD          Backend = "CRD"          // objects of kind IAMIdentityMapping, watched
	MountedFile  Backend = "MountedFile"  // the file in its own ConfigMap, read when it starts
	NoBackend    Backend = "none"         // no authenticator, or none that we can write for
)

// authenticator is the aws-iam-authenticator of a cluster, as it is run.
type authenticator struct {
	modes     []Backend // in the order in which it asks them: the first that knows an identity decides
	clusterID string
	config    ref  // the ConfigMap with its file
	mounted   bool // it reads that file
}

// authenticatorOf reads how the DaemonSet runs the authenticator; config is what its file says, as far as there is one.
// Its flags win over its environment, and that over its file.
func authenticatorOf(daemonSet object, config any) authenticator {
	flags := flagsOf(daemonSet)
	a := authenticator{config: configRef(daemonSet), mounted: len(flags["config"]) > 0}
	said := flags["backend-mode"]
	if len(said) == 0 && a.mounted {
		said = words(config, "server", "backendMode")
	}
	if len(said) == 0 {
		said = []string{string(MountedFile)}
	}
	for _, mode := range said {
		a.modes = append(a.modes, backendNamed(mode))
	}
	for _, from := range [][]string{flags["cluster-id"], flags["$KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"], words(config, "clusterID")} {
		if a.clusterID == "" && len(from) > 0 {
			a.clusterID = from[len(from)-1]
		}
	}
	return a
}

// backendNamed knows the names of the first versions too.
func backendNamed(mode string) Backend {
	switch mode {
	case "ConfigMap":
		return EKSConfigMap
	case "File":
		return MountedFile
	}
	return Backend(mode)
}

// podSpec is of the pods of a workload. What the API server has accepted can be read as what it is.
func podSpec(workload object) (spec corev1.PodSpec) {
	if workload == nil {
		return spec
	}
	fields, _, _ := unstructured.NestedMap(workload.Object, "spec", "template", "spec")
	_ = runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &spec)
	return spec
}

// flagsOf are the flags of the DaemonSet's program, with the values of those that may stand several times or hold several;
// and with a $ before them, the variables of its environment.
func flagsOf(daemonSet object) map[string][]string {
	short := map[string]string{"c": "config", "i": "cluster-id"}
	flags := map[string][]string{}
	for _, container := range podSpec(daemonSet).Containers {
		args := slices.Concat(container.Command, container.Args)
		for i, arg := range args {
			name, value, inline := strings.Cut(arg, "=")
			if !strings.HasPrefix(name, "-") {
				continue
			}
			if !inline && i+1 < len(args) {
				value = args[i+1]
			}
			name = strings.TrimLeft(name, "-")
			name = cmp.Or(short[name], name)
			flags[name] = append(flags[name], strings.Split(value, ",")...)
		}
		for _, e := range container.Env {
			if e.Value != "" {
				flags["$"+e.Name] = []string{e.Value}
			}
		}
	}
	return flags
}

// words are the strings at a path of keys, where there is one string or a list of them.
func words(v any, path ...string) (words []string) {
	for _, step := range path {
		m, _ := v.(map[string]any)
		v = nil
		for key, value := range m {
			if strings.EqualFold(key, step) {
				v = value
			}
		}
	}
	switch v := v.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		for _, word := range v {
			words = append(words, fmt.Sprint(word))
		}
	}
	return words
}
