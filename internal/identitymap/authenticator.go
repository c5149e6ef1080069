package identitymap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/castai/kops-spot/internal/change"
)

// Backend is where an aws-iam-authenticator looks up identities.
type Backend = string

const (
	EKSConfigMap Backend = "EKSConfigMap" // the ConfigMap aws-auth, watched
	CRD          Backend = "CRD"          // IAMIdentityMapping objects, watched
	MountedFile  Backend = "MountedFile"  // the file in its own ConfigMap, read at startup
	NoBackend    Backend = "none"         // no authenticator, or only unknown backends

	dynamicFile Backend = "DynamicFile" // not supported by kops-spot
)

// pickUp says of each backend when the authenticator picks up a change.
var pickUp = map[Backend]string{
	EKSConfigMap: ": it picks up the change within seconds",
	CRD:          ": it picks up the change within seconds",
	MountedFile:  ": it reads this file only when it starts",
}

// authenticator is how a cluster runs its aws-iam-authenticator.
type authenticator struct {
	settings
	flags   map[string][]string // and $VARIABLES
	config  ref                 // the ConfigMap with its file
	mounted bool                // it reads that file
}

// settings are what an authenticator reads from its flags, its environment and its file, in this order.
type settings struct {
	modes     []Backend // in order: the first that knows an identity decides
	clusterID string
	partition string
}

// authenticator reads how the DaemonSet runs the authenticator; false if there is none.
func (s state) authenticator() (a authenticator, exists bool, err error) {
	daemonSet := s.objects[authenticatorRef]
	if daemonSet == nil {
		return a, false, nil
	}
	a = authenticator{flags: flagsOf(daemonSet), config: configRef(daemonSet)}
	a.mounted = len(a.flags["config"]) > 0
	file := map[string]*yaml.Node{}
	if a.mounted { // kOps mounts it only with the backend MountedFile
		doc, _, notYAML := readYAML(stringAt(s.objects[a.config], "data", fileKey))
		if notYAML == nil {
			file, notYAML = fieldsOf(doc.Content[0])
		}
		if notYAML != nil && len(a.flags["backend-mode"]) == 0 {
			return a, false, fmt.Errorf("reading %s of %s: nothing was changed: %w", fileKey, a.config, notYAML)
		}
	}
	a.settings = readSettings(a.flags, file)
	return a, true, nil
}

func readSettings(flags map[string][]string, file map[string]*yaml.Node) (s settings) {
	server, _ := fieldsOf(file["server"])
	s.modes = slices.Clone(flags["backend-mode"])
	if len(s.modes) == 0 {
		for _, n := range itemsOf(server["backendmode"]) {
			mode, _ := scalarOf(n)
			s.modes = append(s.modes, strings.Fields(mode)...)
		}
	}
	if len(s.modes) == 0 {
		s.modes = []Backend{MountedFile}
	}
	for i, mode := range s.modes {
		s.modes[i] = cmp.Or(map[string]Backend{"ConfigMap": EKSConfigMap, "File": MountedFile}[mode], mode) // old names
	}
	last := func(words []string) string { return strings.Join(words[max(0, len(words)-1):], "") }
	ofFile := func(n *yaml.Node) string { text, _ := scalarOf(n); return text }
	s.clusterID = cmp.Or(last(flags["cluster-id"]), last(flags["$KUBERNETES_AWS_AUTHENTICATOR_CLUSTER_ID"]),
		ofFile(file["clusterid"]))
	s.partition = cmp.Or(last(flags["partition"]), ofFile(server["partition"]), "aws")
	return s
}

// startError returns an error if the authenticator would not start with its file.
func (a authenticator) startError(file object) error {
	if err := CheckFile(stringAt(file, "data", fileKey), a.flags); err != nil {
		return fmt.Errorf("%s of %s: the authenticator would not start with this file, and then nobody could authenticate "+
			"with IAM: %w", fileKey, a.config, err)
	}
	return nil
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

// backend chooses the backend for an identity, and says why: a watched one if possible, unless an earlier one already
// decides about the identity.
func (s state) backend(a authenticator, exists bool, id Identity) (b Backend, why string) {
	if !exists {
		why = "the cluster has no DaemonSet " + authenticatorRef.fullName() + ", so it does not know IAM identities"
		return NoBackend, why
	}
	in := "the authenticator's backend mode is " + strings.Join(a.modes, ",")
	var unusable []string
	b = NoBackend
	for _, mode := range a.modes {
		if reason := s.unusable(a, mode, id); reason != "" {
			unusable = append(unusable, reason)
			continue
		}
		switch {
		case len(a.modes) > 1 && s.decides(a, mode, id):
			return mode, in + ", and this one already has the identity" + pickUp[mode]
		case mode != MountedFile:
			return mode, in + pickUp[mode]
		}
		b = mode
	}
	if len(unusable) > 0 {
		in += " (" + strings.Join(unusable, "; ") + ")"
	}
	return b, in + cmp.Or(pickUp[b], ", none of which kops-spot can write to")
}

// unusable says why an identity cannot be mapped in a backend; empty if it can.
func (s state) unusable(a authenticator, b Backend, id Identity) string {
	switch {
	case b == CRD && !s.hasCRD:
		return "the CRD IAMIdentityMapping is missing: kops update cluster installs it"
	case b == MountedFile && !a.mounted:
		return "it has no --config flag"
	case pickUp[b] == "":
		return "kops-spot does not support the backend " + b
	case b != CRD:
		l := s.configMap(a, b)
		if next, _, err := l.mutate(s.objects[l.ref], []Identity{id}, nil); err == nil {
			return immutable(s.objects[l.ref], next)
		}
	}
	return ""
}

// configMap returns the backend of a ConfigMap.
func (s state) configMap(a authenticator, b Backend) configMapBackend {
	if b == MountedFile {
		return fileBackend(a.config, "")
	}
	return awsAuthBackend()
}

// decides reports whether a backend already has an identity.
func (s state) decides(a authenticator, b Backend, id Identity) bool {
	if b == CRD {
		return len(s.crdsFor(id.canonicalARN())) > 0
	}
	l := s.configMap(a, b)
	return l.decides(s.objects[l.ref], id)
}

// addProblems adds what is wrong in what the authenticator reads, and what that leads to. Edits are stricter.
func (p *Plan) addProblems(a authenticator) {
	warn := func(r ref, err error, effect string) {
		p.addRemarks(change.Change{Verb: change.Review, Kind: r.Kind, Name: r.fullName(), Why: err.Error() + effect})
	}
	if file := p.state.objects[a.config]; a.mounted && file != nil {
		if err := a.startError(file); err != nil {
			warn(a.config, err, ": correct the file before a pod restarts")
		}
	}
	l := awsAuthBackend()
	for _, list := range []string{"mapRoles", "mapUsers", "mapAccounts"} {
		_, err := l.readList(p.state.objects[l.ref], l.listLocation(list, ""))
		if err != nil && slices.Contains(a.modes, EKSConfigMap) {
			warn(l.ref, err, ": the authenticator ignores this list: correct it")
		}
	}
}

// immutable says why an edit is refused; empty if it is not.
func immutable(now, next object) string {
	if now == nil || next == nil || now.Object["immutable"] != true || len(objectDiff(now, next)) == 0 {
		return ""
	}
	return fmt.Sprintf("%s has immutable: true, so its data cannot be changed: remove that line from a copy and recreate "+
		"it with kubectl replace --force, authenticated without IAM (kops export kubeconfig --admin): meanwhile, nobody "+
		"in it can authenticate", refOf(now))
}
