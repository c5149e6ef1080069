package spottest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// PodsOn lists the pods on a node.
func PodsOn(ctx context.Context, cluster spot.Cluster, node string) (pods []spot.Pod, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = cluster.FollowPods(ctx, node, func(ch spot.PodChange) {
		if !listed {
			listed, pods = true, ch.Pods
			cancel()
		}
	})
	if listed {
		err = nil
	}
	return pods, err
}

// VolumesOf lists the VolumeAttachments of a node.
func VolumesOf(ctx context.Context, cluster spot.Cluster, node string) (names []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := false
	err = cluster.FollowVolumes(ctx, node, func(attached []string) {
		if !listed {
			listed, names = true, attached
			cancel()
		}
	})
	if listed {
		err = nil
	}
	return names, err
}

// find returns the pod from a list of the pods on its node.
func find(t *testing.T, w World, node string, p spot.Pod) (spot.Pod, bool) {
	t.Helper()
	pods, err := PodsOn(t.Context(), w.Cluster(), node)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pods, func(other spot.Pod) bool { return other.UID == p.UID })
	if i < 0 {
		return spot.Pod{}, false
	}
	return pods[i], true
}

// listed waits until the pod is listed in that state: the list may come from a cache.
func listed(t *testing.T, w World, node string, p spot.Pod, state func(spot.Pod) bool) (got spot.Pod) {
	t.Helper()
	eventually(t, p.ID()+" is listed in the expected state", func() (ok bool) {
		got, ok = find(t, w, node, p)
		return ok && state(got)
	})
	return got
}

func anyState(spot.Pod) bool      { return true }
func terminating(p spot.Pod) bool { return p.Terminating }

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v; want %v", what, got, want)
	}
}

func wantDeletionBy(t *testing.T, p spot.Pod, want time.Time) {
	t.Helper()
	if !p.Terminating || p.DeletionTimestamp.Before(want.Add(-slack)) || p.DeletionTimestamp.After(want.Add(slack)) {
		t.Errorf("the pod is %+v; want it to end by about %s", p, want)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %s: %s", patience, what)
		}
	}
}

// follower follows a node's pods and records the changes.
type follower struct {
	mu       sync.Mutex
	recorded []spot.PodChange
}

// follow starts to follow a node's pods and returns after the first change. It reconnects until the test ends.
func follow(t *testing.T, w World, node string) *follower {
	t.Helper()
	f := &follower{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var last error
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			last = w.Cluster().FollowPods(ctx, node, func(c spot.PodChange) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.recorded = append(f.recorded, c)
			})
			if errors.Is(last, spot.ErrPermanent) {
				last = fmt.Errorf("following must be retryable: %w", last)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		last = nil
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if last != nil {
			t.Error(last)
		}
	})
	eventually(t, "the first look", func() bool { return len(f.changes()) > 0 })
	return f
}

func (f *follower) changes() []spot.PodChange {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.recorded)
}

func (f *follower) seen(p spot.Pod) bool {
	seen, _ := f.status(p)
	return seen
}

func (f *follower) gone(p spot.Pod) bool {
	seen, there := f.status(p)
	return seen && !there
}

// status reports whether the pod was ever seen, and whether it still exists. A pod is also gone if a complete list
// omits it.
func (f *follower) status(p spot.Pod) (seen, there bool) {
	for _, look := range f.changes() {
		has := slices.ContainsFunc(look.Pods, func(other spot.Pod) bool { return other.UID == p.UID })
		if has || look.All {
			there = has && !look.Gone
		}
		seen = seen || has
	}
	return seen, there
}

// terminating returns the first change in which the pod is terminating; at its exit, the kubelet moves the
// deletionTimestamp.
func (f *follower) terminating(p spot.Pod) (spot.Pod, bool) {
	for _, look := range f.changes() {
		for _, seen := range look.Pods {
			if seen.UID == p.UID && seen.Terminating && !look.Gone {
				return seen, true
			}
		}
	}
	return spot.Pod{}, false
}
