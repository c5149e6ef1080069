package spottest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
)

// One of our annotations, and two others.
var annotations = map[string]string{
	spot.AnnotationPrefix + "test": "yes", "example.com/test": "no", "kops-spot.cast.ai.example.com/test": "no",
}

func podFields(t *testing.T, w World) {
	const finalizer = "kops-spot.test/hold"
	n := w.AddNode(t)
	rich := w.AddPod(t, PodSpec{Node: n.Name, EmptyDir: true, Finalizer: finalizer, Annotations: annotations})
	plain := w.AddPod(t, PodSpec{Node: n.Name})
	t.Cleanup(func() { w.Release(t, rich) })

	if got := listed(t, w, n.Name, rich, anyState); !got.EmptyDir || got.Volumes ||
		!slices.Equal(got.Finalizers, []string{finalizer}) {
		t.Errorf("got %+v; want it to have an emptyDir and a finalizer", got)
	} else if !maps.Equal(got.Annotations, map[string]string{spot.AnnotationPrefix + "test": "yes"}) {
		t.Errorf("the annotations of the pod: got %q; want ours", got.Annotations)
	}
	if got := listed(t, w, n.Name, plain, anyState); got.EmptyDir || got.Volumes ||
		len(got.Finalizers)+len(got.Annotations) > 0 || got.DisruptedBy != "" {
		t.Errorf("got %+v; want none of these", got)
	}
}

func podDisruptedBy(t *testing.T, w World) {
	n := w.AddNode(t)
	for name, want := range map[string]string{"Evict": "EvictionByEvictionAPI", "Delete": ""} {
		p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Exit: 5 * time.Second})
		if err := both(w)[name](t.Context(), p, 10*time.Second, false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := listed(t, w, n.Name, p, terminating); got.DisruptedBy != want {
			t.Errorf("%s: disrupted by %q; want %q", name, got.DisruptedBy, want)
		}
	}
}

func finalizerKeeps(t *testing.T, w World) {
	n := w.AddNode(t)
	p := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second, Finalizer: "kops-spot.test/hold"})
	if err := w.Cluster().Evict(t.Context(), p, 5*time.Second, false); err != nil {
		t.Fatal(err)
	}
	ended := func(p spot.Pod) bool { return p.Terminating && p.Finished && len(p.Finalizers) == 1 }
	listed(t, w, n.Name, p, ended)
	if err := w.Cluster().Delete(t.Context(), p, 0, false); err != nil {
		t.Errorf("Delete: %v", err)
	}
	listed(t, w, n.Name, p, ended)
	w.Release(t, p)
	eventually(t, "it is gone", func() bool { _, ok := find(t, w, n.Name, p); return !ok })
}

// noGraceRemoves is how pods of a stopped instance are removed: no kubelet is left to terminate them.
func noGraceRemoves(t *testing.T, w World) {
	n := w.AddNode(t)
	ending, running := w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second}),
		w.AddPod(t, PodSpec{Node: n.Name, Grace: 30 * time.Second})
	w.PowerOff(t, n.Name)
	if err := w.Cluster().Delete(t.Context(), ending, 2*time.Second, false); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2*time.Second + while)
	if got := listed(t, w, n.Name, ending, terminating); got.Finished {
		t.Errorf("the pod is %+v; want it as its kubelet left it", got)
	}
	for exact, p := range map[bool]spot.Pod{true: ending, false: running} {
		eventually(t, "the deletion succeeds", func() bool {
			present, ok := find(t, w, n.Name, p)
			return ok && w.Cluster().Delete(t.Context(), present, 999*time.Millisecond, exact) == nil
		})
		wantError(t, "then", w.Cluster().Delete(t.Context(), p, 0, false), spot.ErrNotFound)
	}
}

func nodeCordonedBy(t *testing.T, w World) {
	n := w.AddNode(t)
	if n.CordonedBy != "" {
		t.Errorf("new node is cordoned by %q", n.CordonedBy)
	}
	w.Cordon(t, n.Name, "kubectl-drain")
	if n = read(t, w, n); !n.Unschedulable || n.CordonedBy != "kubectl-drain" {
		t.Errorf("got %+v; want it cordoned by kubectl-drain", n)
	}
	change := func(what string, unschedulable bool, want string) {
		t.Helper()
		var err error
		n, err = w.Cluster().ChangeNode(t.Context(), n, func(n spot.Node) spot.Node {
			n = changed(n)
			n.Labels = with(n.Labels, "kops-spot.test/change", strings.ReplaceAll(what, " ", "-"))
			n.Unschedulable = unschedulable
			return n
		})
		if now := read(t, w, n); err != nil || n.CordonedBy != want || now.CordonedBy != want {
			t.Errorf("%s: got %q, then %q, %v; want %q", what, n.CordonedBy, now.CordonedBy, err, want)
		}
	}
	change("changing something else", true, "kubectl-drain")
	change("uncordoning it", false, "")
	change("cordoning it", true, "kops-spot")
}

func nodeClaimOfNode(t *testing.T, w World) {
	n, other := w.AddNode(t), w.AddNode(t)
	claim := w.AddClaim(t, n.Name)
	if got := read(t, w, n).NodeClaim; got != claim {
		t.Errorf("the node is owned by %q; want %q", got, claim)
	}
	if got := read(t, w, other).NodeClaim; got != "" {
		t.Errorf("another node is owned by %q", got)
	}
}

func claimIsDeleted(t *testing.T, w World) {
	claim, other := w.AddClaim(t, ""), w.AddClaim(t, "")
	if err := w.Cluster().DeleteNodeClaim(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	if w.HasClaim(t, claim) || !w.HasClaim(t, other) {
		t.Errorf("%s is there: %v; %s is there: %v", claim, w.HasClaim(t, claim), other, w.HasClaim(t, other))
	}
	wantError(t, "again", w.Cluster().DeleteNodeClaim(t.Context(), claim), spot.ErrNotFound)
}

func cordonedNodesAreListed(t *testing.T, w World) {
	key, value, _ := strings.Cut(spot.DrainingSelector, "=")
	label := func(value string) spot.Node {
		n, err := w.Cluster().ChangeNode(t.Context(), w.AddNode(t), func(n spot.Node) spot.Node {
			n.Labels = with(n.Labels, key, value)
			return n
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	one, two := label(value), label(value)
	other, bare := label("something-else"), w.AddNode(t)

	nodes, err := w.Cluster().CordonedNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed := func(n spot.Node) bool {
		i := slices.IndexFunc(nodes, func(other spot.Node) bool { return other.UID == n.UID })
		if i >= 0 && (nodes[i].Name != n.Name || nodes[i].ProviderID != n.ProviderID || nodes[i].Labels[key] != value) {
			t.Errorf("got %+v; want %+v", nodes[i], n)
		}
		return i >= 0
	}
	if !listed(one) || !listed(two) || listed(other) || listed(bare) {
		t.Errorf("got %+v; want %s and %s, and neither %s nor %s", nodes, one.Name, two.Name, other.Name, bare.Name)
	}
}

func permissionsAreReported(t *testing.T, w World) {
	for _, q := range []struct {
		verb, group, resource, subresource string
		want                               bool
	}{
		{"create", "", "pods", "eviction", true},
		{"list", "storage.k8s.io", "volumeattachments", "", true},
		{"create", "", "pods", "", false},
		{"delete", "", "namespaces", "", false},
	} {
		allowed, reason, err := w.Cluster().Allowed(t.Context(), q.verb, q.group, q.resource, q.subresource)
		if err != nil || allowed != q.want || allowed && reason == "" {
			t.Errorf("%s %s/%s/%s: got %v, %q, %v; want %v", q.verb, q.group, q.resource, q.subresource, allowed,
				reason, err, q.want)
		}
	}
}
