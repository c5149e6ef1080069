package onboard

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// edit makes of an object what it is to be; nil if it is to go, and of nil if it is not there. It is pure and leaves now
// as it is, so that what is written can be made anew of what is there then: somebody may have changed it since the plan
// was shown. remarks are what else is worth telling.
type edit func(now object) (next object, remarks change.Plan, err error)

// mappingStep is one row of a plan, and its single write: of an edit, or of a manifest.
type mappingStep struct {
	change.Change
	ref      ref
	edit     edit
	manifest object

	// then is what has to come of the write before the step is done.
	then func(ctx context.Context, cluster dynamic.Interface) error

	update string // what else is to be known, if more changes than our note
	keep   string // why, if there is nothing to do
	remove bool   // it takes away: where nothing is ours, there is nothing to tell
}

func (s mappingStep) write(ctx context.Context, cluster dynamic.Interface) (err error) {
	if s.manifest != nil {
		_, err = applyManifest(ctx, cluster, s.manifest)
	} else {
		err = s.ref.change(ctx, cluster, s.edit)
	}
	if err != nil || s.then == nil {
		return err
	}
	return s.then(ctx, cluster)
}

// put puts a row into the plan.
func (p *MappingPlan) put(verb change.Verb, s mappingStep, diff ...string) {
	s.Verb, s.Kind, s.Name, s.Diff = verb, s.ref.Kind, s.ref.fullName(), diff
	p.steps, p.Changes = append(p.steps, s), append(p.Changes, s.Change)
}

// say puts rows into the plan that change nothing.
func (p *MappingPlan) say(remarks ...change.Change) {
	for _, c := range remarks {
		p.steps, p.Changes = append(p.steps, mappingStep{Change: c}), append(p.Changes, c)
	}
}

// add puts the row of an edit into the plan, by what was read.
func (p *MappingPlan) add(step mappingStep) {
	now := p.state.objectOf(step.ref)
	next, remarks, err := step.edit(now)
	switch {
	case err != nil:
		p.err = cmp.Or(p.err, err)
	case now == nil && next == nil:
		return
	case now == nil:
		p.put(change.Create, step)
	case next == nil:
		p.put(change.Delete, step)
	case !reflect.DeepEqual(now, next):
		diff := objectDiff(now, next)
		if len(diff) > 0 {
			step.Why += step.update
		}
		p.put(change.Update, step, diff...)
	case !step.remove:
		step.Why = cmp.Or(step.keep, step.Why)
		p.put(change.Keep, step)
	case step.keep != "":
		step.Why = step.keep
		p.put(change.Leave, step)
	}
	p.say(remarks...)
}

// rows are the plan's, as the steps of a run.
func (p MappingPlan) rows() (rows []step) {
	for _, s := range p.steps {
		one := step{Change: s.Change}
		if s.Changes() {
			one.Write = func(ctx context.Context, r *Run) error { return s.write(ctx, r.Cluster) }
		}
		rows = append(rows, one)
	}
	return rows
}

// Apply carries the plan out. It may be broken off anywhere, and what is left is done by the next plan.
func (p MappingPlan) Apply(ctx context.Context, cluster dynamic.Interface) error {
	return change.Apply(ctx, &Run{Cluster: cluster}, p.rows())
}

// objectDiff shows what changes in an object, but for what is written by the API server, and for our note: of a text,
// the lines. It is empty if nothing does.
func objectDiff(now, next object) (lines []string) {
	was, is := map[string]string{}, map[string]string{}
	leaves(now.Object, "", was)
	leaves(next.Object, "", is)
	both := maps.Clone(was)
	maps.Copy(both, is)
	for _, path := range slices.Sorted(maps.Keys(both)) {
		before, there := was[path]
		after, stays := is[path]
		if there == stays && before == after || slices.Contains(unsaid, path) {
			continue
		}
		if now.GetKind() == "Secret" {
			lines = append(lines, "  "+path+" changes")
			continue
		}
		lines = append(lines, "  "+path+":")
		lines = append(lines, awsadmin.DiffDocuments(before, after)...)
	}
	return lines
}

// unsaid is what a diff does not show.
var unsaid = []string{"metadata.annotations." + annotationMapped, "metadata.managedFields", "metadata.resourceVersion",
	"metadata.generation", "metadata.uid", "metadata.creationTimestamp"}

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
