package sim

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// clusterReaction is how long a controller takes to make the next pod. It is not nothing, so that a pod that is
	// deleted as often as it comes back cannot stop the clock of a synctest bubble.
	clusterReaction = 10 * time.Millisecond

	// clusterDisruptionTimeout is how long the disruption controller takes an eviction that a budget has allowed for
	// one that is still to come.
	clusterDisruptionTimeout = 2 * time.Minute
)

// Pod is a pod with what its kubelet and its owner make of it. The zero value of each field is the good case: a Running,
// Ready pod that exits as soon as it gets SIGTERM, and that nobody replaces.
type Pod struct {
	spot.Pod        // Namespace is "default" if it is empty, UID and Version are given
	Node     string // empty for a pod that no scheduler has bound
	Labels   map[string]string

	Pending   bool          // phase Pending
	Unready   bool          // Running, but not Ready
	Exit      time.Duration // from SIGTERM to its exit, if it is left the time
	Finalizer bool          // somebody's finalizer keeps the object, whatever the grace period, until ChangePod takes it away

	Replacement *Replacement
}

// Replacement is what the pod's owner does when it loses the pod. A StatefulSet makes a pod of the same name, and a
// DaemonSet one of another, once the old one is gone; every other owner makes one as soon as the old one has its
// deletionTimestamp. The new pod is as the old one was, its Replacement too.
type Replacement struct {
	Node  string        // where it goes; the pod's own node for one that comes straight back, empty for nowhere yet
	Ready time.Duration // from when it is made to when it is Ready; until then it is Pending
}

// Ending is how a kubelet ended a pod.
type Ending struct {
	Pod     string // namespace/name
	UID     string
	Node    string
	SIGTERM time.Time
	Grace   time.Duration // what it was given when it got SIGTERM
	Exited  time.Time     // zero while it runs
	Killed  bool          // it got SIGKILL, or its machine ended, before it was done
}

// Shortening is a request that cut the time of a pod that was ending already.
type Shortening struct {
	Pod      string // namespace/name
	UID      string
	At       time.Time
	From, To time.Duration // the grace periods, both from the first request on
}

// Budget is a PodDisruptionBudget. It guards the pods of its namespace that are Owner's or whose labels Match.
type Budget struct {
	Namespace  string // "default" if it is empty
	Name       string
	Owner      string // the name of a controlling owner
	Match      func(labels map[string]string) bool
	Available  int           // minAvailable
	RetryAfter time.Duration // what comes with a refusal; the real API server says nothing
}

type clusterBudget struct {
	Budget
	// disrupted are the pods whose eviction was allowed and then failed on its precondition, by name. The allowance is
	// spent all the same until the disruption controller gives them up.
	disrupted map[string]time.Time
}

func (b *clusterBudget) guards(p *clusterPod) bool {
	return p.Namespace == b.Namespace &&
		(b.Owner != "" && b.Owner == p.Owner.Name || b.Match != nil && b.Match(p.Labels))
}

type clusterPod struct {
	Pod
	evicted bool          // it has the condition that an eviction writes
	began   time.Time     // when its deletion was first asked for
	granted time.Duration // its deletionGracePeriodSeconds
	killIn  time.Duration // from began to SIGKILL
	ending  *Ending       // once its kubelet has sent SIGTERM
	timer   *time.Timer   // its kubelet's, for the exit
}

func (p *clusterPod) copy() Pod {
	pod := p.Pod
	pod.Labels = maps.Clone(p.Labels)
	return pod
}

// dead notes that what was ending is no more.
func (p *clusterPod) dead() {
	if p.ending != nil && p.ending.Exited.IsZero() {
		p.ending.Exited, p.ending.Killed = time.Now(), true
	}
}

// AddPod adds a pod and returns it as it then is. One that is Terminating has just been asked to go by somebody else: with
// what is left until EndsBy or, if that is zero, with its own grace period.
func (c *Cluster) AddPod(p Pod) spot.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Namespace = cmp.Or(p.Namespace, "default")
	if c.pods[p.ID()] != nil {
		panic("sim: there is a pod " + p.ID() + " already")
	}
	return c.addPod(p).Pod.Pod
}

func (c *Cluster) addPod(p Pod) *clusterPod {
	terminating, endsBy := p.Terminating, p.EndsBy
	p.Terminating, p.EndsBy = false, time.Time{}
	p.UID = cmp.Or(p.UID, c.uid())
	p.Labels = maps.Clone(p.Labels)
	own := &clusterPod{Pod: p}
	c.pods[p.ID()] = own
	c.touch(own)
	if terminating {
		grace := p.Grace
		if !endsBy.IsZero() {
			grace = time.Until(endsBy)
		}
		c.terminate(own, grace)
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
	if p.Terminating && !p.Finalizer && p.granted == 0 {
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

// AddBudget adds a PodDisruptionBudget.
func (c *Cluster) AddBudget(b Budget) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.Namespace = cmp.Or(b.Namespace, "default")
	c.budgets = append(c.budgets, &clusterBudget{Budget: b, disrupted: map[string]time.Time{}})
}

// RemoveBudget removes the PodDisruptionBudgets of that name.
func (c *Cluster) RemoveBudget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.budgets = slices.DeleteFunc(c.budgets, func(b *clusterBudget) bool { return b.Name == name })
}

// OnEviction puts an admission webhook before evictions; nil admits. It must not call the cluster. It is asked about every
// eviction of a pod that is there, even one that would change nothing.
func (c *Cluster) OnEviction(hook func(spot.Pod) *spot.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.evictHook = hook
}

// OnDeletion puts an admission webhook before deletions; nil admits. It must not call the cluster. As in the API server,
// it is asked neither about evictions nor about deletions that would change nothing.
func (c *Cluster) OnDeletion(hook func(spot.Pod) *spot.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deleteHook = hook
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

// Shortenings are the requests that cut the time of pods that were ending already.
func (c *Cluster) Shortenings() []Shortening {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.shortenings)
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
			pods = append(pods, p.Pod.Pod)
		}
	}
	return pods
}

func (c *Cluster) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.request(ctx, "create", "pods/eviction", p.ID(), func() error { return c.evict(p, grace, exact) })
	if err != nil {
		return fmt.Errorf("evicting pod %s: %w", p.ID(), err)
	}
	return nil
}

// evict takes the API server's steps in its order: the webhooks, then the budget, and the preconditions last. So a guarded
// pod is refused even if it is not the one that is meant, and an eviction that fails on its precondition has spent an
// allowance.
func (c *Cluster) evict(asked spot.Pod, grace time.Duration, exact bool) error {
	p := c.pods[asked.ID()]
	if p == nil {
		return spot.ErrNotFound
	}
	if refusal := p.refusedBy(c.evictHook); refusal != nil {
		return refusal
	}
	spent, refusal := c.allowance(p)
	if refusal != nil {
		return refusal
	}
	if !p.is(asked, exact) {
		if spent != nil {
			spent.disrupted[p.Name] = time.Now()
		}
		return spot.ErrChanged
	}
	if !p.evicted {
		// The condition DisruptionTarget is a write of its own before the deletion.
		p.evicted = true
		c.touch(p)
	}
	c.terminate(p, grace)
	return nil
}

func (c *Cluster) Delete(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	err := c.request(ctx, "delete", "pods", p.ID(), func() error { return c.delete(p, grace, exact) })
	if err != nil {
		return fmt.Errorf("deleting pod %s: %w", p.ID(), err)
	}
	return nil
}

func (c *Cluster) delete(asked spot.Pod, grace time.Duration, exact bool) error {
	p := c.pods[asked.ID()]
	switch {
	case p == nil:
		return spot.ErrNotFound
	case !p.is(asked, exact):
		return spot.ErrChanged
	case p.pending(graceSeconds(grace)):
		return nil
	}
	if refusal := p.refusedBy(c.deleteHook); refusal != nil {
		return refusal
	}
	c.terminate(p, grace)
	return nil
}

// refusedBy asks a webhook about the pod.
func (p *clusterPod) refusedBy(hook func(spot.Pod) *spot.Refusal) *spot.Refusal {
	if hook == nil {
		return nil
	}
	return hook(p.Pod.Pod)
}

func (p *clusterPod) is(asked spot.Pod, exact bool) bool {
	return p.UID == asked.UID && (!exact || p.Version == asked.Version)
}

// allowance asks the budgets that guard the pod. It returns the one that would have to spend an allowance, if any.
func (c *Cluster) allowance(p *clusterPod) (*clusterBudget, *spot.Refusal) {
	if p.Finished || p.Pending || p.Terminating {
		return nil, nil
	}
	var guards []*clusterBudget
	for _, b := range c.budgets {
		if b.guards(p) {
			guards = append(guards, b)
		}
	}
	switch len(guards) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, &spot.Refusal{Code: 500,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}
	}
	b := guards[0]
	healthy := c.healthy(b)
	if p.Unready && healthy >= b.Available && b.Available > 0 {
		return nil, nil // it does not count, so losing it disrupts nothing
	}
	if healthy <= b.Available {
		return nil, &spot.Refusal{Code: 429, RetryAfter: b.RetryAfter, Message: fmt.Sprintf(
			"Cannot evict pod as it would violate the pod's disruption budget. The disruption budget %s needs %d healthy pods and has %d currently.",
			b.Name, b.Available, healthy)}
	}
	return b, nil
}

// healthy counts the budget's pods as the disruption controller does. Pods of a node without power count until they are
// deleted, as they do until the node lifecycle controller calls them unready.
func (c *Cluster) healthy(b *clusterBudget) (n int) {
	for _, p := range c.pods {
		disrupted, ok := b.disrupted[p.Name]
		if p.Terminating {
			delete(b.disrupted, p.Name)
		}
		if b.guards(p) && !p.Finished && !p.Pending && !p.Unready && !p.Terminating &&
			(!ok || time.Since(disrupted) >= clusterDisruptionTimeout) {
			n++
		}
	}
	return n
}

// pending reports whether a request with that grace period changes nothing: the pod is going, and no later.
func (p *clusterPod) pending(grace time.Duration) bool {
	return p.Terminating && p.granted > 0 && grace >= p.granted
}

// terminate does what the API server does about an accepted deletion. The first sets the deletionTimestamp; a later one
// can only bring it forward, and counts from the first.
func (c *Cluster) terminate(p *clusterPod, grace time.Duration) {
	grace = graceSeconds(grace)
	now := time.Now()
	first := !p.Terminating
	switch {
	case first:
		if p.Node == "" || p.Finished {
			grace = 0 // nothing runs that would need time
		}
		p.Terminating, p.began = true, now
		p.EndsBy = now.Add(grace).Truncate(time.Second)
		p.granted, p.killIn = grace, grace
	case p.pending(grace):
		return
	case p.granted > 0:
		c.shortenings = append(c.shortenings, Shortening{Pod: p.ID(), UID: p.UID, At: now, From: p.granted, To: grace})
		p.killIn = grace
		p.EndsBy = p.EndsBy.Add(grace - p.granted)
		p.granted = grace
		if p.EndsBy.Before(now) {
			p.EndsBy = now.Truncate(time.Second)
			if grace > 0 {
				p.granted = time.Second // still the kubelet's to end
			}
		}
	default:
		return // only a finalizer keeps it
	}
	c.touch(p)
	c.end(p)
	if first && !p.Mirror && !p.replacedWhenGone() {
		c.replace(p)
	}
	if grace == 0 && !p.Finalizer {
		c.remove(p)
	}
}

// graceSeconds is the grace period as the API takes it: in whole seconds, and for a negative one, one.
func graceSeconds(grace time.Duration) time.Duration {
	if grace < 0 {
		return time.Second
	}
	return grace.Truncate(time.Second)
}

// end is the kubelet: it sends SIGTERM to a pod that is to go, and plans its exit.
func (c *Cluster) end(p *clusterPod) {
	if p.Node == "" || p.Finished || c.off[p.Node] {
		return
	}
	exit := p.Exit
	if p.Pending || p.Mirror {
		exit = 0 // no container runs, or none that the object's end would end
	} else if p.ending == nil {
		p.ending = &Ending{Pod: p.ID(), UID: p.UID, Node: p.Node, SIGTERM: time.Now(), Grace: p.killIn}
		c.endings = append(c.endings, p.ending)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	killed := exit > p.killIn
	p.timer = time.AfterFunc(time.Until(p.began.Add(min(exit, p.killIn))), func() { c.exited(p, killed) })
}

// exited is what a kubelet says about a pod that it has ended: first that it is finished, then a deletion with no grace
// period, which brings the deletionTimestamp forward.
func (c *Cluster) exited(p *clusterPod, killed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[p.ID()] != p || p.Finished || c.off[p.Node] {
		return // it has gone, or its kubelet has, or a timer that was put off had fired already
	}
	if p.ending != nil {
		p.ending.Exited, p.ending.Killed = time.Now(), killed
	}
	if !p.Mirror {
		p.Finished = true
		c.touch(p)
	}
	p.granted, p.EndsBy = 0, time.Now().Truncate(time.Second)
	c.touch(p)
	if !p.Finalizer {
		c.remove(p)
	}
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
	if p.Mirror || p.replacedWhenGone() || !p.Terminating {
		c.replace(p)
	}
}

func (p *clusterPod) replacedWhenGone() bool {
	return p.Owner.Kind == "StatefulSet" || p.Owner.Kind == "DaemonSet"
}

// replace has the pod's owner, or for a static pod's picture its kubelet, make the next one.
func (c *Cluster) replace(old *clusterPod) {
	next := old.Pod
	next.UID, next.Terminating, next.EndsBy, next.Finished, next.Finalizer = "", false, time.Time{}, false, false
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
		case next.Owner.Kind == "DaemonSet" && c.nodes[next.Node] == nil:
			return // no node, no pod for it
		}
		p := c.addPod(next)
		if p.Pending && p.Node != "" {
			time.AfterFunc(ready, func() { c.ready(p) })
		}
	})
}

// ready is the kubelet's report that the pod has come up.
func (c *Cluster) ready(p *clusterPod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pods[p.ID()] == p && !p.Terminating && !c.off[p.Node] {
		p.Pending = false
		c.touch(p)
	}
}

// touch gives the pod a new version and tells those who follow it.
func (c *Cluster) touch(p *clusterPod) {
	p.Version = c.bump()
	c.tell(p, false)
}
