package identitymap

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/castai/kops-spot/internal/change"
)

// tools apply objects from a source, again and again. One that uses another comes before it.
var tools = []struct {
	name     string
	managers []string // how its field managers begin, in lower case
	metadata string   // how its labels and annotations begin
}{
	{"Argo CD", []string{"argocd"}, "argocd.argoproj.io/"},
	{"Flux", []string{"kustomize-controller", "helm-controller", "flux"}, "kustomize.toolkit.fluxcd.io/"},
	{"Flux", nil, "helm.toolkit.fluxcd.io/"},
	{"Terraform", []string{"terraform", "hashicorp", "opentofu"}, "app.terraform.io/"},
	{"Pulumi", []string{"pulumi"}, "pulumi.com/"},
	{"Helm", []string{"helm"}, "meta.helm.sh/"},
	{"kOps", []string{"kops"}, "addon.kops.k8s.io/"},
	{"kubectl apply", []string{"kubectl-client-side-apply"}, lastApplied},
}

// lastApplied is an annotation with the source that kubectl apply has read last.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// applier returns what applies an object from a source, if that is what a field manager does; empty if not.
func applier(m metav1.ManagedFieldsEntry) string {
	if m.Manager == fieldManager || m.Subresource != "" {
		return ""
	}
	for _, tool := range tools {
		if slices.ContainsFunc(tool.managers, func(prefix string) bool {
			return strings.HasPrefix(strings.ToLower(m.Manager), prefix)
		}) {
			return tool.name
		}
	}
	switch {
	case m.Operation != metav1.ManagedFieldsOperationApply:
		return "" // somebody who has edited it once
	case m.Manager == "kubectl":
		return "kubectl apply"
	}
	return "the field manager " + m.Manager
}

// managerOf returns what applies an object from a source, other than kops-spot; empty if there is no sign of any.
func managerOf(o object) string {
	if o == nil {
		return ""
	}
	var found []string
	for _, m := range o.GetManagedFields() {
		found = append(found, applier(m))
	}
	for _, tool := range tools {
		keys := slices.Concat(slices.Collect(maps.Keys(o.GetLabels())), slices.Collect(maps.Keys(o.GetAnnotations())))
		marked := slices.ContainsFunc(keys, func(key string) bool { return strings.HasPrefix(key, tool.metadata) })
		if marked || slices.Contains(found, tool.name) {
			return tool.name
		}
	}
	label := o.GetLabels()[labelManagedBy]
	switch {
	case label == managedBy:
		label = ""
	case strings.EqualFold(label, "kops"):
		label = "kOps"
	}
	return cmp.Or(append([]string{label}, found...)...)
}

// inSource reports whether the source of an object's manager has an ARN under a key of its data, as far as the object
// shows.
func inSource(o object, key, arn string) bool {
	contains := func(text string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(arn)) }
	if source := o.GetAnnotations()[lastApplied]; source != "" {
		return contains(source)
	}
	applied := func(m metav1.ManagedFieldsEntry) bool {
		return applier(m) != "" && strings.Contains(m.FieldsV1.GetRawString(), `"f:`+key+`"`)
	}
	return contains(stringAt(o, "data", key)) && slices.ContainsFunc(o.GetManagedFields(), applied)
}

// addSources says what to change in the source of a ConfigMap that somebody else applies: its next apply may undo what
// kops-spot writes.
func (p *Plan) addSources(l configMapBackend, ids []Identity, sign, advice string) {
	now := p.state.objects[l.ref]
	manager := managerOf(now)
	for _, id := range ids {
		at := l.location(id.Kind)
		if manager == "" || inSource(now, at.key, id.canonicalARN()) == (sign == "+ ") {
			continue
		}
		text, _ := yaml.Marshal([]*yaml.Node{entryNode(at.arnKey, id)}) // strings never fail
		row := change.Change{Verb: change.Review, Kind: l.ref.Kind, Name: l.ref.fullName(), Why: fmt.Sprintf(
			"%s applies it and may undo the change: %s %s in its source", manager, advice, at.keys())}
		for line := range strings.Lines(string(text)) {
			row.Diff = append(row.Diff, sign+strings.TrimRight(line, "\n"))
		}
		p.addRemarks(row)
	}
}

// Undo says who may undo a change of an object, for the end of a reason; empty if nobody.
func Undo(o *unstructured.Unstructured) string {
	manager := managerOf(o)
	if manager == "" {
		return ""
	}
	return "; " + manager + " applies it and may undo the change: change its source too"
}
