package onboard

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/castai/kops-spot/internal/kubeadmin"
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
	config    kubeadmin.Ref // the ConfigMap with its file
	mounted   bool          // it reads that file
}

// authenticatorOf reads how the DaemonSet runs the authenticator; config is what its file says, as far as there is one.
// Its flags win over its environment, and that over its file.
func authenticatorOf(daemonSet kubeadmin.Object, config any) authenticator {
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

// flagsOf are the flags of the DaemonSet's program, with the values of those that may stand several times or hold several;
// and with a $ before them, the variables of its environment.
func flagsOf(daemonSet kubeadmin.Object) map[string][]string {
	short := map[string]string{"c": "config", "i": "cluster-id"}
	flags := map[string][]string{}
	for _, c := range daemonSet.List("spec", "template", "spec", "containers") {
		container := kubeadmin.Object(asMap(c))
		args := slices.Concat(container.List("command"), container.List("args"))
		for i, arg := range args {
			name, value, inline := strings.Cut(fmt.Sprint(arg), "=")
			if !strings.HasPrefix(name, "-") {
				continue
			}
			if !inline && i+1 < len(args) {
				value = fmt.Sprint(args[i+1])
			}
			name = strings.TrimLeft(name, "-")
			if long, ok := short[name]; ok {
				name = long
			}
			flags[name] = append(flags[name], strings.Split(value, ",")...)
		}
		for _, e := range container.List("env") {
			variable := kubeadmin.Object(asMap(e))
			if value := variable.Text("value"); value != "" {
				flags["$"+variable.Text("name")] = []string{value}
			}
		}
	}
	return flags
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
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

// firstWithAWSAuth is the first kOps whose authenticator may read aws-auth.
const firstWithAWSAuth = 19 // 1.19

// readsAWSAuth reports whether an authenticator that kOps has put there can read aws-auth. Of an unknown version it is
// believed: to have chosen that mode takes a kOps that has it.
func readsAWSAuth(kops string) bool {
	minor, ok := minorOf(kops)
	return !ok || minor >= firstWithAWSAuth
}

// minorOf is the second number of v1.19.3.
func minorOf(version string) (int, bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 || parts[0] != "1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil
}
