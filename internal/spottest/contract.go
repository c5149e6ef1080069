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

// ClusterUnderTest is an implementation of spot.Cluster to test.
type ClusterUnderTest interface {
	spot.Cluster
	spot.CordonedNodeLister
	// Allowed reports whether we may do something, and why if the server says so.
	Allowed(ctx context.Context, verb, group, resource, subresource string) (allowed bool, reason string, err error)
}

// World sets up a cluster for the contract. Its methods fail the test on errors.
type World interface {
	// Cluster has the permissions of the manifests in deploy/ and no others.
	Cluster() ClusterUnderTest
	// AddNode adds a node with a unique name and instance and a working kubelet.
	AddNode(t *testing.T) spot.Node
	// AddPod adds a pod with a unique name and no owner, waits until it is Running and Ready, and returns it.
	AddPod(t *testing.T, p PodSpec) spot.Pod
	// AddBudget adds a budget with that minAvailable for the existing pods of the app.
	AddBudget(t *testing.T, app string, minAvailable int) (lift func())
	// SIGTERM returns what the pod's kubelet recorded; false before it has sent SIGTERM.
	SIGTERM(p spot.Pod) (SIGTERM, bool)
	// Cordon makes a node unschedulable with that field manager.
	Cordon(t *testing.T, node, manager string)
	// PowerOff stops the node's instance and its kubelet.
	PowerOff(t *testing.T, node string)
	// Release removes the pod's finalizers.
	Release(t *testing.T, p spot.Pod)
	// AddClaim adds a NodeClaim with a unique name, which owns the node if there is one.
	AddClaim(t *testing.T, node string) (name string)
	// HasClaim reports whether the NodeClaim exists.
	HasClaim(t *testing.T, name string) bool
}

// PodSpec is a pod to add.
type PodSpec struct {
	Node  string
	App   string        // selected by budgets; may be empty
	Grace time.Duration // terminationGracePeriodSeconds
	Exit  time.Duration // from SIGTERM to exit

	Volume      bool   // mounts a volume of its own
	EmptyDir    bool   // on the node's disk
	Finalizer   string // may be empty
	Annotations map[string]string
}

// SIGTERM is a recorded SIGTERM.
type SIGTERM struct {
	At    time.Time
	Grace time.Duration
}

const (
	// patience is how long the contract waits for a kubelet, a controller or a watch.
	patience = 20 * time.Second

	// slack is the tolerance for deletion timestamps, which are whole seconds.
	slack = 2 * time.Second
)

// ClusterContract runs each rule of the contract as a subtest. within must call check once, with a new World; it may do
// so in a testing/synctest bubble.
func ClusterContract(t *testing.T, within func(t *testing.T, check func(*testing.T, World))) {
	for _, point := range []struct {
		name  string
		check func(*testing.T, World)
	}{
		{"nodes are found by name and by instance", nodesAreFound},
		{"a node change is written once", nodeIsChangedOnce},
		{"a node change is retried after a conflict", nodeConflict},
		{"changing a deleted or replaced node returns ErrNotFound", nodeGone},
		{"pods are listed by node", podsAreListed},
		{"a changed node is followed", followedNode},
		{"a disrupted pod has the condition DisruptionTarget", disruptedPod},
		{"an evicted pod gets its grace period and is followed until it is gone", evictedPodTerminates},
		{"a process that does not exit is killed after the grace period", processIsKilled},
		{"a grace period is rounded down to whole seconds", graceInSeconds},
		{"a budget refuses evictions until it is removed", budgetRefuses},
		{"a deletion bypasses the budget", deletionPassesBudget},
		{"two budgets refuse with a server error", twoBudgets},
		{"another UID returns ErrChanged", otherUID},
		{"a deleted pod returns ErrNotFound", podGone},
		{"an exact request for an old version returns ErrChanged and shortens nothing", exactShortensNothing},
		{"an exact request for the current version succeeds", exactSucceeds},
		{"an inexact request shortens the grace period of a terminating pod", inexactShortens},
		{"a longer grace period changes nothing", longerChangesNothing},
		{"new pods are seen", lateArrivals},
		{"following stops with its context", followingStops},
		{"pods report emptyDir, finalizers and annotations", podFields},
		{"pods report what disrupted them", podDisruptedBy},
		{"a finalizer keeps a finished pod", finalizerKeeps},
		{"without a grace period a pod is removed at once", noGraceRemoves},
		{"nodes report who cordoned them", nodeCordonedBy},
		{"nodes report their NodeClaim", nodeClaimOfNode},
		{"a NodeClaim is deleted", claimIsDeleted},
		{"cordoned nodes are listed by label", cordonedNodesAreListed},
		{"permissions are reported", permissionsAreReported},
		{"a node is deleted by UID", nodeIsDeleted},
		{"a volume is detached after the pod is gone", volumeDetaches},
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

// both returns both requests, for rules that apply to either.
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
	wantError(t, "NodeNamed of a missing node", err, spot.ErrNotFound)
	_, err = w.Cluster().NodeOf(t.Context(), "i-0000000000000dead")
	wantError(t, "NodeOf an instance without a node", err, spot.ErrNotFound)
}

// changed changes every field of a node that ChangeNode writes.
func changed(n spot.Node) spot.Node {
	n.Unschedulable = true
	n.Labels = with(n.Labels, "kops-spot.test/label", "a")
	n.Annotations = with(n.Annotations, "kops-spot.test/annotation", "b")
	if !slices.ContainsFunc(n.Taints, isTestTaint) {
		n.Taints = append(slices.Clone(n.Taints),
			spot.Taint{Key: "kops-spot.test/taint", Value: "c", Effect: "NoSchedule"})
	}
	return n
}

func isTestTaint(t spot.Taint) bool {
	return t.Key == "kops-spot.test/taint" && t.Value == "c" && t.Effect == "NoSchedule"
}

func isChanged(n spot.Node) bool {
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
	first, err := w.Cluster().ChangeNode(t.Context(), n, changed)
	if err != nil || !isChanged(first) || first.Version == n.Version {
		t.Fatalf("got %+v, %v; want it changed, with a new version", first, err)
	}
	again, err := w.Cluster().ChangeNode(t.Context(), first, changed)
	if err != nil || !isChanged(again) || again.Version != first.Version {
		t.Errorf("the same change again: got %+v, %v; want nothing written", again, err)
	}
	reverted, err := w.Cluster().ChangeNode(t.Context(), again, func(n spot.Node) spot.Node {
		n.Unschedulable = false
		n.Labels, n.Annotations = with(n.Labels, "kops-spot.test/label", ""),
			with(n.Annotations, "kops-spot.test/annotation", "")
		delete(n.Labels, "kops-spot.test/label")
		delete(n.Annotations, "kops-spot.test/annotation")
		n.Taints = slices.DeleteFunc(slices.Clone(n.Taints), isTestTaint)
		return n
	})
	_, label := reverted.Labels["kops-spot.test/label"]
	_, annotation := reverted.Annotations["kops-spot.test/annotation"]
	if err != nil || reverted.Unschedulable || label || annotation ||
		slices.ContainsFunc(reverted.Taints, isTestTaint) {
		t.Errorf("reverting: got %+v, %v", reverted, err)
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
	got, err := w.Cluster().ChangeNode(ctx, old, changed)
	if err != nil || !isChanged(got) || got.Labels["kops-spot.test/somebody"] != "else" {
		t.Errorf("got %+v, %v; want both changes", got, err)
	}
}

func nodeGone(t *testing.T, w World) {
	n := w.AddNode(t)
	gone, replaced := n, n
	gone.Name += "-gone"
	replaced.UID, replaced.Version = "00000000-0000-0000-0000-00000000dead", "1"
	for what, n := range map[string]spot.Node{"no node of the name": gone, "another node of the name": replaced} {
		_, err := w.Cluster().ChangeNode(t.Context(), n, changed)
		wantError(t, what, err, spot.ErrNotFound)
	}
}

func podsAreListed(t *testing.T, w World) {
	here, there := w.AddNode(t), w.AddNode(t)
	a := w.AddPod(t, PodSpec{Node: here.Name, Grace: 30 * time.Second})
	b := w.AddPod(t, PodSpec{Node: here.Name, Grace: 7 * time.Second})
	w.AddPod(t, PodSpec{Node: there.Name})

	for _, want := range []spot.Pod{a, b} {
		got := listed(t, w, here.Name, want, anyState)
		if got.ID() != want.ID() || got.GracePeriod != want.GracePeriod || got.Terminating || got.Finished ||
			got.Version == "" {
			t.Errorf("got %+v; want %+v", got, want)
		}
	}
	pods, err := PodsOn(t.Context(), w.Cluster(), here.Name)
	if err != nil || len(pods) != 2 {
		t.Errorf("got %+v, %v; want %s and %s", pods, err, a.ID(), b.ID())
	}
	if pods, err := PodsOn(t.Context(), w.Cluster(), "no-such-node"); err != nil || len(pods) != 0 {
		t.Errorf("a missing node: got %+v, %v; want none", pods, err)
	}
}

func followedNode(t *testing.T, w World) {
	n := w.AddNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seen := make(chan spot.Node, 100)
	go func() { _ = w.Cluster().FollowNode(ctx, n, func(n spot.Node) { seen <- n }) }()
	if _, err := w.Cluster().ChangeNode(t.Context(), n, func(n spot.Node) spot.Node { n.Unschedulable = true; return n }); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case got := <-seen:
			if got.Name != n.Name || got.UID != n.UID {
				t.Fatalf("got %+v", got)
			}
			if got.Unschedulable {
				return
			}
		case <-time.After(slack + 5*time.Second):
			t.Fatal("the change was not seen")
		}
	}
}

func disruptedPod(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second})
	after, err := w.Cluster().Disrupt(t.Context(), p)
	if err != nil || after.UID != p.UID || after.Version == p.Version {
		t.Fatalf("got %+v, %v", after, err)
	}
	listed(t, w, n.Name, p, func(p spot.Pod) bool { return p.DisruptedBy == spot.DisruptionReason && !p.Terminating })
	stale := p
	stale.UID = "00000000-0000-0000-0000-000000000000"
	_, err = w.Cluster().Disrupt(t.Context(), stale)
	wantError(t, "another pod's UID", err, spot.ErrChanged)
}

func evictedPodTerminates(t *testing.T, w World) {
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
		t.Fatalf("it was never seen terminating before it was gone: %+v", f.changes())
	}
	wantDeletionBy(t, seen, asked.Add(25*time.Second))
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
	if !errors.As(err, &refusal) || refusal.Code != 429 || !refusal.Budget || !strings.Contains(refusal.Message, "disruption budget") {
		t.Fatalf("got %v; want a refusal with 429 that names the disruption budget", err)
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
	wantDeletionBy(t, listed(t, w, n.Name, p, terminating), asked.Add(10*time.Second))
}

func twoBudgets(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, App: "guarded", Grace: 30 * time.Second})
	w.AddBudget(t, "guarded", 0)
	w.AddBudget(t, "guarded", 0)

	var refusal *spot.Refusal
	if err := w.Cluster().Evict(t.Context(), p, 5*time.Second, false); !errors.As(err, &refusal) ||
		refusal.Code != 500 || !refusal.Budget {
		t.Errorf("got %v; want a refusal with 500 by budgets", err)
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
	eventually(t, "it is no longer listed", func() bool { _, ok := find(t, w, n.Name, p); return !ok })
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
	wantDeletionBy(t, listed(t, w, n.Name, p, terminating), asked.Add(time.Hour))
}

func exactSucceeds(t *testing.T, w World) {
	n := w.AddNode(t)
	for name, ask := range both(w) {
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: 2 * time.Second})
		// The kubelet may still be updating the status of a new pod.
		eventually(t, name+" succeeds", func() bool {
			present, ok := find(t, w, n.Name, p)
			return ok && ask(t.Context(), present, 10*time.Second, true) == nil
		})
		listed(t, w, n.Name, p, terminating)
	}
}

// inexactShortens shows why exact requests exist: a shorter grace period counts from the first request, so a pod that
// its owner deleted with an hour is killed within seconds.
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
		shortened := listed(t, w, n.Name, p,
			func(p spot.Pod) bool { return p.DeletionTimestamp.Before(asked.Add(time.Minute)) })
		wantDeletionBy(t, shortened, endsBy)
		eventually(t, name+": the pod is gone", func() bool { return f.gone(p) })
		if time.Now().Before(endsBy.Add(-slack)) {
			t.Errorf("%s: gone before %s", name, endsBy)
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
		wantDeletionBy(t, listed(t, w, n.Name, p, terminating), asked.Add(20*time.Second))
	}
}

func lateArrivals(t *testing.T, w World) {
	here, there := w.AddNode(t), w.AddNode(t)
	early := w.AddPod(t, PodSpec{Node: here.Name})
	listed(t, w, here.Name, early, anyState)
	f := follow(t, w, here.Name)
	if first := f.changes()[0]; !first.All || len(first.Pods) != 1 || first.Pods[0].UID != early.UID {
		t.Errorf("the first look is %+v; want the complete list, %s", first, early.ID())
	}
	elsewhere := w.AddPod(t, PodSpec{Node: there.Name})
	late := w.AddPod(t, PodSpec{Node: here.Name})
	eventually(t, "the late pod is seen", func() bool { return f.seen(late) })
	if f.seen(elsewhere) {
		t.Error("a pod of another node was seen")
	}
}

func followingStops(t *testing.T, w World) {
	n := w.AddNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	changes := make(chan spot.PodChange, 100)
	go func() {
		ended <- w.Cluster().FollowPods(ctx, n.Name, func(c spot.PodChange) { changes <- c })
	}()
	if first := <-changes; !first.All || len(first.Pods) != 0 {
		t.Errorf("the first look at an empty node is %+v; want a complete empty list", first)
	}
	cancel()
	select {
	case err := <-ended:
		if errors.Is(err, spot.ErrPermanent) {
			t.Errorf("got %v; want a retryable error or none", err)
		}
	case <-time.After(patience):
		t.Error("still running")
	}
}
