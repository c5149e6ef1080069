package identitymap

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/castai/kops-spot/internal/change"
)

// configMapEdit maps identities in a ConfigMap, and has it forget others.
type configMapEdit struct {
	backend     configMapBackend
	add, remove []Identity
}

func (e configMapEdit) mutate(now object) (object, change.Plan, error) {
	next, remarks, err := e.backend.remove(now, e.remove)
	if err != nil || len(e.add) == 0 {
		return next, remarks, err
	}
	next, more, err := e.backend.add(next, e.add)
	return next, append(remarks, more...), err
}

// crdEdit maps an identity by an IAMIdentityMapping, or no more.
type crdEdit struct {
	ref    ref
	id     Identity
	remove bool
}

func (e crdEdit) mutate(now object) (object, change.Plan, error) {
	switch {
	case now == nil && e.remove:
		return nil, nil, nil
	case now == nil:
		next := e.ref.empty()
		set(next, managedBy, "metadata", "labels", labelManagedBy)
		set(next, map[string]any{"arn": e.id.canonicalARN(), "username": e.id.Username, "groups": toAny(e.id.Groups)}, "spec")
		n := ownership{Created: true, Grants: map[string]ownedGroups{e.id.canonicalARN(): {Username: e.id.Username, Groups: e.id.Groups}}}
		return next, nil, n.write(next)
	}
	next := now.DeepCopy()
	n, err := ownershipOf(next)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", e.ref, err)
	}
	groups, _, _ := unstructured.NestedStringSlice(now.Object, "spec", "groups")
	was := entry{arn: stringAt(now, "spec", "arn"), username: stringAt(now, "spec", "username"), groups: groups}
	var t entryDiff
	if e.remove {
		if t = was.diffRemove(e.id, n.of(was.arn)); t.remove {
			return nil, nil, nil
		}
		t.ownedGroups = ownedGroups{}
	} else if t = was.diffAdd(e.id, n.of(was.arn)); t.remove {
		set(next, e.id.Username, "spec", "username")
	}
	if !t.none() {
		set(next, toAny(union(subtract(was.groups, t.drop), t.add)), "spec", "groups")
	}
	n.keep(was.arn, t.ownedGroups)
	return next, e.remarks(t), n.write(next)
}

func (e crdEdit) remarks(t entryDiff) change.Plan {
	if len(t.foreign) == 0 && !e.remove {
		return nil
	}
	so := ", and so it stays there"
	if e.remove {
		so = ": delete that if nobody needs it"
	}
	return change.Plan{{Verb: change.Leave, Kind: e.id.kindName(), Name: e.id.ARN,
		Why: fmt.Sprintf("somebody else has given it %s in %s%s", strings.Join(groupsOrName(t.foreign), ", "), e.ref, so)}}
}

func toAny(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
