package spottest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// Cluster is an in-memory Kubernetes cluster. It models the API server, kubelets, workload controllers, and the
// controllers for disruption, taint eviction, volume attachment and pod garbage collection, as far as the handler can
// observe them. It implements spot.Cluster; other methods set up, disturb and inspect it.
//
// It is safe for concurrent use, uses the time package only and starts no goroutines, so it works in a testing/synctest
// bubble if it is created there.
type Cluster struct {
	mu      sync.Mutex
	version int64 // last resourceVersion
	serial  int   // last number used in a name or UID

	nodes       map[string]*spot.Node
	off         map[string]bool // nodes without power
	beforeWrite func(node string)

	evicting           map[string]bool // nodes whose pods the taint eviction controller deletes
	attachments        []*clusterAttachment
	attachmentsChanged chan struct{} // closed when attachments change

	claims    map[string]bool
	forbidden map[string]bool // by Forbid

	pods          map[string]*clusterPod // by namespace/name
	successors    map[string]int         // number of pods recreated under a name
	budgets       []Budget
	evictHook     func(spot.Pod) *spot.Refusal
	followers     []*clusterFollower
	nodeFollowers []*nodeFollower
	terminations  []*Termination
	shortenings   []Shortening
	events        []spot.KubeEvent

	requests     []*KubeRequest
	disturbances []*clusterDisturbance
}

var (
	_ spot.Cluster            = (*Cluster)(nil)
	_ spot.CordonedNodeLister = (*Cluster)(nil)
)

// NewCluster returns an empty cluster.
func NewCluster() *Cluster {
	return &Cluster{nodes: map[string]*spot.Node{}, off: map[string]bool{}, pods: map[string]*clusterPod{},
		successors: map[string]int{}, evicting: map[string]bool{}, claims: map[string]bool{},
		forbidden: map[string]bool{}, attachmentsChanged: make(chan struct{})}
}

// KubeRequest is a request to the API server.
type KubeRequest struct {
	Verb     string // get, list, watch, patch, create, delete
	Resource string // nodes, pods, pods/eviction, volumeattachments, nodeclaims, events
	Name     string // object name (pods: namespace/name); the node for lists and watches by node
	Asked    time.Time
	Answered time.Time // zero while pending; for a watch, when the stream started
	Err      error
}

// Requests returns all requests, in the order in which they were sent.
func (c *Cluster) Requests() []KubeRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]KubeRequest, len(c.requests))
	for i, r := range c.requests {
		all[i] = *r
	}
	return all
}

// Count returns the number of requests of a kind, including failed ones.
func (c *Cluster) Count(verb, resource string) int {
	return len(slices.DeleteFunc(c.Requests(),
		func(r KubeRequest) bool { return r.Verb != verb || r.Resource != resource }))
}

// Disturbance delays or fails matching requests. An empty Verb, Resource or Name matches any.
type Disturbance struct {
	Verb, Resource, Name string

	Times int           // number of requests affected; 0: all
	Delay time.Duration // before the request reaches the API server
	Err   error         // returned instead of the response; nil: only delay
	Lost  bool          // the request takes effect before Err is returned
}

type clusterDisturbance struct {
	Disturbance
	hits int
}

// Disturb adds a disturbance until end is called. Delays add up; the first error wins.
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

// request runs one request. do is called with the cluster locked.
func (c *Cluster) request(ctx context.Context, verb, resource, name string, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err // not sent
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

// disturb logs the request and combines the disturbances that match it.
func (c *Cluster) disturb(r *KubeRequest) (sum Disturbance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	matches := func(want, have string) bool { return want == "" || want == have }
	for _, d := range c.disturbances {
		if d.Times > 0 && d.hits == d.Times || !matches(d.Verb, r.Verb) || !matches(d.Resource, r.Resource) ||
			!matches(d.Name, r.Name) {
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

// bump returns the next resourceVersion. As in etcd, all objects share one counter.
func (c *Cluster) bump() string {
	c.version++
	return strconv.FormatInt(c.version, 10)
}

func (c *Cluster) uid() string {
	c.serial++
	return fmt.Sprintf("uid-%04d", c.serial)
}
