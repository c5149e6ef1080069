package sim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

func TestBudget(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 2, RetryAfter: 7 * second})
		var pods []spot.Pod
		for i := range 3 {
			p := web(fmt.Sprint("web-", i))
			p.Exit, p.Replacement = 5*second, &sim.Replacement{Node: "b", Ready: 20 * second}
			pods = append(pods, c.AddPod(p))
		}
		must(t, c.Evict(t.Context(), pods[0], 30*second, false))
		refusal := wantRefusal(t, "the second", c.Evict(t.Context(), pods[1], 30*second, false), 429)
		want(t, "message", refusal.Message, "Cannot evict pod as it would violate the pod's disruption budget. "+
			"The disruption budget web needs 2 healthy pods and has 2 currently.")
		want(t, "RetryAfter", refusal.RetryAfter, 7*second)

		until(at, 19*second)
		wantRefusal(t, "before the replacement is Ready", c.Evict(t.Context(), pods[1], 30*second, false), 429)
		until(at, 21*second)
		must(t, c.Evict(t.Context(), pods[1], 30*second, false))
	})
}

func TestBudgetGuardsWhatItSelects(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "db", Available: 1, Match: func(l map[string]string) bool { return l["app"] == "db" }})
		c.AddBudget(sim.Budget{Namespace: "other", Name: "web", Owner: "web", Available: 9})
		db := c.AddPod(sim.Pod{Node: "a", Labels: map[string]string{"app": "db"}, Pod: spot.Pod{Name: "db-0"}})
		wantRefusal(t, "by label", c.Evict(t.Context(), db, second, false), 429)
		must(t, c.Evict(t.Context(), c.AddPod(web("web-1")), second, false))

		c.AddBudget(sim.Budget{Name: "db-too", Available: 0, Match: func(l map[string]string) bool { return l["app"] == "db" }})
		wantRefusal(t, "two budgets", c.Evict(t.Context(), db, second, false), 500)
		c.RemoveBudget("db")
		must(t, c.Evict(t.Context(), db, second, false))
	})
}

func TestBudgetDoesNotGuardWhatDisruptsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 1})
		healthy := c.AddPod(web("healthy"))
		for name, state := range map[string]func(*sim.Pod){
			"terminating": func(p *sim.Pod) { p.Terminating, p.Exit = true, time.Hour },
			"pending":     func(p *sim.Pod) { p.Pending = true },
			"finished":    func(p *sim.Pod) { p.Finished = true },
			"unready":     func(p *sim.Pod) { p.Unready = true },
		} {
			p := web(name)
			state(&p)
			if err := c.Evict(t.Context(), c.AddPod(p), 10*second, false); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantRefusal(t, "healthy", c.Evict(t.Context(), healthy, 10*second, false), 429)

		c.ChangePod("default/healthy", func(p *sim.Pod) { p.Unready = true })
		wantRefusal(t, "unready, when too few are healthy", c.Evict(t.Context(), healthy, 10*second, false), 429)
	})
}

func TestBudgetIsSpentBeforeThePreconditionIsLookedAt(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddBudget(sim.Budget{Name: "web", Owner: "web", Available: 1})
		p, q := c.AddPod(web("web-1")), c.AddPod(web("web-2"))
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Labels = map[string]string{"touched": "yes"} })
		wantErr(t, "exact, old version", c.Evict(t.Context(), p, 10*second, true), spot.ErrChanged)
		wantRefusal(t, "the other", c.Evict(t.Context(), q, 10*second, false), 429)
		q.UID = "another"
		wantRefusal(t, "a pod of the other's name", c.Evict(t.Context(), q, 10*second, false), 429)
		until(at, 2*time.Minute)
		wantErr(t, "when the allowance is back", c.Evict(t.Context(), q, 10*second, false), spot.ErrChanged)
	})
}

func TestWebhooks(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Exit = time.Hour
		asked := c.AddPod(p)
		forbid := func(p spot.Pod) *spot.Refusal {
			return &spot.Refusal{Code: 403, Message: "admission webhook denied the request for " + p.ID()}
		}
		admit := func(spot.Pod) *spot.Refusal { return nil }

		c.OnEviction(forbid)
		want(t, "message", wantRefusal(t, "Evict", c.Evict(t.Context(), asked, second, false), 403).Message,
			"admission webhook denied the request for default/web-1")
		c.OnEviction(admit)
		c.OnDeletion(forbid)
		wantRefusal(t, "Delete", c.Delete(t.Context(), asked, 60*second, false), 403)
		must(t, c.Evict(t.Context(), asked, 60*second, false))
		must(t, c.Delete(t.Context(), asked, 60*second, false)) // changes nothing: nobody is asked
		wantRefusal(t, "Delete with less", c.Delete(t.Context(), asked, 10*second, false), 403)
	})
}
