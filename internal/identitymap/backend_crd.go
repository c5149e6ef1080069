package identitymap

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/castai/kops-spot/internal/change"
)

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// crdRef names the object that maps an identity: the existing one, whoever has created it, or ours.
func crdRef(s state, id Identity) ref {
	arn := id.canonicalARN()
	if existing := s.crdsFor(arn); len(existing) > 0 {
		return refOf(existing[0])
	}
	r, sum := crdKind, sha256.Sum256([]byte(strings.ToLower(arn)))
	last := strings.ToLower(arn[strings.LastIndexByte(arn, '/')+1:])
	r.name = "cast-" + strings.Trim(notInNames.ReplaceAllString(last, "-"), "-") + "-" + hex.EncodeToString(sum[:4])
	return r
}

// mutateCRD adds an identity to an IAMIdentityMapping, or removes it.
func mutateCRD(r ref, id Identity, remove bool) mutateFunc {
	return func(now object) (object, change.Plan, error) {
		switch {
		case now == nil && remove:
			return nil, nil, nil
		case now == nil:
			next := r.empty()
			set(next, managedBy, "metadata", "labels", labelManagedBy)
			set(next, map[string]any{"arn": id.canonicalARN(), "username": id.Username, "groups": toAny(id.Groups)}, "spec")
			n := ownership{Created: true, Grants: map[string]ownedGroups{id.canonicalARN(): id.owned()}}
			return next, nil, n.write(next)
		}
		next := now.DeepCopy()
		n, err := ownershipOf(next)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", r, err)
		}
		groups, _, _ := unstructured.NestedStringSlice(now.Object, "spec", "groups")
		was := entry{arn: stringAt(now, "spec", "arn"), username: stringAt(now, "spec", "username"), groups: groups}
		var t entryDiff
		so := "it stays"
		if remove {
			if t = was.diffRemove(id, n.of(was.arn)); t.remove {
				return nil, nil, nil
			}
			t.ownedGroups, so = ownedGroups{}, "if nobody needs it, delete it"
		} else if t = was.diffAdd(id, n.of(was.arn)); t.remove {
			set(next, id.Username, "spec", "username")
		}
		var remarks change.Plan
		if remove || len(t.foreign) > 0 {
			remarks = change.Plan{id.leave("somebody else has added %s in %s: %s", t.foreignGroups(), r, so)}
		}
		if t.remove || len(t.add)+len(t.drop) > 0 {
			set(next, toAny(union(subtract(was.groups, t.drop), t.add)), "spec", "groups")
		}
		n.keep(was.arn, t.ownedGroups)
		return next, remarks, n.write(next)
	}
}

func toAny(list []string) []any {
	all := make([]any, len(list))
	for i, s := range list {
		all[i] = s
	}
	return all
}
