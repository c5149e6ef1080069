package spottest

import (
	"time"
)

// Ending is how a kubelet ended a pod.
type Ending struct {
	Pod     string // namespace/name
	UID     string
	SIGTERM time.Time
	Grace   time.Duration // what it was given when it got SIGTERM
	Exited  time.Time     // or killed; zero while it runs
}

// Endings are the pods that have got SIGTERM, in that order.
func (c *Cluster) Endings() []Ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Ending, len(c.endings))
	for i, e := range c.endings {
		all[i] = *e
	}
	return all
}

// dead notes that what was ending is no more.
func (p *clusterPod) dead() {
	if p.ending != nil && p.ending.Exited.IsZero() {
		p.ending.Exited = time.Now()
	}
}

// end is the kubelet: it sends SIGTERM to a pod that is to go, and plans its exit.
func (c *Cluster) end(p *clusterPod) {
	if p.Node == "" || p.Finished || c.off[p.Node] {
		return
	}
	if p.ending == nil {
		p.ending = &Ending{Pod: p.ID(), UID: p.UID, SIGTERM: time.Now(), Grace: p.killIn}
		c.endings = append(c.endings, p.ending)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = time.AfterFunc(time.Until(p.began.Add(min(p.Exit, p.killIn))), func() { c.exited(p) })
}

// exited is what a kubelet says about a pod that it has ended: first that it is finished, then a deletion with no grace
// period, which brings the deletionTimestamp forward.
func (c *Cluster) exited(p *clusterPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[p.ID()] != p || p.Finished || c.off[p.Node] {
		return // it has gone, or its kubelet has, or a timer that was put off had fired already
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

// start makes a pod Ready that has come up, once its volume is there.
func (c *Cluster) start(p *clusterPod) {
	if p.up && p.Pending && c.pods[p.ID()] == p && !p.Terminating && !c.off[p.Node] && c.hasVolume(p) {
		p.Pending = false
		c.touch(p)
	}
}
