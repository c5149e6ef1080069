package handler_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/handler"
	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// killer passes requests on until it has passed on a number of them. Then it kills the invocation: it cancels its
// context and passes on nothing more.
type killer struct {
	spot.Cluster
	spot.Cloud
	kill context.CancelFunc

	mu   sync.Mutex
	left int
	dead bool
	sent []string
}

// request runs a request and kills the invocation after the last one.
func (k *killer) request(ctx context.Context, name string, run func() error) error {
	k.mu.Lock()
	if k.dead {
		k.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	k.sent = append(k.sent, name)
	k.mu.Unlock()
	err := run()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left--; k.left == 0 {
		k.dead = true
		k.kill()
	}
	if k.dead {
		return context.Canceled
	}
	return err
}

func (k *killer) NodeNamed(ctx context.Context, name string) (n spot.Node, err error) {
	err = k.request(ctx, "get nodes", func() (err error) { n, err = k.Cluster.NodeNamed(ctx, name); return err })
	return n, err
}

func (k *killer) ChangeNode(ctx context.Context, n spot.Node, change func(spot.Node) spot.Node) (after spot.Node, err error) {
	err = k.request(ctx, "patch nodes", func() (err error) { after, err = k.Cluster.ChangeNode(ctx, n, change); return err })
	return after, err
}

func (k *killer) FollowPods(ctx context.Context, node string, see func(spot.PodChange)) error {
	return k.Cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if ch.All {
			_ = k.request(ctx, "list pods", func() error { return nil })
		}
		see(ch)
	})
}

func (k *killer) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	return k.request(ctx, "create pods/eviction", func() error { return k.Cluster.Evict(ctx, p, grace, exact) })
}

func (k *killer) Disrupt(ctx context.Context, p spot.Pod) (after spot.Pod, err error) {
	err = k.request(ctx, "patch pods/status", func() (err error) { after, err = k.Cluster.Disrupt(ctx, p); return err })
	return after, err
}

func (k *killer) Delete(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	return k.request(ctx, "delete pods", func() error { return k.Cluster.Delete(ctx, p, grace, exact) })
}

func (k *killer) Record(ctx context.Context, e spot.KubeEvent) error {
	return k.request(ctx, "create events", func() error { return k.Cluster.Record(ctx, e) })
}

func (k *killer) Instance(ctx context.Context, id string) (i spot.Instance, err error) {
	err = k.request(ctx, "DescribeInstances", func() (err error) { i, err = k.Cloud.Instance(ctx, id); return err })
	return i, err
}

func (k *killer) Membership(ctx context.Context, id string) (m spot.Membership, err error) {
	err = k.request(ctx, "DescribeAutoScalingInstances", func() (err error) { m, err = k.Cloud.Membership(ctx, id); return err })
	return m, err
}

func (k *killer) Tag(ctx context.Context, id string, tags map[string]string) error {
	return k.request(ctx, "CreateTags", func() error { return k.Cloud.Tag(ctx, id, tags) })
}

func (k *killer) Detach(ctx context.Context, id, group string) error {
	return k.request(ctx, "DetachInstances", func() error { return k.Cloud.Detach(ctx, id, group) })
}

// TestKill kills an invocation after each of its requests. A second invocation one second later completes the work, and
// nothing is done twice.
func TestKill(t *testing.T) {
	for after := 1; ; after++ {
		var sent []string
		killed := false
		t.Run(fmt.Sprintf("after request %d", after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.pod("web-1")
				w.pod("long-1", grace(5*time.Minute), exit(70*time.Second))
				w.pod("db-0", notRecreated)
				w.budget("db", 1)
				ctx, kill := context.WithCancel(w.timeout(15 * time.Minute))
				defer kill()
				k := &killer{Cluster: w.cluster, Cloud: w.aws.Cloud(), kill: kill, left: after}
				first := &handler.Handler{Cluster: k, Cloud: k, Policy: w.handler.Policy}
				if _, err := first.Handle(ctx, w.warning(spot.SpotTerminate)); err == nil && !k.dead {
					sent = k.sent
					return
				}
				killed = true
				time.Sleep(time.Second)
				w.handle(spot.Drained)
				w.wantSame(k.sent)
			})
		})
		if !killed || t.Failed() {
			if after < 12 {
				t.Errorf("killed %d times, want one for each of %q", after-1, sent)
			}
			return
		}
	}
}

// wantSame checks the end state of an interruption, whatever was killed.
func (w *world) wantSame(sent []string) {
	w.Helper()
	last := sent[len(sent)-1]
	if !w.node().Unschedulable || w.isMember() {
		w.Errorf("after %s: got unschedulable %v, member %v", last, w.node().Unschedulable, w.isMember())
	}
	detached := 0
	for _, c := range w.aws.Calls("DetachInstances") {
		if c.Err == nil {
			detached++
		}
	}
	terminations := map[string]spottest.Termination{}
	for _, e := range w.cluster.Terminations() {
		if _, twice := terminations[e.Pod]; twice {
			w.Errorf("after %s: pod %s got SIGTERM twice", last, e.Pod)
		}
		terminations[e.Pod] = e
	}
	if detached != 1 || len(terminations) != 3 {
		w.Errorf("after %s: got %d detaches and %+v, want 1 and 3 pods", last, detached, terminations)
	}
	accepted := map[string]int{}
	for _, r := range w.cluster.Requests() {
		if r.Err == nil && (r.Resource == "pods/eviction" || r.Verb == "delete" && r.Resource == "pods") {
			if accepted[r.Name]++; accepted[r.Name] > 1 {
				w.Errorf("after %s: pod %s was evicted or deleted twice", last, r.Name)
			}
		}
	}
	for _, s := range w.cluster.Shortenings() {
		w.Errorf("after %s: pod %s: grace period cut from %s to %s", last, s.Pod, s.From, s.To)
	}
}
