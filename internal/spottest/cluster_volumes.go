package spottest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// clusterAttach and clusterDetach are how long a driver takes. EBS needs seconds; the order of things is the same.
	clusterAttach = 300 * time.Millisecond
	clusterDetach = 500 * time.Millisecond

	// clusterUnmountWait is how long the attach-detach controller waits, from the end of the last pod that needs a volume,
	// for the kubelet of a node without power. On a node that is out of service it does not wait.
	clusterUnmountWait = 6 * time.Minute
)

// clusterAttachment is a VolumeAttachment. A volume is on one node at a time, as EBS volumes are.
type clusterAttachment struct {
	volume, node string

	attached  bool      // the driver has done it
	mounted   bool      // the kubelet has said that it uses it, and not that it does not any more
	unwanted  time.Time // since when no pod of the node needs it; zero while one does
	detaching bool
}

// name is the VolumeAttachment's.
func (a *clusterAttachment) name() string {
	return "csi-" + strings.ReplaceAll(a.volume, "/", "-") + "-" + a.node
}

// handle is what the node's status calls the volume.
func (a *clusterAttachment) handle() string {
	return "kubernetes.io/csi/ebs.csi.aws.com^vol-" + strings.ReplaceAll(a.volume, "/", "-")
}

func (c *Cluster) VolumeAttachments(ctx context.Context, node string) (names []string, err error) {
	err = c.request(ctx, "list", "volumeattachments", node, func() error {
		for _, a := range c.attachments {
			if a.node == node {
				names = append(names, a.name())
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the VolumeAttachments of node %s: %w", node, err)
	}
	return names, nil
}

func (c *Cluster) attachmentOf(p *clusterPod) *clusterAttachment {
	i := slices.IndexFunc(c.attachments, func(a *clusterAttachment) bool { return a.volume == p.Volume && a.node == p.Node })
	if i < 0 {
		return nil
	}
	return c.attachments[i]
}

// needs reports whether the pod keeps a volume on its node.
func (p *clusterPod) needs() bool { return p.Volumes && p.Node != "" && !p.Finished }

func (c *Cluster) hasVolume(p *clusterPod) bool {
	a := c.attachmentOf(p)
	return !p.Volumes || a != nil && a.attached && !a.detaching
}

// mountAtOnce gives a pod that runs when it is added the volume that it must have.
func (c *Cluster) mountAtOnce(p *clusterPod) {
	if a := c.attachmentOf(p); a != nil && p.needs() && !p.Pending {
		c.attached(a)
	}
}

// moveVolumes is the attach-detach controller's look at all there is: what no pod needs is detached, what a pod needs is
// attached once it is on no other node.
func (c *Cluster) moveVolumes() {
	needed := map[*clusterAttachment]bool{}
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		p := c.pods[id]
		if !p.needs() {
			continue
		}
		a := c.attachmentOf(p)
		if a == nil {
			a = c.attach(p)
		}
		needed[a] = true
	}
	for _, a := range c.attachments {
		if !needed[a] {
			c.letGo(a)
			continue
		}
		a.unwanted = time.Time{}
		a.mounted = a.mounted || a.attached && !c.off[a.node]
	}
}

// attach begins to attach a volume, unless it is still on another node or there is no Node for it.
func (c *Cluster) attach(p *clusterPod) *clusterAttachment {
	elsewhere := slices.ContainsFunc(c.attachments, func(a *clusterAttachment) bool { return a.volume == p.Volume })
	if elsewhere || c.nodes[p.Node] == nil {
		return nil
	}
	a := &clusterAttachment{volume: p.Volume, node: p.Node}
	c.attachments = append(c.attachments, a)
	c.later(clusterAttach, func() { c.attached(a) })
	return a
}

// letGo detaches a volume that no pod needs, if that is safe or has been waited for long enough.
func (c *Cluster) letGo(a *clusterAttachment) {
	if a.unwanted.IsZero() {
		a.unwanted = time.Now()
		c.later(clusterUnmountWait, c.moveVolumes)
	}
	if !c.off[a.node] && c.nodes[a.node] != nil {
		a.mounted = false // its kubelet says so; without a Node to say it of, it cannot
	}
	waited := time.Since(a.unwanted) >= clusterUnmountWait
	if !a.attached || a.detaching || a.mounted && !waited && !c.outOfService(a.node) {
		return
	}
	a.detaching = true
	c.reportAttached(a.node)
	c.later(clusterDetach, func() {
		c.attachments = slices.DeleteFunc(c.attachments, func(other *clusterAttachment) bool { return other == a })
		c.moveVolumes()
	})
}

// attached is what follows when the driver has attached a volume.
func (c *Cluster) attached(a *clusterAttachment) {
	if a.attached {
		return
	}
	a.attached = true
	c.reportAttached(a.node)
	c.moveVolumes() // it may have become needless meanwhile
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[id]; p.Volumes && p.Volume == a.volume && p.Node == a.node {
			c.start(p)
		}
	}
}

// reportAttached writes into the node's status what is attached to it. What is being detached is no longer safe to use, and
// left out.
func (c *Cluster) reportAttached(node string) {
	n := c.nodes[node]
	if n == nil {
		return
	}
	n.AttachedVolumes = nil
	for _, a := range c.attachments {
		if a.node == node && a.attached && !a.detaching {
			n.AttachedVolumes = append(n.AttachedVolumes, a.handle())
		}
	}
	slices.Sort(n.AttachedVolumes)
	n.Version = c.bump()
}
