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

// find looks for the pod in a list of its node's pods.
func find(t *testing.T, w World, node string, p spot.Pod) (spot.Pod, bool) {
	t.Helper()
	pods, err := w.Cluster().PodsOn(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pods, func(other spot.Pod) bool { return other.UID == p.UID })
	if i < 0 {
		return spot.Pod{}, false
	}
	return pods[i], true
}

// listed is the pod as a list shows it once it is in that state: a list may be a moment behind, for it may come from the
// API server's cache.
func listed(t *testing.T, w World, node string, p spot.Pod, state func(spot.Pod) bool) (got spot.Pod) {
	t.Helper()
	eventually(t, p.ID()+" is listed in the state that is expected", func() (ok bool) {
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

func wantEndsBy(t *testing.T, p spot.Pod, want time.Time) {
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

// follower follows a node's pods for a test and remembers each look.
type follower struct {
	mu    sync.Mutex
	looks []spot.PodChange
}

// follow begins to follow a node's pods and returns when it has seen them once. The stream is opened again whenever it
// breaks, until the test ends.
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
				f.looks = append(f.looks, c)
			})
			if errors.Is(last, spot.ErrPermanent) {
				last = fmt.Errorf("following must not be final: %w", last)
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
	return slices.Clone(f.looks)
}

func (f *follower) seen(p spot.Pod) bool {
	seen, _ := f.fate(p)
	return seen
}

func (f *follower) gone(p spot.Pod) bool {
	seen, there := f.fate(p)
	return seen && !there
}

// fate tells whether the pod was ever seen, and whether it is still there. It is gone, too, if a look at all pods that
// follows on a broken stream has it no more.
func (f *follower) fate(p spot.Pod) (seen, there bool) {
	for _, look := range f.changes() {
		has := slices.ContainsFunc(look.Pods, func(other spot.Pod) bool { return other.UID == p.UID })
		if has || look.All {
			there = has && !look.Gone
		}
		seen = seen || has
	}
	return seen, there
}

// terminating is the first look at the pod on its way to its end: the deletion with which a kubelet ends it brings its
// deletionTimestamp forward.
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
