package iamflow

import (
	"context"
	"strings"
	"testing"

	"github.com/castai/kops-spot/internal/onboard"
)

func TestASecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(clusterA)
	before := w.snapshot()
	w.onboard(clusterA, node, nil)
	first := w.Written()
	if len(first) < 10 {
		t.Errorf("the first run has written only %q: is the proxy in the way?", first)
	}
	w.Reset()
	r := w.run(clusterA, node, nil)
	p, err := r.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !p.Changes.Empty() {
		t.Errorf("the second plan is not empty: %+v", p.Changes)
	}
	if err := r.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if again := w.Written(); len(again) > 0 {
		t.Errorf("the second run has written: %q", again)
	}

	w.offboard(clusterA, node)
	w.isAsItWas(before)
}

// TestBrokenOffAnywhereItConverges cuts onboarding and offboarding off at each of their writes, and repeats the run. Each time
// the account must come out as it does in one go. A write is carried out and its answer is lost: to be cut off before the next
// one leaves the same.
func TestBrokenOffAnywhereItConverges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.cluster(clusterA)
	before := alike(w.snapshot())
	w.onboard(clusterA, node, nil)
	want, writes := alike(w.snapshot()), w.Written()
	w.Reset()
	w.offboard(clusterA, node)
	takenAway := w.Written()
	for n := range max(len(writes), len(takenAway)) {
		if n < len(writes) {
			w.brokenOff(n+1, clusterA, node, (*onboard.Run).Plan, writes[n])
		}
		w.onboard(clusterA, node, nil)
		got := w.snapshot()
		if d := difference(want, alike(got)); d != "" {
			t.Fatalf("broken off at %d of %q, it comes out otherwise than in one go:\n%s", n+1, writes, d)
		}
		if k := w.stored(clusterA); !strings.Contains(strings.Join(got, "\n"), "key "+k.ID+" Active") {
			t.Fatalf("broken off at %d of %q: what is stored is no key of the user", n+1, writes)
		}
		if n < len(takenAway) {
			w.brokenOff(n+1, clusterA, node, (*onboard.Run).PlanRemoval, takenAway[n])
		}
		w.offboard(clusterA, node)
		if d := difference(before, alike(w.snapshot())); d != "" {
			t.Fatalf("offboarding broken off at %d of %q leaves:\n%s", n+1, takenAway, d)
		}
	}
}

// brokenOff begins a run and cuts it off after its n-th write, which is to be the one that is named.
func (w *world) brokenOff(n int, cluster, node string, plan func(*onboard.Run, context.Context) (onboard.Planned, error), named string) {
	w.Helper()
	w.Reset()
	w.CutOff(n)
	r := w.run(cluster, node, nil)
	err := w.carryOut(r, func(ctx context.Context) (onboard.Planned, error) { return plan(r, ctx) })
	if got := w.Written(); err == nil || len(got) != n || got[n-1] != named {
		w.Fatalf("it was not broken off at write %d, %s, but has written %q: %v", n, named, got, err)
	}
	w.Reset()
}
