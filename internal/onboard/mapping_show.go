package onboard

import (
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
		if c.Verb, c.Diff = change.Update, objectDiff(now, next); len(c.Diff) > 0 {
			c.Why += step.update
		}
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
