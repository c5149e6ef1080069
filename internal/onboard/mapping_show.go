package onboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// add puts a step into the plan, and what it would change by what was read.
func (p *MappingPlan) add(s MappingState, step mappingStep) error {
	now := s.objectOf(step.ref)
	next, remarks, err := step.edit.on(now)
	if err != nil {
		return err
	}
	c := change.Change{Kind: step.ref.Kind, Name: step.ref.FullName(), Why: step.why}
	switch {
	case now == nil && next == nil:
		return nil
	case now == nil:
		c.Verb = change.Create
	case next == nil:
		c.Verb = change.Delete
	case !sameObject(now, next):
		c.Verb, c.Diff = change.Update, objectDiff(now, next)
	case step.remove && (step.keep == "" || len(remarks) > 0):
		p.Changes = append(p.Changes, remarks...)
		return nil
	case step.remove:
		c.Verb, c.Why = change.Leave, step.keep
	default:
		c.Verb = change.Keep
		if step.keep != "" {
			c.Why = step.keep
		}
	}
	if c.Commands, err = byKubectl(step, now, next); err != nil {
		return err
	}
	p.Changes = append(append(p.Changes, c), remarks...)
	p.steps = append(p.steps, step)
	return nil
}

// objectDiff shows what changes in an object, but for our note: of a text, the lines.
func objectDiff(now, next kubeadmin.Object) (lines []string) {
	was, is := map[string]string{}, map[string]string{}
	leaves(now, "", was)
	leaves(next, "", is)
	both := maps.Clone(was)
	maps.Copy(both, is)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		before, there := was[path]
		after, stays := is[path]
		if there == stays && before == after || path == "metadata.annotations."+annotationMapped {
			continue
		}
		lines = append(lines, "  "+path+":")
		shown := diffDocuments(before, after)
		if before == "" {
			shown = shown[1:] // of no line, it says that an empty one goes
		}
		lines = append(lines, shown...)
	}
	return lines
}

// leaves are the values of an object that are no maps, as text, by their paths.
func leaves(v map[string]any, path string, into map[string]string) {
	for key, value := range v {
		at := strings.TrimPrefix(path+"."+key, ".")
		switch value := value.(type) {
		case map[string]any:
			leaves(value, at, into)
		case string:
			into[at] = value
		default:
			text, err := yaml.Marshal(value)
			if err != nil {
				text = []byte(fmt.Sprint(value))
			}
			into[at] = string(text)
		}
	}
}

// byKubectl does a step by hand.
func byKubectl(step mappingStep, now, next kubeadmin.Object) ([]string, error) {
	var all []string
	kubectl := "kubectl"
	if step.ref.Namespace != "" {
		kubectl += " --namespace=" + step.ref.Namespace
	}
	kind := step.ref.Resource
	if group, _, grouped := strings.Cut(step.ref.APIVersion, "/"); grouped {
		kind += "." + group
	}
	switch {
	case next == nil:
		return []string{kubectl + " delete " + kind + " " + step.ref.Name}, nil
	case now == nil || rebound(now, next):
		if now != nil {
			all = append(all, kubectl+" delete "+kind+" "+step.ref.Name)
		}
		made, err := asManifest(next)
		if err != nil {
			return nil, err
		}
		all = append(all, "kubectl create -f - <<'EOF'\n"+made+"EOF")
	case !sameObject(now, next):
		patch := mergePatch(now, next)
		if version := now.Text("metadata", "resourceVersion"); version != "" && !step.rollout {
			kubeadmin.Object(patch).Set(version, "metadata", "resourceVersion") // so that it fails if somebody was faster
		}
		said, err := json.Marshal(patch)
		if err != nil {
			return nil, err
		}
		all = append(all, kubectl+" patch "+kind+" "+step.ref.Name+" --type=merge --patch="+shellWord(string(said)))
		if step.rollout {
			all = append(all, kubectl+" rollout status "+kind+" "+step.ref.Name)
		}
	}
	return all, nil
}

// asManifest is an object as kubectl takes it, without what only the API server writes.
func asManifest(o kubeadmin.Object) (string, error) {
	clean := o.Clone()
	for _, own := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
		clean.Unset("metadata", own)
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err := encoder.Encode(map[string]any(clean))
	return out.String(), err
}

// mergePatch is what changes, in the form of RFC 7396.
func mergePatch(now, next map[string]any) map[string]any {
	patch := map[string]any{}
	for key, value := range next {
		was, there := now[key]
		before, wasMap := was.(map[string]any)
		after, isMap := value.(map[string]any)
		switch {
		case there && wasMap && isMap:
			if below := mergePatch(before, after); len(below) > 0 {
				patch[key] = below
			}
		case !there || !sameObject(map[string]any{"": was}, map[string]any{"": value}):
			patch[key] = value
		}
	}
	for key := range now {
		if _, stays := next[key]; !stays {
			patch[key] = nil
		}
	}
	return patch
}

// shellWord is a word for a shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
