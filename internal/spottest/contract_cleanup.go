package spottest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// outage is the taint for a node whose instance is known to be stopped.
var outage = spot.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: "NoExecute"}

// while is how long the contract checks that something does not change.
const while = 3 * time.Second

func nodeIsDeleted(t *testing.T, w World) {
	n := w.AddNode(t)
	other := n
	other.UID = "00000000-0000-0000-0000-00000000dead"
	wantError(t, "another node's UID", w.Cluster().DeleteNode(t.Context(), other), spot.ErrChanged)
	if _, err := w.Cluster().NodeNamed(t.Context(), n.Name); err != nil {
		t.Fatalf("then: %v; want the node untouched", err)
	}
	// Writes by others must not prevent the deletion.
	if _, err := w.Cluster().ChangeNode(t.Context(), n, changed); err != nil {
		t.Fatal(err)
	}
	if err := w.Cluster().DeleteNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	_, err := w.Cluster().NodeNamed(t.Context(), n.Name)
	wantError(t, "then NodeNamed", err, spot.ErrNotFound)
	wantError(t, "a node that is gone", w.Cluster().DeleteNode(t.Context(), n), spot.ErrNotFound)
}

func volumeDetaches(t *testing.T, w World) {
	n, other := w.AddNode(t), w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: time.Second, Volume: true})
	if !p.Volumes {
		t.Errorf("the pod is %+v; want it to have volumes", p)
	}
	eventually(t, "the volume is attached", func() bool { return attached(t, w, n) == 1 })
	if attachments(t, w, n) != 1 || attachments(t, w, other) != 0 {
		t.Errorf("%d attachments, and %d of another node; want 1 and 0", attachments(t, w, n), attachments(t, w, other))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan int, 10)
	go func() {
		_ = w.Cluster().FollowVolumes(ctx, n.Name, func(attached []string) { seen <- len(attached) })
	}()
	if got := <-seen; got != 1 {
		t.Errorf("got %d attachments first, want 1", got)
	}
	if err := w.Cluster().Evict(t.Context(), p, 10*time.Second, false); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != 0 {
		t.Errorf("got %d attachments then, want 0", got)
	}
	eventually(t, "the volume is detached", func() bool { return attachments(t, w, n) == 0 && attached(t, w, n) == 0 })
	if _, ok := w.SIGTERM(p); !ok {
		t.Error("it was detached before the pod got SIGTERM")
	}
}

func volumeStays(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Volume: true})
	eventually(t, "the volume is attached", func() bool { return attached(t, w, n) == 1 })
	w.PowerOff(t, n.Name)
	if err := w.Cluster().Delete(t.Context(), p, 0, false); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if attachments(t, w, n) != 1 || attached(t, w, n) != 1 {
			t.Fatal("the volume was detached, though it may still be in use")
		}
	}
	takeOutOfService(t, w, n)
	eventually(t, "the volume is detached", func() bool { return attachments(t, w, n) == 0 && attached(t, w, n) == 0 })
}

func outOfService(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second})
	early := w.AddPod(t, PodSpec{Node: n.Name, Grace: time.Hour, Exit: time.Hour})
	if err := w.Cluster().Evict(t.Context(), early, time.Hour, false); err != nil {
		t.Fatal(err)
	}
	w.PowerOff(t, n.Name)
	takeOutOfService(t, w, n)

	ended := func(p spot.Pod) bool { return p.Terminating && p.DisruptedBy == "DeletionByTaintManager" }
	if got := listed(t, w, n.Name, p, ended); got.Finished {
		t.Errorf("the pod is %+v; want it unfinished", got)
	}
	listed(t, w, n.Name, early, ended) // the taint replaces the first reason
	for _, p := range []spot.Pod{p, early} {
		if err := w.Cluster().Delete(t.Context(), p, 0, false); err != nil {
			t.Fatal(err)
		}
		wantError(t, "then", w.Cluster().Delete(t.Context(), p, 0, false), spot.ErrNotFound)
	}
}

func takeOutOfService(t *testing.T, w World, n spot.Node) {
	t.Helper()
	_, err := w.Cluster().ChangeNode(t.Context(), n, func(n spot.Node) spot.Node {
		n.Taints = append(slices.Clone(n.Taints), outage)
		return n
	})
	if err != nil {
		t.Fatal(err)
	}
}

func attachments(t *testing.T, w World, n spot.Node) int {
	t.Helper()
	names, err := VolumesOf(t.Context(), w.Cluster(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(slices.Compact(names)) != len(names) || slices.Contains(names, "") {
		t.Errorf("got %q; want a name for each", names)
	}
	return len(names)
}

// attached returns the number of attached volumes in the node status.
func attached(t *testing.T, w World, n spot.Node) int {
	t.Helper()
	return len(read(t, w, n).AttachedVolumes)
}

func read(t *testing.T, w World, n spot.Node) spot.Node {
	t.Helper()
	now, err := w.Cluster().NodeNamed(t.Context(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	return now
}
