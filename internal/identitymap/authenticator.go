package identitymap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Backend is where an aws-iam-authenticator looks up identities.
type Backend = string

const (
	EKSConfigMap Backend = "EKSConfigMap" // the ConfigMap aws-auth, watched
	CRD          Backend = "CRD"          // IAMIdentityMapping objects, watched
	MountedFile  Backend = "MountedFile"  // the file in its own ConfigMap, read at startup
	NoBackend    Backend = "none"         // no authenticator, or only unknown backends
)

// pickUp says of each backend when the authenticator picks up a change.
var pickUp = map[Backend]string{
	EKSConfigMap: ": it picks up the change within seconds",
	CRD:          ": it picks up the change within seconds",
	MountedFile:  ": it reads this file only when it starts",
}

// authenticator is the configuration of a cluster's aws-iam-authenticator.
type authenticator struct {
	modes     []Backend // in order: the first that knows an identity decides
	clusterID string
	config    ref  // the ConfigMap with its file
	mounted   bool // it reads that file
}

// authenticator reads how the DaemonSet runs the authenticator; false if there is none. Flags take precedence over the
// environment, and that over the file.
func (s state) authenticator() (a authenticator, exists bool, err error) {
	daemonSet := s.objects[authenticatorRef]
	if daemonSet == nil {
		return a, false, nil
	}
	flags, config := flagsOf(daemonSet), any(nil)
	a = authenticator{config: configRef(daemonSet), mounted: len(flags["config"]) > 0}
	if a.mounted { // kOps mounts it only with the backend MountedFile
		if _, config, err = readYAML(stringAt(s.objects[a.config], "data", fileKey)); err != nil {
			return a, false, fmt.Errorf("reading %s of %s: nothing was changed: %w", fileKey, a.config, err)
		}
	}
	a.modes = flags["backend-mode"]
	if len(a.modes) == 0 {
		a.modes = stringsAt(config, "server", "backendMode")
	}
	if len(a.modes) == 0 {
		a.modes = []Backend{MountedFile}
	}
	for i, mode := range a.modes {
		a.modes[i] = cmp.Or(map[string]Backend{"ConfigMap": EKSConfigMap, "File": MountedFile}[mode], mode) // old names
	}
	last := func(words []string) string { return strings.Join(words[max(0, len(words)-1):], "") }
	a.clusterID = cmp.Or(last(flags["cluster-id"]), last(flags["$KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"]),
		last(stringsAt(config, "clusterID")))
	return a, true, nil
}

// asDaemonSet converts an object that the API server has validated.
func asDaemonSet(o object) (ds appsv1.DaemonSet) {
	if o != nil {
		_ = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &ds)
	}
	return ds
}

// flagsOf returns the values of all flags of a DaemonSet's containers, and of its environment variables as $NAME.
func flagsOf(daemonSet object) map[string][]string {
	short := map[string]string{"c": "config", "i": "cluster-id"}
	flags := map[string][]string{}
	for _, container := range asDaemonSet(daemonSet).Spec.Template.Spec.Containers {
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

// stringsAt returns the string or strings at a path. Like the authenticator, it ignores the case of keys.
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

// backend chooses the backend for an identity, and says why: a watched one if possible, unless an earlier one already
// decides about the identity.
func (s state) backend(a authenticator, exists bool, id Identity) (b Backend, why string, err error) {
	if !exists {
		why = "the cluster has no DaemonSet " + authenticatorRef.fullName() + ", so it does not know IAM identities"
		return NoBackend, why, nil
	}
	in := "the authenticator's backend mode is " + strings.Join(a.modes, ",")
	var unusable []string
	b = NoBackend
	for _, mode := range a.modes {
		if reason := s.unusable(a, mode); reason != "" {
			unusable = append(unusable, reason)
			continue
		}
		decides, err := s.decides(a, mode, id)
		switch {
		case err != nil:
			return "", "", err
		case decides && len(a.modes) > 1:
			return mode, in + ", and this one already has the identity" + pickUp[mode], nil
		case mode != MountedFile:
			return mode, in + pickUp[mode], nil
		}
		b = mode
	}
	if len(unusable) > 0 {
		in += " (" + strings.Join(unusable, "; ") + ")"
	}
	return b, in + cmp.Or(pickUp[b], ", none of which kops-spot can write to"), nil
}

// unusable says why an identity cannot be mapped in a backend; empty if it can.
func (s state) unusable(a authenticator, b Backend) string {
	switch {
	case b == CRD && !s.hasCRD:
		return "the CRD IAMIdentityMapping is missing: kops update cluster installs it"
	case b == MountedFile && !a.mounted:
		return "it has no --config flag"
	case pickUp[b] == "":
		return "kops-spot does not support the backend " + b
	}
	return ""
}

// decides reports whether a backend already has an identity.
func (s state) decides(a authenticator, b Backend, id Identity) (bool, error) {
	switch b {
	case EKSConfigMap:
		return awsAuthBackend().decides(s.objects[awsAuthRef], id)
	case MountedFile:
		return fileBackend(a.config, "").decides(s.objects[a.config], id)
	}
	return len(s.crdsFor(id.canonicalARN())) > 0, nil
}
