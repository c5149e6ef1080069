package spottest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// ClusterUnderTest is an implementation of spot.Cluster that the contract is run on.
type ClusterUnderTest interface {
	spot.Cluster
	spot.CordonedNodeLister
	// Allowed asks whether we may do something; reason is why, as far as it is known.
	Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error)
}

// World lets the contract arrange a cluster. Its methods end the test if they fail.
type World interface {
	// Cluster may do what deploy's manifests allow, and nothing else.
	Cluster() ClusterUnderTest
	// AddNode adds a node of a name and instance of its own, with a working kubelet.
	AddNode(t *testing.T) spot.Node
	// AddPod adds a pod of a name of its own that nobody replaces, waits until it is Running and Ready, and returns it
	// as it then is.
	AddPod(t *testing.T, p PodSpec) spot.Pod
	// AddBudget has a budget with that minAvailable guard the pods of the app that are there, until it is lifted.
	AddBudget(t *testing.T, app string, minAvailable int) (lift func())
	// SIGTERM is what the pod's kubelet has recorded; false if it has not sent it.
	SIGTERM(p spot.Pod) (SIGTERM, bool)
	// Cordon makes a node unschedulable as a program of that name does.
	Cordon(t *testing.T, node, manager string)
	// PowerOff ends a node's machine, and its kubelet with it.
	PowerOff(t *testing.T, node string)
	// Release takes a pod's finalizers away.
	Release(t *testing.T, p spot.Pod)
	// AddClaim adds a NodeClaim of a name of its own, which owns the node if one is named.
	AddClaim(t *testing.T, node string) (name string)
	// HasClaim reports whether the NodeClaim is there.
	HasClaim(t *testing.T, name string) bool
}

// PodSpec is a pod to be added.
type PodSpec struct {
	Node  string
	App   string        // what a budget knows it by; may be empty
	Grace time.Duration // its terminationGracePeriodSeconds
	Exit  time.Duration // from SIGTERM to its exit

	Volume      bool   // it mounts a volume that nobody else uses
	EmptyDir    bool   // on the node's disk
	Finalizer   string // may be empty
	Annotations map[string]string
}

// SIGTERM is how a pod was asked to exit.
type SIGTERM struct {
	At    time.Time
	Grace time.Duration
}

const (
	// patience is how long the contract waits for what others do: a kubelet, the disruption controller, a watch.
	patience = 20 * time.Second

	// slack is how far a deletion timestamp may be off: it has whole seconds, and a request takes its time.
	slack = 2 * time.Second
)

// ClusterContract runs every point of the contract as a subtest. within has to call check once, with a World of its own
// that ends with t; it may do so in a bubble of testing/synctest.
func ClusterContract(t *testing.T, within func(t *testing.T, check func(*testing.T, World))) {
	for _, point := range []struct {
		name  string
		check func(*testing.T, World)
	}{
		{"a node is found by its name and by its instance", nodesAreFound},
		{"a change of a node is written once", nodeIsChangedOnce},
		{"a change of a node goes on from what somebody else has written", nodeConflict},
		{"a change of a node that is gone is not found", nodeGone},
		{"the pods of a node are listed", podsAreListed},
		{"an evicted pod ends with its grace period, and is followed to its end", evictedPodEnds},
		{"a process that does not exit is killed at the end of its grace period", processIsKilled},
		{"a grace period is rounded down to whole seconds", graceInSeconds},
		{"a budget refuses an eviction until it is lifted", budgetRefuses},
		{"a deletion goes past the budget", deletionPassesBudget},
		{"two budgets refuse as an error of the server", twoBudgets},
		{"another pod's UID is a change", otherUID},
		{"a pod that is gone is not found", podGone},
		{"an exact request for an old version is a change, and shortens nothing", exactShortensNothing},
		{"an exact request for the present version is taken", exactIsTaken},
		{"a request that is not exact shortens the grace period of a pod that is ending", inexactShortens},
		{"a request for more time gives none", longerChangesNothing},
		{"pods that arrive late are seen", lateArrivals},
		{"following ends with its context", followingEnds},
		{"a pod tells what it loses and what holds it", podTells},
		{"a pod tells who began to end it", podTellsWhoEndsIt},
		{"a finalizer keeps a pod that has ended", finalizerKeeps},
		{"without a grace period a pod is removed at once", noGraceRemoves},
		{"a node tells who cordoned it", nodeTellsWhoCordoned},
		{"a node tells the NodeClaim that owns it", nodeTellsClaim},
		{"a NodeClaim is deleted", claimIsDeleted},
		{"nodes that carry the draining label are listed", markedNodes},
		{"permissions are reported", allowedIsTold},
		{"the node that is meant is deleted", nodeIsDeleted},
		{"a volume is attached until the pod has left", volumeDetaches},
		{"without power a volume stays attached until the node is out of service", volumeStays},
		{"a node that is out of service loses its pods", outOfService},
	} {
		t.Run(strings.ReplaceAll(point.name, " ", "_"), func(t *testing.T) {
			within(t, point.check)
		})
	}
}

// request is Evict or Delete.
type request func(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error

// both are the two ways to ask for a pod's end, for what is true of either.
func both(w World) map[string]request {
	return map[string]request{"Evict": w.Cluster().Evict, "Delete": w.Cluster().Delete}
}

func nodesAreFound(t *testing.T, w World) {
	w.AddNode(t)
	n := w.AddNode(t)
	instance := n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]

	for how, find := range map[string]func() (spot.Node, error){
		"NodeNamed": func() (spot.Node, error) { return w.Cluster().NodeNamed(t.Context(), n.Name) },
		"NodeOf":    func() (spot.Node, error) { return w.Cluster().NodeOf(t.Context(), instance) },
	} {
		got, err := find()
		if err != nil || got.Name != n.Name || got.UID != n.UID || got.ProviderID != n.ProviderID || got.Version == "" {
			t.Errorf("%s: got %+v, %v; want %+v", how, got, err, n)
		}
	}
	_, err := w.Cluster().NodeNamed(t.Context(), "no-such-node")
	wantError(t, "NodeNamed of no node", err, spot.ErrNotFound)
	_, err = w.Cluster().NodeOf(t.Context(), "i-0000000000000dead")
	wantError(t, "NodeOf no node's instance", err, spot.ErrNotFound)
}

// closed is a change of a node that touches everything that may be changed.
func closed(n spot.Node) spot.Node {
	n.Unschedulable = true
	n.Labels = with(n.Labels, "kops-spot.test/label", "a")
	n.Annotations = with(n.Annotations, "kops-spot.test/annotation", "b")
	if !slices.ContainsFunc(n.Taints, isTestTaint) {
		n.Taints = append(slices.Clone(n.Taints), spot.Taint{Key: "kops-spot.test/taint", Value: "c", Effect: "NoSchedule"})
	}
	return n
}

func isTestTaint(t spot.Taint) bool {
	return t.Key == "kops-spot.test/taint" && t.Value == "c" && t.Effect == "NoSchedule"
}

func isClosed(n spot.Node) bool {
	return n.Unschedulable && n.Labels["kops-spot.test/label"] == "a" &&
		n.Annotations["kops-spot.test/annotation"] == "b" && slices.ContainsFunc(n.Taints, isTestTaint)
}

func with(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}

func nodeIsChangedOnce(t *testing.T, w World) {
	added := w.AddNode(t)
	n, err := w.Cluster().NodeNamed(t.Context(), added.Name)
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.Cluster().ChangeNode(t.Context(), n, closed)
	if err != nil || !isClosed(first) || first.Version == n.Version {
		t.Fatalf("got %+v, %v; want it closed and with a new version", first, err)
	}
	again, err := w.Cluster().ChangeNode(t.Context(), first, closed)
	if err != nil || !isClosed(again) || again.Version != first.Version {
		t.Errorf("the same change again: got %+v, %v; want nothing written", again, err)
	}
	opened, err := w.Cluster().ChangeNode(t.Context(), again, func(n spot.Node) spot.Node {
		n.Unschedulable = false
		n.Labels, n.Annotations = with(n.Labels, "kops-spot.test/label", ""), with(n.Annotations, "kops-spot.test/annotation", "")
		delete(n.Labels, "kops-spot.test/label")
		delete(n.Annotations, "kops-spot.test/annotation")
		n.Taints = slices.DeleteFunc(slices.Clone(n.Taints), isTestTaint)
		return n
	})
	_, label := opened.Labels["kops-spot.test/label"]
	_, annotation := opened.Annotations["kops-spot.test/annotation"]
	if err != nil || opened.Unschedulable || label || annotation || slices.ContainsFunc(opened.Taints, isTestTaint) {
		t.Errorf("taking it all away: got %+v, %v", opened, err)
	}
}

func nodeConflict(t *testing.T, w World) {
	added := w.AddNode(t)
	old, err := w.Cluster().NodeNamed(t.Context(), added.Name)
	if err != nil {
		t.Fatal(err)
	}
	somebody := func(n spot.Node) spot.Node {
		n.Labels = with(n.Labels, "kops-spot.test/somebody", "else")
		return n
	}
	if _, err := w.Cluster().ChangeNode(t.Context(), old, somebody); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := w.Cluster().ChangeNode(ctx, old, closed)
	if err != nil || !isClosed(got) || got.Labels["kops-spot.test/somebody"] != "else" {
		t.Errorf("got %+v, %v; want both changes", got, err)
	}
}

func nodeGone(t *testing.T, w World) {
	n := w.AddNode(t)
	n.Name += "-gone"
	_, err := w.Cluster().ChangeNode(t.Context(), n, closed)
	wantError(t, "ChangeNode", err, spot.ErrNotFound)
}

func podsAreListed(t *testing.T, w World) {
	here, there := w.AddNode(t), w.AddNode(t)
	a := w.AddPod(t, PodSpec{Node: here.Name, Grace: 30 * time.Second})
	b := w.AddPod(t, PodSpec{Node: here.Name, Grace: 7 * time.Second})
	w.AddPod(t, PodSpec{Node: there.Name})

	for _, want := range []spot.Pod{a, b} {
		got := listed(t, w, here.Name, want, anyState)
		if got.ID() != want.ID() || got.GracePeriod != want.GracePeriod || got.Terminating || got.Finished || got.Version == "" {
			t.Errorf("got %+v; want %+v", got, want)
		}
	}
	pods, err := w.Cluster().PodsOn(t.Context(), here.Name)
	if err != nil || len(pods) != 2 {
		t.Errorf("got %+v, %v; want %s and %s", pods, err, a.ID(), b.ID())
	}
	if pods, err := w.Cluster().PodsOn(t.Context(), "no-such-node"); err != nil || len(pods) != 0 {
		t.Errorf("of no node: got %+v, %v; want none", pods, err)
	}
}

func evictedPodEnds(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: time.Second})
	f := follow(t, w, n.Name)

	asked := time.Now()
	if err := w.Cluster().Evict(t.Context(), p, 25*time.Second, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone", func() bool { return f.gone(p) })
	seen, ok := f.terminating(p)
	if !ok {
		t.Fatalf("it was gone and not terminating before: %+v", f.changes())
	}
	wantEndsBy(t, seen, asked.Add(25*time.Second))
	term, ok := w.SIGTERM(p)
	if !ok || term.Grace != 25*time.Second || term.At.Before(asked.Add(-slack)) || term.At.After(asked.Add(slack)) {
		t.Errorf("SIGTERM: got %+v, %v; want it at %s with 25 s", term, ok, asked)
	}
}

func processIsKilled(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: time.Hour, Exit: time.Hour})
	f := follow(t, w, n.Name)

	asked := time.Now()
	if err := w.Cluster().Delete(t.Context(), p, 5*time.Second, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod is gone", func() bool { return f.gone(p) })
	if took := time.Since(asked); took < 5*time.Second-slack {
		t.Errorf("it was gone after %s; want its 5 s", took)
	}
}

func graceInSeconds(t *testing.T, w World) {
	for name, ask := range both(w) {
		n := w.AddNode(t)
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: 4 * time.Second})
		if err := ask(t.Context(), p, 9*time.Second+900*time.Millisecond, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, name+": SIGTERM", func() bool { _, ok := w.SIGTERM(p); return ok })
		if term, _ := w.SIGTERM(p); term.Grace != 9*time.Second {
			t.Errorf("%s with 9.9 s: SIGTERM with %s; want 9 s", name, term.Grace)
		}
	}
}

func budgetRefuses(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, App: "guarded", Grace: 30 * time.Second})
	lift := w.AddBudget(t, "guarded", 1)

	var refusal *spot.Refusal
	err := w.Cluster().Evict(t.Context(), p, 5*time.Second, false)
	if !errors.As(err, &refusal) || refusal.Code != 429 || !strings.Contains(refusal.Message, "disruption budget") {
		t.Fatalf("got %v; want a refusal with 429 that speaks of the disruption budget", err)
	}
	if got := listed(t, w, n.Name, p, anyState); got.Terminating {
		t.Errorf("the pod is now %+v; want it untouched", got)
	}
	lift()
	eventually(t, "the eviction is accepted", func() bool {
		return w.Cluster().Evict(t.Context(), p, 5*time.Second, false) == nil
	})
}

func deletionPassesBudget(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, App: "guarded", Grace: 30 * time.Second, Exit: 2 * time.Second})
	w.AddBudget(t, "guarded", 1)

	asked := time.Now()
	if err := w.Cluster().Delete(t.Context(), p, 10*time.Second, false); err != nil {
		t.Fatal(err)
	}
	wantEndsBy(t, listed(t, w, n.Name, p, terminating), asked.Add(10*time.Second))
}

func twoBudgets(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, App: "guarded", Grace: 30 * time.Second})
	w.AddBudget(t, "guarded", 0)
	w.AddBudget(t, "guarded", 0)

	var refusal *spot.Refusal
	if err := w.Cluster().Evict(t.Context(), p, 5*time.Second, false); !errors.As(err, &refusal) || refusal.Code != 500 {
		t.Errorf("got %v; want a refusal with 500", err)
	}
}

func otherUID(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second})
	other := p
	other.UID = "00000000-0000-0000-0000-00000000dead"
	for name, ask := range both(w) {
		wantError(t, name, ask(t.Context(), other, 5*time.Second, false), spot.ErrChanged)
	}
	if got := listed(t, w, n.Name, p, anyState); got.Terminating {
		t.Errorf("the pod is now %+v; want it untouched", got)
	}
}

func podGone(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second})
	if err := w.Cluster().Delete(t.Context(), p, 0, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is listed no more", func() bool { _, ok := find(t, w, n.Name, p); return !ok })
	for name, ask := range both(w) {
		wantError(t, name, ask(t.Context(), p, 5*time.Second, false), spot.ErrNotFound)
		wantError(t, name+", exact", ask(t.Context(), p, 5*time.Second, true), spot.ErrNotFound)
	}
}

func exactShortensNothing(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: time.Hour, Exit: time.Minute})

	asked := time.Now()
	if err := w.Cluster().Evict(t.Context(), p, time.Hour, false); err != nil {
		t.Fatal(err)
	}
	for name, ask := range both(w) {
		wantError(t, name, ask(t.Context(), p, time.Second, true), spot.ErrChanged)
	}
	wantEndsBy(t, listed(t, w, n.Name, p, terminating), asked.Add(time.Hour))
}

func exactIsTaken(t *testing.T, w World) {
	n := w.AddNode(t)
	for name, ask := range both(w) {
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: 2 * time.Second})
		// A kubelet may still be reporting about a young pod.
		eventually(t, name+" is taken", func() bool {
			present, ok := find(t, w, n.Name, p)
			return ok && ask(t.Context(), present, 10*time.Second, true) == nil
		})
		listed(t, w, n.Name, p, terminating)
	}
}

// inexactShortens is why a request may be exact: a pod that its owner has begun to end with an hour is killed after
// seconds by somebody who asks later with less, and gets less than was asked for, since that counts from the first
// request.
func inexactShortens(t *testing.T, w World) {
	for name, ask := range both(w) {
		n := w.AddNode(t)
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: time.Hour, Exit: time.Hour})
		f := follow(t, w, n.Name)

		asked := time.Now()
		if err := w.Cluster().Delete(t.Context(), p, time.Hour, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(slack)
		if err := ask(t.Context(), p, 6*time.Second, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		endsBy := asked.Add(6 * time.Second)
		shortened := listed(t, w, n.Name, p, func(p spot.Pod) bool { return p.DeletionTimestamp.Before(asked.Add(time.Minute)) })
		wantEndsBy(t, shortened, endsBy)
		eventually(t, name+": the pod is gone", func() bool { return f.gone(p) })
		if time.Now().Before(endsBy.Add(-slack)) {
			t.Errorf("%s: it is gone before %s", name, endsBy)
		}
	}
}

func longerChangesNothing(t *testing.T, w World) {
	for name, ask := range both(w) {
		n := w.AddNode(t)
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: time.Hour, Exit: 10 * time.Second})
		asked := time.Now()
		for _, grace := range []time.Duration{20 * time.Second, time.Hour} {
			if err := ask(t.Context(), p, grace, false); err != nil {
				t.Fatalf("%s with %s: %v", name, grace, err)
			}
		}
		wantEndsBy(t, listed(t, w, n.Name, p, terminating), asked.Add(20*time.Second))
	}
}

func lateArrivals(t *testing.T, w World) {
	here, there := w.AddNode(t), w.AddNode(t)
	early := w.AddPod(t, PodSpec{Node: here.Name})
	listed(t, w, here.Name, early, anyState)
	f := follow(t, w, here.Name)
	if first := f.changes()[0]; !first.All || len(first.Pods) != 1 || first.Pods[0].UID != early.UID {
		t.Errorf("the first look is %+v; want all pods, which is %s", first, early.ID())
	}
	elsewhere := w.AddPod(t, PodSpec{Node: there.Name})
	late := w.AddPod(t, PodSpec{Node: here.Name})
	eventually(t, "the late pod is seen", func() bool { return f.seen(late) })
	if f.seen(elsewhere) {
		t.Error("a pod of another node was seen")
	}
}

func followingEnds(t *testing.T, w World) {
	n := w.AddNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	looks := make(chan spot.PodChange, 100)
	go func() {
		ended <- w.Cluster().FollowPods(ctx, n.Name, func(c spot.PodChange) { looks <- c })
	}()
	if first := <-looks; !first.All || len(first.Pods) != 0 {
		t.Errorf("the first look at an empty node is %+v; want all of no pods", first)
	}
	cancel()
	select {
	case err := <-ended:
		if errors.Is(err, spot.ErrPermanent) {
			t.Errorf("got %v; want an error after which it may be called again, or none", err)
		}
	case <-time.After(patience):
		t.Error("it goes on")
	}
}
