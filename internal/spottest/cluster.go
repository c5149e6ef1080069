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

// Cluster is a Kubernetes cluster in memory: what the API server, the kubelets, the workloads' controllers and those for
// disruption, taint eviction, attaching and garbage collection would do about nodes and pods, as far as a handler of
// interruptions can tell. It answers as spot.Cluster, and lets a test arrange the world, disturb it and read what was asked.
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

	evicting    map[string]bool // nodes whose pods the taint eviction controller deletes
	attachments []*clusterAttachment

	claims    map[string]bool
	forbidden map[string]bool // see Forbid

	pods        map[string]*clusterPod // by namespace/name
	successors  map[string]int         // how many an owner has made of that name after another had gone
	budgets     []Budget
	evictHook   func(spot.Pod) *spot.Refusal
	followers   []*clusterFollower
	endings     []*Ending
	shortenings []Shortening
	notes       []spot.KubeEvent

	requests     []*KubeRequest
	disturbances []*clusterDisturbance
}

var (
	_ spot.Cluster            = (*Cluster)(nil)
	_ spot.CordonedNodeLister = (*Cluster)(nil)
)

// NewCluster returns a cluster without nodes and pods.
func NewCluster() *Cluster {
	return &Cluster{nodes: map[string]*spot.Node{}, off: map[string]bool{}, pods: map[string]*clusterPod{},
		successors: map[string]int{}, evicting: map[string]bool{}, claims: map[string]bool{}, forbidden: map[string]bool{}}
}

// KubeRequest is a request to the API server.
type KubeRequest struct {
	Verb     string // get, list, watch, patch, create, delete
	Resource string // nodes, pods, pods/eviction, volumeattachments, nodeclaims, events
	Name     string // the object's, a pod's with its namespace; of what is listed or watched for a node, that node
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

// bump gives the next resourceVersion. As in etcd, all objects share one count.
func (c *Cluster) bump() string {
	c.version++
	return strconv.FormatInt(c.version, 10)
}

func (c *Cluster) uid() string {
	c.serial++
	return fmt.Sprintf("uid-%04d", c.serial)
}
