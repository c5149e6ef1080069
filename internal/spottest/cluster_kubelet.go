package spottest

import "time"

// minimumGrace is what a kubelet allows every container, however short its pod's grace period is.
const minimumGrace = 2 * time.Second

// Termination records how a kubelet terminated a pod.
type Termination struct {
	Pod     string // namespace/name
	UID     string
	SIGTERM time.Time
	Grace   time.Duration // remaining grace period at SIGTERM
	Exited  time.Time     // or was killed; zero while running
}

// Terminations returns the pods that received SIGTERM, in that order.
func (c *Cluster) Terminations() []Termination {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Termination, len(c.terminations))
	for i, e := range c.terminations {
		all[i] = *e
	}
	return all
}

// dead records the exit of a terminating pod.
func (p *clusterPod) dead() {
	if p.termination != nil && p.termination.Exited.IsZero() {
		p.termination.Exited = time.Now()
	}
}

// stop acts as the kubelet: it sends SIGTERM and schedules the exit.
func (c *Cluster) stop(p *clusterPod) {
	if p.Node == "" || p.Finished || c.off[p.Node] {
		return
	}
	if p.termination == nil {
		p.termination = &Termination{Pod: p.ID(), UID: p.UID, SIGTERM: time.Now(), Grace: p.killIn}
		c.terminations = append(c.terminations, p.termination)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = time.AfterFunc(time.Until(p.began.Add(min(p.Exit, max(p.killIn, minimumGrace)))), func() { c.exited(p) })
}

// exited acts as the kubelet after the exit: it marks the pod finished, then deletes it without a grace period, which
// moves the deletionTimestamp.
func (c *Cluster) exited(p *clusterPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[p.ID()] != p || p.Finished || c.off[p.Node] {
		return // the pod is gone, the node has no power, or the timer is obsolete
	}
	c.finish(p)
}

func (c *Cluster) finish(p *clusterPod) {
	p.dead()
	p.Finished = true
	c.touch(p)
	p.granted, p.DeletionTimestamp = 0, time.Now().Truncate(time.Second)
	c.touch(p)
	if !p.held() {
		c.remove(p)
	}
}

// start marks a started pod Ready once its volume is attached.
func (c *Cluster) start(p *clusterPod) {
	if p.up && p.Pending && c.pods[p.ID()] == p && !p.Terminating && !c.off[p.Node] && c.hasVolume(p) {
		p.Pending = false
		c.touch(p)
	}
}
