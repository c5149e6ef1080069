package spottest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Pod is a pod with what its kubelet and its owner make of it. The zero value of each field is the good case: a Running,
// Ready pod that exits as soon as it gets SIGTERM, and that nobody replaces.
type Pod struct {
	spot.Pod        // Namespace is "default" if it is empty, UID and Version are given
	Node     string // empty for a pod that no scheduler has bound
	Labels   map[string]string

	Pending   bool          // phase Pending
	Exit      time.Duration // from SIGTERM to its exit, if it is left the time
	Finalizer bool          // a finalizer of somebody's, beside those of Finalizers; each keeps the object until ChangePod takes it away
	Volume    string        // where it has Volumes, the one it mounts; its namespace/name if that is empty

	Replacement *Replacement
}

type clusterPod struct {
	Pod
	up      bool          // it would be Ready if its volume were there
	began   time.Time     // when its deletion was first asked for
	granted time.Duration // its deletionGracePeriodSeconds
	killIn  time.Duration // from began to SIGKILL
	ending  *Ending       // once its kubelet has sent SIGTERM
	timer   *time.Timer   // its kubelet's, for the exit
}

// clusterFinalizer is what Pod.Finalizer stands for.
const clusterFinalizer = "example.com/finalizer"

func (p *clusterPod) copy() Pod {
	pod := p.Pod
	pod.Pod = p.seen()
	pod.Labels = maps.Clone(p.Labels)
	return pod
}

// seen is the pod as a request shows it.
func (p *clusterPod) seen() spot.Pod {
	pod := p.Pod.Pod
	pod.Annotations, pod.Finalizers = clusterOurs(p.Annotations), slices.Clone(p.Finalizers)
	if p.Finalizer {
		pod.Finalizers = append(pod.Finalizers, clusterFinalizer)
	}
	return pod
}

// held reports whether the object stays when nothing runs any more.
func (p *clusterPod) held() bool { return p.Finalizer || len(p.Finalizers) > 0 }

// AddPod adds a pod and returns it as it then is. One that is Terminating has just been asked to go by somebody else, with
// its own grace period.
func (c *Cluster) AddPod(p Pod) spot.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Namespace = cmp.Or(p.Namespace, "default")
	if c.pods[p.ID()] != nil {
		panic("sim: there is a pod " + p.ID() + " already")
	}
	own := c.addPod(p)
	c.mountAtOnce(own)
	return own.seen()
}

func (c *Cluster) addPod(p Pod) *clusterPod {
	terminating := p.Terminating
	p.Terminating = false
	p.UID = cmp.Or(p.UID, c.uid())
	p.Labels, p.Annotations, p.Finalizers = maps.Clone(p.Labels), maps.Clone(p.Annotations), slices.Clone(p.Finalizers)
	p.Volume = cmp.Or(p.Volume, p.ID())
	own := &clusterPod{Pod: p}
	c.pods[p.ID()] = own
	c.touch(own)
	if terminating {
		c.terminate(own, p.GracePeriod)
	}
	return own
}

// ChangePod changes a pod as somebody else would: without a request of ours, and with a new version. A pod that has
// ended goes once it has no finalizer.
func (c *Cluster) ChangePod(id string, change func(*Pod)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods[id]
	if p == nil {
		panic("sim: there is no pod " + id)
	}
	change(&p.Pod)
	c.touch(p)
	if p.Terminating && !p.held() && p.granted == 0 {
		c.remove(p)
	}
}

// RemovePod takes a pod away at once, as its node's end or a forced deletion by somebody else would.
func (c *Cluster) RemovePod(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[id]; p != nil {
		c.remove(p)
	}
}

// Pod is the pod as it is now; false if there is none.
func (c *Cluster) Pod(id string) (Pod, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods[id]
	if p == nil {
		return Pod{}, false
	}
	return p.copy(), true
}

// Pods are all pods of the cluster, by namespace and name.
func (c *Cluster) Pods() []Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Pod
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		all = append(all, c.pods[id].copy())
	}
	return all
}

func (c *Cluster) PodsOn(ctx context.Context, node string) ([]spot.Pod, error) {
	var pods []spot.Pod
	err := c.request(ctx, "list", "pods", node, func() error {
		pods = c.podsOn(node)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	return pods, nil
}

func (c *Cluster) podsOn(node string) []spot.Pod {
	var pods []spot.Pod
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		if p := c.pods[id]; p.Node == node {
			pods = append(pods, p.seen())
		}
	}
	return pods
}

// remove takes the object away. A process that is left dies with it.
func (c *Cluster) remove(p *clusterPod) {
	p.dead()
	if p.timer != nil {
		p.timer.Stop()
	}
	delete(c.pods, p.ID())
	p.Version = c.bump()
	c.tell(p, true)
	if p.Volumes {
		c.moveVolumes()
	}
	if p.replacedWhenGone() || !p.Terminating {
		c.replace(p)
	}
}

// touch gives the pod a new version and tells those who follow it.
func (c *Cluster) touch(p *clusterPod) {
	p.Version = c.bump()
	c.tell(p, false)
	if p.Volumes {
		c.moveVolumes()
	}
}
