package spot

import (
	"fmt"
	"time"
)

// detachWindow is how long after a detach a failed launch counts as a failed replacement.
const detachWindow = 15 * time.Minute

// NothingMissingReason returns why no replacement is missing after a failed launch of the group; empty if the group is
// one of this cluster and has fewer instances than it wants.
func (p Policy) NothingMissingReason(g Group) string {
	if why := p.OtherGroupReason(g.Name, g.Tags); why != "" {
		return why
	}
	if g.Present >= g.Desired {
		return fmt.Sprintf("group %s has %d of %d instances: no replacement is missing", g.Name, g.Present, g.Desired)
	}
	return ""
}

// DetachedBefore returns the IDs of our instances that kops-spot detached within detachWindow before the failed launch.
// instances are those with the group's name in the tag TagDetached: kOps sets it too, but only kops-spot sets
// TagInterruptedAt.
func (p Policy) DetachedBefore(in Interruption, instances []Instance) (ids []string) {
	for _, i := range instances {
		at, _ := time.Parse(time.RFC3339, i.Tags[TagInterruptedAt]) // without the tag, long ago
		if age := in.Time.Sub(at); age >= 0 && age <= detachWindow && p.OtherClusterReason(i) == "" {
			ids = append(ids, i.ID)
		}
	}
	return ids
}
