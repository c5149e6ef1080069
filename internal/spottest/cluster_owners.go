package spottest

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// clusterReaction is how long a controller takes to make the next pod. It is not nothing, so that a pod that is
// deleted as often as it comes back cannot stop the clock of a synctest bubble.
const clusterReaction = 10 * time.Millisecond

// Replacement is what the pod's owner does when it loses the pod. A StatefulSet makes a pod of the same name once the old
// one is gone; every other owner makes one as soon as the old one has its deletionTimestamp. The new pod is as the old one
// was, its Replacement too.
type Replacement struct {
	Node  string        // where it goes; the pod's own node for one that comes straight back
	Ready time.Duration // from when it is made to when it is Ready; until then it is Pending
}

func (p *clusterPod) replacedWhenGone() bool { return p.Owner.Kind == "StatefulSet" }

// replace has the pod's owner make the next one.
func (c *Cluster) replace(old *clusterPod) {
	if old.Replacement == nil {
		return
	}
	next := old.Pod
	next.UID, next.Terminating, next.DeletionTimestamp, next.DisruptedBy, next.Finished = "", false, time.Time{}, "", false
	next.Finalizer, next.Finalizers = false, nil
	next.Node, next.Pending = old.Replacement.Node, true
	if !old.replacedWhenGone() {
		c.serial++
		next.Name = fmt.Sprintf("%s-%04d", cmp.Or(old.Owner.Name, strings.TrimRight(old.Name, "-0123456789")), c.serial)
	}
	c.later(clusterReaction, func() {
		p := c.addPod(next)
		c.successors[next.ID()]++
		c.later(next.Replacement.Ready, func() {
			p.up = true
			c.start(p)
		})
	})
}

// Successors says how many pods of that name an owner has made after another had gone.
func (c *Cluster) Successors(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.successors[id]
}
