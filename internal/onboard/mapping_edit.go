package onboard

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

// edit makes of an object what it is to be. It is pure, so that what is written can be made anew of what is there when it is
// written: somebody may have changed it since the plan was shown.
type edit interface {
	// on returns what the object is to be, nil if it is to go, and what else is worth telling. now is what it is, nil if it
	// is not there, and is not changed.
	on(now kubeadmin.Object) (next kubeadmin.Object, remarks change.Plan, err error)
}

// mappingStep is an edit of one object.
type mappingStep struct {
	ref     kubeadmin.Ref
	edit    edit
	why     string
	update  string // what else is to be known, if more changes than our note
	keep    string // why, if there is nothing to do
	remove  bool   // it takes away: where nothing is ours, there is nothing to tell
	rollout bool   // it is done when all pods of the DaemonSet are new
}

// listEdit maps identities in a ConfigMap, and has it forget others.
type listEdit struct {
	listing      listing
	know, forget []Identity
}

func (e listEdit) on(now kubeadmin.Object) (kubeadmin.Object, change.Plan, error) {
	next, remarks, err := e.listing.take(now, e.forget)
	if err != nil || len(e.know) == 0 {
		return next, remarks, err
	}
	next, more, err := e.listing.give(next, e.know)
	return next, append(remarks, more...), err
}

// objectEdit maps an identity by an IAMIdentityMapping, or no more.
type objectEdit struct {
	ref    kubeadmin.Ref
	id     Identity
	remove bool
}

func (e objectEdit) on(now kubeadmin.Object) (kubeadmin.Object, change.Plan, error) {
	switch {
	case now == nil && e.remove:
		return nil, nil, nil
	case now == nil:
		next := e.ref.New()
		next.Set(managedBy, "metadata", "labels", labelManagedBy)
		next.Set(map[string]any{"arn": e.id.canonical(), "username": e.id.Username, "groups": anys(e.id.Groups)}, "spec")
		n := note{Created: true, Grants: map[string]grant{e.id.canonical(): {Username: e.id.Username, Groups: e.id.Groups}}}
		return next, nil, n.write(next)
	}
	next := now.Clone()
	n, err := noteOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", e.ref, err)
	}
	was := entry{arn: now.Text("spec", "arn"), username: now.Text("spec", "username")}
	for _, g := range now.List("spec", "groups") {
		was.groups = append(was.groups, fmt.Sprint(g))
	}
	var t turn
	if e.remove {
		if t = was.take(e.id, n.of(was.arn)); t.remove {
			return nil, nil, nil
		}
		t.grant = grant{}
	} else if t = was.give(e.id, n.of(was.arn)); t.remove {
		next.Set(e.id.Username, "spec", "username")
	}
	if !t.none() {
		next.Set(anys(union(without(was.groups, t.drop), t.add)), "spec", "groups")
	}
	n.keep(was.arn, t.grant)
	return next, e.remarks(t), n.write(next)
}

func (e objectEdit) remarks(t turn) change.Plan {
	if len(t.foreign) == 0 && !e.remove {
		return nil
	}
	why := fmt.Sprintf("somebody else has given it %s in %s, and so it stays there", strings.Join(orNothing(t.foreign), ", "), e.ref)
	if e.remove {
		why = fmt.Sprintf("somebody else has given it %s in %s: delete that if nobody needs it", strings.Join(orNothing(t.foreign), ", "), e.ref)
	}
	return change.Plan{{Verb: change.Leave, Kind: e.id.title(), Name: e.id.ARN, Why: why}}
}

func anys(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}

// overlay has an object hold the fields of a manifest, and leaves it all others. It is ours from then on.
type overlay struct {
	manifest kubeadmin.Object
	remove   bool
}

func (e overlay) on(now kubeadmin.Object) (kubeadmin.Object, change.Plan, error) {
	if e.remove {
		if now == nil || now.Text("metadata", "labels", labelManagedBy) == managedBy {
			return nil, nil, nil
		}
		return now, nil, nil
	}
	next := e.manifest.Clone()
	if now != nil {
		next = lay(now.Clone(), next)
	}
	next.Set(managedBy, "metadata", "labels", labelManagedBy)
	return next, nil, nil
}

// lay puts the fields of over onto under. A list is one field.
func lay(under, over map[string]any) map[string]any {
	for key, value := range over {
		below, isMap := under[key].(map[string]any)
		if above, ok := value.(map[string]any); ok && isMap {
			value = lay(below, above)
		}
		under[key] = value
	}
	return under
}

// sameObject reports whether two versions of an object say the same.
func sameObject(a, b kubeadmin.Object) bool {
	return (a == nil) == (b == nil) && reflect.DeepEqual(map[string]any(a), map[string]any(b))
}
