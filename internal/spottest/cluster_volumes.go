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
	// clusterAttach and clusterDetach are the times a driver takes. EBS takes seconds; the order of events is the same.
	clusterAttach = 300 * time.Millisecond
	clusterDetach = 500 * time.Millisecond

	// clusterUnmountWait is how long the attach-detach controller waits for a kubelet to unmount a volume that no pod
	// uses. It does not wait for a node that is out of service.
	clusterUnmountWait = 6 * time.Minute
)

// clusterAttachment is a VolumeAttachment. Like EBS, it attaches a volume to one node at a time.
type clusterAttachment struct {
	volume, node string

	attached  bool      // by the driver
	mounted   bool      // reported in use by the kubelet
	unwanted  time.Time // since when no pod on the node uses it
	detaching bool
}

func (a *clusterAttachment) name() string {
	return "csi-" + strings.ReplaceAll(a.volume, "/", "-") + "-" + a.node
}

// handle is the name of the volume in the node status.
func (a *clusterAttachment) handle() string {
	return "kubernetes.io/csi/ebs.csi.aws.com^vol-" + strings.ReplaceAll(a.volume, "/", "-")
}

// FollowVolumes sends a list request and a watch request.
func (c *Cluster) FollowVolumes(ctx context.Context, node string, see func([]string)) error {
	if err := c.request(ctx, "list", "volumeattachments", node, func() error { return nil }); err != nil {
		return fmt.Errorf("listing the VolumeAttachments of node %s: %w", node, err)
	}
	names, changed := c.attachmentsOn(node)
	see(names)
	err := c.request(ctx, "watch", "volumeattachments", node, func() error { return nil })
	for err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-changed:
			var now []string
			if now, changed = c.attachmentsOn(node); !slices.Equal(now, names) {
				names = now
				see(names)
			}
		}
	}
	return fmt.Errorf("watching the VolumeAttachments of node %s: %w", node, err)
}

// attachmentsOn returns the names of a node's VolumeAttachments, and a channel that is closed when any changes.
func (c *Cluster) attachmentsOn(node string) (names []string, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.attachments {
		if a.node == node {
			names = append(names, a.name())
		}
	}
	slices.Sort(names)
	return names, c.attachmentsChanged
}

// setAttachments replaces the VolumeAttachments.
func (c *Cluster) setAttachments(all []*clusterAttachment) {
	c.attachments = all
	close(c.attachmentsChanged)
	c.attachmentsChanged = make(chan struct{})
}

func (c *Cluster) attachmentOf(p *clusterPod) *clusterAttachment {
	i := slices.IndexFunc(c.attachments, func(a *clusterAttachment) bool {
		return a.volume == p.Volume && a.node == p.Node
	})
	if i < 0 {
		return nil
	}
	return c.attachments[i]
}

// needs reports whether the pod needs a volume on its node.
func (p *clusterPod) needs() bool { return p.Volumes && p.Node != "" && !p.Finished }

func (c *Cluster) hasVolume(p *clusterPod) bool {
	a := c.attachmentOf(p)
	return !p.Volumes || a != nil && a.attached && !a.detaching
}

// mountAtOnce attaches the volume of a pod that is added as running.
func (c *Cluster) mountAtOnce(p *clusterPod) {
	if a := c.attachmentOf(p); a != nil && p.needs() && !p.Pending {
		c.attached(a)
	}
}

// reconcileVolumes acts as the attach-detach controller: it detaches unused volumes, and attaches volumes that are on
// no other node.
func (c *Cluster) reconcileVolumes() {
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
			c.detach(a)
			continue
		}
		a.unwanted = time.Time{}
		a.mounted = a.mounted || a.attached && !c.off[a.node]
	}
}

// attach starts to attach a volume, unless it is on another node or the Node is missing.
func (c *Cluster) attach(p *clusterPod) *clusterAttachment {
	elsewhere := slices.ContainsFunc(c.attachments, func(a *clusterAttachment) bool { return a.volume == p.Volume })
	if elsewhere || c.nodes[p.Node] == nil {
		return nil
	}
	a := &clusterAttachment{volume: p.Volume, node: p.Node}
	c.setAttachments(append(c.attachments, a))
	c.later(clusterAttach, func() { c.attached(a) })
	return a
}

// detach detaches an unused volume if that is safe, or after clusterUnmountWait.
func (c *Cluster) detach(a *clusterAttachment) {
	if a.unwanted.IsZero() {
		a.unwanted = time.Now()
		c.later(clusterUnmountWait, c.reconcileVolumes)
	}
	if !c.off[a.node] && c.nodes[a.node] != nil {
		a.mounted = false // reported by the kubelet, which needs the Node for it
	}
	waited := time.Since(a.unwanted) >= clusterUnmountWait
	if !a.attached || a.detaching || a.mounted && !waited && !c.outOfService(a.node) {
		return
	}
	a.detaching = true
	c.reportAttached(a.node)
	c.later(clusterDetach, func() {
		c.setAttachments(slices.DeleteFunc(c.attachments, func(other *clusterAttachment) bool { return other == a }))
		c.reconcileVolumes()
	})
}

// attached completes the attachment of a volume.
func (c *Cluster) attached(a *clusterAttachment) {
	if a.attached {
		return
	}
	a.attached = true
	c.reportAttached(a.node)
	c.reconcileVolumes() // it may no longer be needed
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[id]; p.Volumes && p.Volume == a.volume && p.Node == a.node {
			c.start(p)
		}
	}
}

// reportAttached updates the attached volumes in the node status. Volumes being detached are omitted.
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
