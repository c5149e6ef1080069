package onboard

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/castai/kops-spot/internal/change"
)

// listEdit maps identities in a ConfigMap, and has it forget others.
type listEdit struct {
	listing      listing
	know, forget []Identity
}

func (e listEdit) on(now object) (object, change.Plan, error) {
	next, remarks, err := e.listing.take(now, e.forget)
	if err != nil || len(e.know) == 0 {
		return next, remarks, err
	}
	next, more, err := e.listing.give(next, e.know)
	return next, append(remarks, more...), err
}

// objectEdit maps an identity by an IAMIdentityMapping, or no more.
type objectEdit struct {
	ref    ref
	id     Identity
	remove bool
}

func (e objectEdit) on(now object) (object, change.Plan, error) {
	switch {
	case now == nil && e.remove:
		return nil, nil, nil
	case now == nil:
		next := e.ref.empty()
		set(next, managedBy, "metadata", "labels", labelManagedBy)
		set(next, map[string]any{"arn": e.id.canonical(), "username": e.id.Username, "groups": anys(e.id.Groups)}, "spec")
		n := note{Created: true, Grants: map[string]grant{e.id.canonical(): {Username: e.id.Username, Groups: e.id.Groups}}}
		return next, nil, n.write(next)
	}
	next := now.DeepCopy()
	n, err := noteOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", e.ref, err)
	}
	groups, _, _ := unstructured.NestedStringSlice(now.Object, "spec", "groups")
	was := entry{arn: textAt(now, "spec", "arn"), username: textAt(now, "spec", "username"), groups: groups}
	var t turn
	if e.remove {
		if t = was.take(e.id, n.of(was.arn)); t.remove {
			return nil, nil, nil
		}
		t.grant = grant{}
	} else if t = was.give(e.id, n.of(was.arn)); t.remove {
		set(next, e.id.Username, "spec", "username")
	}
	if !t.none() {
		set(next, anys(union(without(was.groups, t.drop), t.add)), "spec", "groups")
	}
	n.keep(was.arn, t.grant)
	return next, e.remarks(t), n.write(next)
}

func (e objectEdit) remarks(t turn) change.Plan {
	if len(t.foreign) == 0 && !e.remove {
		return nil
	}
	so := ", and so it stays there"
	if e.remove {
		so = ": delete that if nobody needs it"
	}
	return change.Plan{{Verb: change.Leave, Kind: e.id.title(), Name: e.id.ARN,
		Why: fmt.Sprintf("somebody else has given it %s in %s%s", strings.Join(orNothing(t.foreign), ", "), e.ref, so)}}
}

func anys(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
