package spottest

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// clusterReaction is the time a controller takes to create the next pod. It is not zero, so that a pod that is deleted
// as often as it is recreated cannot stop the clock of a synctest bubble.
const clusterReaction = 10 * time.Millisecond

// Replacement is how the owner replaces a pod. A StatefulSet recreates it under the same name after it is gone; other
// owners create a new one as soon as the old one is terminating. The new pod equals the old one, including its
// Replacement.
type Replacement struct {
	Node  string        // node of the new pod
	Ready time.Duration // from creation to Ready; Pending until then
}

func (p *clusterPod) replacedWhenGone() bool { return p.Owner.Kind == "StatefulSet" }

// replace schedules the creation of the next pod by the owner.
func (c *Cluster) replace(old *clusterPod) {
	if old.Replacement == nil {
		return
	}
	next := old.Pod
	next.Created = time.Time{}
	next.UID, next.Terminating, next.DeletionTimestamp, next.DisruptedBy, next.Finished = "", false, time.Time{}, "",
		false
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

// Successors returns how many pods of that name an owner has recreated.
func (c *Cluster) Successors(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.successors[id]
}
