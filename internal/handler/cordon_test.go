package handler_test

import (
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestASpotWarningSharpensARebalance: what a recommendation left waiting behind a budget is forced in time, and what it
// began to end is left in peace.
func TestASpotWarningSharpensARebalance(t *testing.T) {
	inWorld(t, func(w *world) {
		w.handler.Policy.Rebalance = spot.RespondDrain
		w.pod("slow-1", func(p *spottest.Pod) { p.GracePeriod, p.Exit = 600*time.Second, 100*time.Second })
		w.pod("db-0")
		w.guard("db", 1)
		mild := w.warning(spot.Rebalance)
		mild.EventID = "e0"
		done := make(chan spot.Outcome, 1)
		go func() {
			out, err := w.handler.Handle(w.Context(), mild)
			if err != nil {
				w.Error(err)
			}
			done <- out
		}()
		time.Sleep(30 * time.Second)
		w.event = time.Now().UTC().Truncate(time.Second)
		out := w.handle(spot.Drained)
		w.after("the SIGTERM of db-0", w.ended("db-0").SIGTERM, 85*time.Second)
		if e := w.ended("slow-1"); e.Grace != 600*time.Second {
			t.Errorf("slow-1 got %s", e.Grace)
		}
		if p := podResult(t, out, "db-0"); p.Status != spot.PodForceDeleted {
			t.Errorf("%+v", p)
		}
		n, _ := w.cluster.Node(instance)
		if e := n.Annotations["kops-spot.cast.ai/event"]; e != "e1" {
			t.Errorf("the node is marked for %s", e)
		}
		<-done
	})
}
