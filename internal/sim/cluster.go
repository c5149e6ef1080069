package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// clusterPage is how many nodes one request for a list brings.
	clusterPage = 500

	// clusterConflicts is how often ChangeNode tries. Without an end, a node that is always written in between would stop
	// the clock of a synctest bubble.
	clusterConflicts = 10
)

// Cluster is a Kubernetes cluster in memory: what the API server, the disruption controller, the kubelets and the
// workloads' controllers would do about nodes and pods, as far as a handler of interruptions can tell. It answers as
// spot.Cluster, and lets a test arrange the world, disturb it and read what was asked.
//
// Every method may be called at any time from any goroutine. It measures time with the time package alone and runs no
// goroutine of its own, so it may live in a testing/synctest bubble; it must then be made in that bubble.
type Cluster struct {
	mu      sync.Mutex
	version int64 // the last resourceVersion given
	serial  int   // the last number given in a name or UID

	nodes  map[string]*spot.Node
	off    map[string]bool // nodes without power
	hurdle func(node string)

	pods        map[string]*clusterPod // by namespace/name
	budgets     []*clusterBudget
	evictHook   func(spot.Pod) *spot.Refusal
	deleteHook  func(spot.Pod) *spot.Refusal
	followers   []*clusterFollower
	endings     []*Ending
	shortenings []Shortening
	notes       []spot.Note

	requests     []*KubeRequest
	disturbances []*clusterDisturbance
}

var _ spot.Cluster = (*Cluster)(nil)

// NewCluster returns a cluster without nodes and pods.
func NewCluster() *Cluster {
	return &Cluster{nodes: map[string]*spot.Node{}, off: map[string]bool{}, pods: map[string]*clusterPod{}}
}

// KubeRequest is a request to the API server.
type KubeRequest struct {
	Verb     string // get, list, watch, patch, create, delete
	Resource string // nodes, pods, pods/eviction
	Name     string // the node, or the pod's namespace/name; for pods that are listed or watched, their node
	Asked    time.Time
	Answered time.Time // zero while it is under way; for a watch, when it began to stream
	Err      error     // why it failed
}

// Requests are all requests so far, in the order in which they were asked.
func (c *Cluster) Requests() []KubeRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]KubeRequest, len(c.requests))
	for i, r := range c.requests {
		all[i] = *r
	}
	return all
}

// Count is how many requests of a kind there were so far, whatever became of them.
func (c *Cluster) Count(verb, resource string) int {
	return len(slices.DeleteFunc(c.Requests(), func(r KubeRequest) bool { return r.Verb != verb || r.Resource != resource }))
}

// Disturbance is what goes wrong with requests: with those of the Verb, Resource and Name, of which an empty one stands
// for any.
type Disturbance struct {
	Verb, Resource, Name string

	Times int           // it hits that many requests; 0 for every one until it is taken away
	Delay time.Duration // how much later the request reaches the API server
	Err   error         // what the caller gets instead of an answer; nil to only delay
	Lost  bool          // only the answer is lost: the request is carried out, then the caller gets Err
}

type clusterDisturbance struct {
	Disturbance
	hits int
}

// Disturb disturbs requests that are asked from now on, until end is called. Disturbances add up: all delay, the first
// with an error fails.
func (c *Cluster) Disturb(d Disturbance) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := &clusterDisturbance{Disturbance: d}
	c.disturbances = append(c.disturbances, own)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.disturbances = slices.DeleteFunc(c.disturbances, func(d *clusterDisturbance) bool { return d == own })
	}
}

// request plays one request. do is what the API server does; it is called with the cluster locked.
func (c *Cluster) request(ctx context.Context, verb, resource, name string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err // a client does not even send it
	}
	r := &KubeRequest{Verb: verb, Resource: resource, Name: name, Asked: time.Now()}
	hit := c.disturb(r)
	err := clusterSleep(ctx, hit.Delay)

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
	case hit.Err != nil && !hit.Lost:
		err = hit.Err
	default:
		if err = do(); hit.Lost && hit.Err != nil {
			err = hit.Err
		}
	}
	r.Answered, r.Err = time.Now(), err
	return err
}

// disturb logs the request and sums up what hits it.
func (c *Cluster) disturb(r *KubeRequest) (sum Disturbance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	fits := func(want, have string) bool { return want == "" || want == have }
	for _, d := range c.disturbances {
		if d.Times > 0 && d.hits == d.Times || !fits(d.Verb, r.Verb) || !fits(d.Resource, r.Resource) || !fits(d.Name, r.Name) {
			continue
		}
		d.hits++
		sum.Delay += d.Delay
		if sum.Err == nil {
			sum.Err, sum.Lost = d.Err, d.Lost
		}
	}
	return sum
}

func clusterSleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// AddNode adds a node and returns it as it then is. It gets a UID if it has none.
func (c *Cluster) AddNode(n spot.Node) spot.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[n.Name] != nil {
		panic("sim: there is a node " + n.Name + " already")
	}
	n = cloneNode(n)
	if n.UID == "" {
		n.UID = c.uid()
	}
	n.Version = c.bump()
	c.nodes[n.Name] = &n
	return cloneNode(n)
}

// RemoveNode takes the Node object away. Its pods stay, as they do until the pod garbage collector finds them.
func (c *Cluster) RemoveNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, name)
	c.bump()
}

// Node is the node as it is now; false if there is none.
func (c *Cluster) Node(name string) (spot.Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		return spot.Node{}, false
	}
	return cloneNode(*n), true
}

// WriteNode changes a node as somebody else would: without a request of ours, and with a new version.
func (c *Cluster) WriteNode(name string, change func(*spot.Node)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[name]
	if n == nil {
		panic("sim: there is no node " + name)
	}
	change(n)
	n.Version = c.bump()
}

// BeforeNodeWrite calls hook in ChangeNode between the decision and each write, which is where a WriteNode causes a
// conflict. The hook may call the cluster.
func (c *Cluster) BeforeNodeWrite(hook func(node string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurdle = hook
}

// PowerOff ends a node's machine: its kubelet does nothing from now on, what was ending there is dead, and its pods
// stay as they are until somebody deletes them with a grace period of 0.
func (c *Cluster) PowerOff(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off[node] = true
	for _, p := range c.pods {
		if p.Node == node {
			p.dead()
		}
	}
}

func (c *Cluster) NodeNamed(ctx context.Context, name string) (spot.Node, error) {
	var n spot.Node
	err := c.request(ctx, "get", "nodes", name, func() error {
		have := c.nodes[name]
		if have == nil {
			return spot.ErrNotFound
		}
		n = cloneNode(*have)
		return nil
	})
	if err != nil {
		return spot.Node{}, fmt.Errorf("reading node %s: %w", name, err)
	}
	return n, nil
}

func (c *Cluster) NodeOf(ctx context.Context, instanceID string) (spot.Node, error) {
	for after := ""; ; {
		var page []spot.Node
		err := c.request(ctx, "list", "nodes", "", func() error {
			for _, name := range slices.Sorted(maps.Keys(c.nodes)) {
				if name > after && len(page) < clusterPage {
					page = append(page, cloneNode(*c.nodes[name]))
				}
			}
			return nil
		})
		if err != nil {
			return spot.Node{}, fmt.Errorf("listing nodes: %w", err)
		}
		if i := slices.IndexFunc(page, func(n spot.Node) bool { return n.IsInstance(instanceID) }); i >= 0 {
			return page[i], nil
		}
		if len(page) < clusterPage {
			return spot.Node{}, fmt.Errorf("looking for the node of %s: %w", instanceID, spot.ErrNotFound)
		}
		after = page[len(page)-1].Name
	}
}

// ChangeNode takes a node of the same name but another UID for another node, as every write to Kubernetes should.
func (c *Cluster) ChangeNode(ctx context.Context, n spot.Node, change func(spot.Node) spot.Node) (spot.Node, error) {
	for range clusterConflicts {
		want := change(cloneNode(n))
		if sameNode(n, want) {
			return n, nil
		}
		c.mu.Lock()
		hurdle := c.hurdle
		c.mu.Unlock()
		if hurdle != nil {
			hurdle(n.Name)
		}
		now, err := c.patchNode(ctx, n, want)
		if err == nil {
			return now, nil
		}
		if !errors.Is(err, spot.ErrChanged) {
			return spot.Node{}, fmt.Errorf("changing node %s: %w", n.Name, err)
		}
		if now, err = c.NodeNamed(ctx, n.Name); err != nil {
			return spot.Node{}, err
		}
		if now.UID != n.UID {
			return spot.Node{}, fmt.Errorf("changing node %s, which is another now: %w", n.Name, spot.ErrNotFound)
		}
		n = now
	}
	return spot.Node{}, fmt.Errorf("changing node %s: somebody else wrote in between %d times", n.Name, clusterConflicts)
}

func (c *Cluster) patchNode(ctx context.Context, n, want spot.Node) (now spot.Node, err error) {
	err = c.request(ctx, "patch", "nodes", n.Name, func() error {
		have := c.nodes[n.Name]
		switch {
		case have == nil:
			return spot.ErrNotFound
		case have.Version != n.Version:
			return spot.ErrChanged
		}
		want = cloneNode(want)
		have.Labels, have.Annotations, have.Taints = want.Labels, want.Annotations, want.Taints
		have.Unschedulable = want.Unschedulable
		have.Version = c.bump()
		now = cloneNode(*have)
		return nil
	})
	return now, err
}

// bump gives the next resourceVersion. As in etcd, all objects share one count.
func (c *Cluster) bump() string {
	c.version++
	return strconv.FormatInt(c.version, 10)
}

func (c *Cluster) uid() string {
	c.serial++
	return fmt.Sprintf("uid-%04d", c.serial)
}

func cloneNode(n spot.Node) spot.Node {
	n.Labels, n.Annotations, n.Taints = maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
	return n
}

// sameNode compares what ChangeNode may write.
func sameNode(a, b spot.Node) bool {
	return a.Unschedulable == b.Unschedulable && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		slices.EqualFunc(a.Taints, b.Taints, func(a, b spot.Taint) bool {
			return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect && a.TimeAdded.Equal(b.TimeAdded)
		})
}
