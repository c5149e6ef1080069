package identitymap

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
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
		said = stringsAt(config, "server", "backendMode")
	}
	if len(said) == 0 {
		said = []string{string(MountedFile)}
	}
	for _, mode := range said {
		a.modes = append(a.modes, backendFor(mode))
	}
	for _, from := range [][]string{flags["cluster-id"], flags["$KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"], stringsAt(config, "clusterID")} {
		if a.clusterID == "" && len(from) > 0 {
			a.clusterID = from[len(from)-1]
		}
	}
	return a
}

// backendFor knows the names of the first versions too.
func backendFor(mode string) Backend {
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
func stringsAt(v any, path ...string) (words []string) {
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

// backend chooses where an identity is mapped: where it can be done live, unless a place that the authenticator asks before
// has decided about the identity already.
func (s state) backend(a authenticator, there bool, id Identity) (b Backend, why string, err error) {
	if !there {
		return NoBackend, "there is no DaemonSet " + authenticatorRef.fullName() + " in this cluster, and without it IAM is not known to it", nil
	}
	var order []string
	for _, mode := range a.modes {
		order = append(order, string(mode))
	}
	in := "the authenticator's backend mode is " + strings.Join(order, ",")
	var unusable []string
	b = NoBackend
	for _, mode := range a.modes {
		if reason := s.unusable(a, mode); reason != "" {
			unusable = append(unusable, reason)
			continue
		}
		caught, err := s.decides(a, mode, id)
		switch {
		case err != nil:
			return "", "", err
		case caught && len(a.modes) > 1:
			return mode, s.reason(mode, in+", of which the first that knows an identity decides, and this one knows it"), nil
		case mode != MountedFile:
			return mode, s.reason(mode, in), nil
		}
		b = mode
	}
	if len(unusable) > 0 {
		in += " (" + strings.Join(unusable, "; ") + ")"
	}
	return b, s.reason(b, in), nil
}

func (s state) reason(b Backend, in string) string {
	switch b {
	case EKSConfigMap, CRD:
		return in + ": it takes this up by itself, within seconds"
	case MountedFile:
		return in + ": it reads this file, and only when it starts"
	}
	return in + ", of which none can be written"
}

// unusable says why a mode is of no use to us; empty if it is of use.
func (s state) unusable(a authenticator, b Backend) string {
	switch b {
	case EKSConfigMap:
	case CRD:
		if !s.hasCRD {
			return "the cluster does not know IAMIdentityMapping: kops update cluster puts it there"
		}
	case MountedFile:
		if !a.mounted {
			return "it is not told to read a file"
		}
	default:
		return "what it does in the mode " + string(b) + " is not known to kops-spot"
	}
	return ""
}

func (s state) decides(a authenticator, b Backend, id Identity) (bool, error) {
	switch b {
	case EKSConfigMap:
		return awsAuthBackend().decides(s.objects[awsAuthRef], id)
	case MountedFile:
		return fileBackend(a.config, "").decides(s.objects[a.config], id)
	}
	return len(s.crdsFor(id.canonicalARN())) > 0, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// crdRef is the object that maps an identity: the one that is there, whoever has made it, or ours.
func crdRef(s state, id Identity) ref {
	if there := s.crdsFor(id.canonicalARN()); len(there) > 0 {
		return refOf(there[0])
	}
	r := crdKind
	arn := id.canonicalARN()
	sum := sha256.Sum256([]byte(strings.ToLower(arn)))
	short := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(arn[strings.LastIndexByte(arn, '/')+1:]), "-"), "-")
	r.name = fmt.Sprintf("cast-%s-%s", short, hex.EncodeToString(sum[:4]))
	return r
}
