package sim

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// clusterReaction is how long a controller takes to make the next pod. It is not nothing, so that a pod that is
// deleted as often as it comes back cannot stop the clock of a synctest bubble.
const clusterReaction = 10 * time.Millisecond

// Replacement is what the pod's owner does when it loses the pod. A StatefulSet makes a pod of the same name, and a
// DaemonSet one of another, once the old one is gone; every other owner makes one as soon as the old one has its
// deletionTimestamp. The new pod is as the old one was, its Replacement too.
type Replacement struct {
	Node  string        // where it goes; the pod's own node for one that comes straight back, empty for nowhere yet
	Ready time.Duration // from when it is made to when it is Ready; until then it is Pending
}

func (p *clusterPod) replacedWhenGone() bool {
	return p.Owner.Kind == "StatefulSet" || p.Owner.Kind == "DaemonSet"
}

// replace has the pod's owner, or for a static pod's picture its kubelet, make the next one.
func (c *Cluster) replace(old *clusterPod) {
	next := old.Pod
	next.UID, next.Terminating, next.EndsBy, next.EndedBy, next.Finished = "", false, time.Time{}, "", false
	next.Finalizer, next.Finalizers = false, nil
	var ready time.Duration
	switch {
	case old.Mirror:
	case old.Replacement == nil:
		return
	default:
		next.Node, ready = old.Replacement.Node, old.Replacement.Ready
		next.Pending, next.Unready = true, false
		if old.Owner.Kind != "StatefulSet" {
			c.serial++
			next.Name = fmt.Sprintf("%s-%04d", cmp.Or(old.Owner.Name, strings.TrimRight(old.Name, "-0123456789")), c.serial)
		}
	}
	time.AfterFunc(clusterReaction, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case c.pods[next.ID()] != nil:
			return
		case next.Mirror && c.off[next.Node]:
			return
		case next.Owner.Kind == "DaemonSet" && (c.nodes[next.Node] == nil || c.repels(next)):
			return // no node that would take it, no pod for it
		case c.repels(next):
			next.Node = "" // it waits for another
		}
		p := c.addPod(next)
		c.successors[next.ID()]++
		if p.Pending && p.Node != "" {
			time.AfterFunc(ready, func() { c.ready(p) })
		}
	})
}

// Successors says how many pods of that name an owner has made after another had gone.
func (c *Cluster) Successors(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.successors[id]
}
