package identitymap

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
)

// ReadManifests reads the objects of embedded YAML files, in the order in which to apply them.
func ReadManifests(files ...[]byte) []*unstructured.Unstructured { return readManifests(files...) }

// IsManaged reports whether an object is one that kops-spot has created.
func IsManaged(o *unstructured.Unstructured) bool { return isManaged(o) }

// ManagerOf returns what applies an object from a source, other than kops-spot; empty if there is no sign of any.
func ManagerOf(o *unstructured.Unstructured) string { return managerOf(o) }

// PlanObjects returns what to change so that the objects exist, by a dry run of the API server, with more rows.
func PlanObjects(ctx context.Context, cluster dynamic.Interface, objects []*unstructured.Unstructured,
	why func(*unstructured.Unstructured) string, rows ...change.Change) (Plan, error) {
	p := newPlan()
	if err := manifests(objects).dryRun(ctx, cluster, &p.state); err != nil {
		return p, err
	}
	p.addManifests(objects, why)
	p.addRemarks(rows...)
	return p, p.err
}

// PlanObjectsRemoval returns how to delete those of the objects that are ours, in reverse order, with more rows.
func PlanObjectsRemoval(ctx context.Context, cluster dynamic.Interface, objects []*unstructured.Unstructured,
	rows ...change.Change) (Plan, error) {
	p := newPlan()
	for _, o := range slices.Backward(objects) {
		if err := p.state.read(ctx, cluster, refOf(o)); err != nil {
			return p, err
		}
		p.addRemoval(refOf(o))
	}
	p.addRemarks(rows...)
	return p, p.err
}

// PlanEdit returns how to edit an object that belongs to somebody else. A write edits the object as it is then.
func PlanEdit(o *unstructured.Unstructured, edit func(*unstructured.Unstructured), why string) Plan {
	p := newPlan()
	p.state.objects[refOf(o)] = o
	p.addEdit(step{ref: refOf(o), undone: true, Change: change.Change{Why: why},
		mutate: func(now object) (object, change.Plan, error) {
			next := now.DeepCopy()
			if now != nil {
				edit(next)
			}
			return next, nil, nil
		}})
	return p
}

// RolloutStatus returns the progress of a DaemonSet's rollout; empty if it is complete.
func RolloutStatus(o *unstructured.Unstructured) string { return rolloutStatus(o) }

func newPlan() Plan {
	return Plan{state: state{objects: map[ref]object{}, applied: map[ref]object{}}}
}
