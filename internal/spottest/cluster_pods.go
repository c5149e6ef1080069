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

// Pod is a pod with the behavior of its kubelet and owner. The zero value is a Running, Ready pod that exits at once on
// SIGTERM and is not replaced.
type Pod struct {
	spot.Pod        // Namespace defaults to "default"; UID and Version are generated
	Node     string // empty for an unscheduled pod
	Labels   map[string]string

	Pending   bool          // phase Pending
	Exit      time.Duration // from SIGTERM to exit
	Finalizer bool          // an additional finalizer; ChangePod removes it
	Volume    string        // the volume it mounts if Volumes is set; defaults to namespace/name

	Replacement *Replacement
}

type clusterPod struct {
	Pod
	up          bool          // Ready once its volume is attached
	began       time.Time     // first deletion request
	granted     time.Duration // deletionGracePeriodSeconds
	killIn      time.Duration // from began to SIGKILL
	termination *Termination  // set at SIGTERM
	timer       *time.Timer   // for the exit
}

// clusterFinalizer is the finalizer of Pod.Finalizer.
const clusterFinalizer = "example.com/finalizer"

func (p *clusterPod) copy() Pod {
	pod := p.Pod
	pod.Pod = p.seen()
	pod.Labels = maps.Clone(p.Labels)
	return pod
}

// seen returns the pod as a response shows it.
func (p *clusterPod) seen() spot.Pod {
	pod := p.Pod.Pod
	pod.Annotations, pod.Finalizers = ownAnnotations(p.Annotations), slices.Clone(p.Finalizers)
	if p.Finalizer {
		pod.Finalizers = append(pod.Finalizers, clusterFinalizer)
	}
	return pod
}

// held reports whether a finalizer keeps the object.
func (p *clusterPod) held() bool { return p.Finalizer || len(p.Finalizers) > 0 }

// AddPod adds a pod and returns it. If it is Terminating, somebody else has just deleted it with its own grace period.
func (c *Cluster) AddPod(p Pod) spot.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Namespace = cmp.Or(p.Namespace, "default")
	if c.pods[p.ID()] != nil {
		panic("spottest: there is a pod " + p.ID() + " already")
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
	if p.Created.IsZero() {
		p.Created = time.Now().UTC().Truncate(time.Second)
	}
	own := &clusterPod{Pod: p}
	c.pods[p.ID()] = own
	c.touch(own)
	if terminating {
		c.terminate(own, p.GracePeriod)
	}
	return own
}

// ChangePod changes a pod as another client would: no request is logged, and the version changes. A finished
// terminating pod is removed once it has no finalizer.
func (c *Cluster) ChangePod(id string, change func(*Pod)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods[id]
	if p == nil {
		panic("spottest: there is no pod " + id)
	}
	change(&p.Pod)
	c.touch(p)
	if p.Terminating && !p.held() && p.granted == 0 {
		c.remove(p)
	}
}

// RemovePod removes a pod at once, as a forced deletion by somebody else does.
func (c *Cluster) RemovePod(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[id]; p != nil {
		c.remove(p)
	}
}

// Pod returns the current pod.
func (c *Cluster) Pod(id string) (Pod, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pods[id]
	if p == nil {
		return Pod{}, false
	}
	return p.copy(), true
}

// Pods returns all pods by namespace and name.
func (c *Cluster) Pods() []Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Pod
	for _, id := range slices.Sorted(maps.Keys(c.pods)) {
		all = append(all, c.pods[id].copy())
	}
	return all
}

// ReadPod sends a list request.
func (c *Cluster) ReadPod(ctx context.Context, p spot.Pod) (spot.Pod, error) {
	found := p
	err := c.request(ctx, "list", "pods", p.ID(), func() error {
		now := c.pods[p.ID()]
		if now == nil || now.UID != p.UID {
			return spot.ErrNotFound
		}
		found = now.seen()
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("reading pod %s: %w", p.ID(), err)
	}
	return found, nil
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

// remove deletes the object and kills its process.
func (c *Cluster) remove(p *clusterPod) {
	p.dead()
	if p.timer != nil {
		p.timer.Stop()
	}
	delete(c.pods, p.ID())
	p.Version = c.bump()
	c.publish(p, true)
	if p.Volumes {
		c.reconcileVolumes()
	}
	if p.replacedWhenGone() || !p.Terminating {
		c.replace(p)
	}
}

// touch updates the version of the pod and publishes the change.
func (c *Cluster) touch(p *clusterPod) {
	p.Version = c.bump()
	c.publish(p, false)
	if p.Volumes {
		c.reconcileVolumes()
	}
}
