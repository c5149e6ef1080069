package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

func TestKubelet(t *testing.T) {
	for _, test := range []struct {
		name        string
		exit, grace time.Duration
		gone        time.Duration
		given       time.Duration
		killed      bool
	}{
		{"a process that exits in time", 4 * second, 10 * second, 4 * second, 10 * second, false},
		{"a process that does not", time.Hour, 10 * second, 10 * second, 10 * second, true},
		{"a process that needs just its time", 10 * second, 10 * second, 10 * second, 10 * second, false},
		{"less than a second more", 15 * second, 10*second + 999*time.Millisecond, 10 * second, 10 * second, true},
		{"less than none", 15 * second, -second, second, second, true},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
				looks, _ := follow(t, c, "a")
				p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p", Grace: 30 * second}, Exit: test.exit})
				must(t, c.Delete(t.Context(), p, test.grace, false))
				now, _ := c.Pod("default/p")
				want(t, "ends by", time.Until(now.EndsBy), test.given)
				until(at, test.gone-1)
				want(t, "before", names(c), "p@a terminating")
				until(at, test.gone)
				want(t, "after", names(c), "")
				want(t, "looks", strings.Join(looks(), "; "), "all; changed p; changed p terminating; "+
					"changed p terminating finished; changed p terminating finished; gone p terminating finished")

				e := c.Endings()[0]
				want(t, "pod", e.Pod+" "+e.UID+" "+e.Node, "default/p "+p.UID+" a")
				want(t, "grace", e.Grace, test.given)
				want(t, "exited after", e.Exited.Sub(e.SIGTERM), test.gone)
				want(t, "killed", e.Killed, test.killed)
			})
		})
	}
}

func TestNoGraceRemovesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		must(t, c.Delete(t.Context(), c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "running"}, Exit: second}), 0, false))
		must(t, c.Delete(t.Context(), c.AddPod(sim.Pod{Pod: spot.Pod{Name: "unbound"}, Pending: true}), 30*second, false))
		must(t, c.Evict(t.Context(), c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "finished", Finished: true}}), 30*second, false))
		want(t, "pods", names(c), "")
		all := c.Endings()
		if len(all) != 1 || all[0].Pod != "default/running" || !all[0].Killed {
			t.Errorf("got %+v; want only the running one, killed", all)
		}
	})
}

func TestLaterRequestShortens(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p", Grace: time.Hour}, Exit: time.Hour})
		must(t, c.Evict(t.Context(), p, 60*second, false))
		until(at, 10*second)

		must(t, c.Evict(t.Context(), p, 60*second, false))
		must(t, c.Delete(t.Context(), p, time.Hour, false))
		want(t, "shortenings", len(c.Shortenings()), 0)

		must(t, c.Delete(t.Context(), p, 25*second, false))
		now, _ := c.Pod("default/p")
		want(t, "ends by, from the first request on", time.Until(now.EndsBy), 15*second)
		want(t, "shortening", c.Shortenings()[0], sim.Shortening{Pod: "default/p", UID: p.UID, At: time.Now(), From: 60 * second, To: 25 * second})

		until(at, 25*second)
		want(t, "pods", names(c), "")
		want(t, "killed", c.Endings()[0].Killed, true)
		want(t, "SIGTERMs", len(c.Endings()), 1)
	})
}

func TestShorteningToWhatIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "p"}, Exit: time.Hour, Finalizer: true})
		must(t, c.Evict(t.Context(), p, 60*second, false))
		until(at, 30*second)
		must(t, c.Delete(t.Context(), p, 10*second, false))
		now, _ := c.Pod("default/p")
		want(t, "ends by", now.EndsBy, time.Now())
		until(at, 30*second)
		want(t, "pods", names(c), "p@a terminating finished")
	})
}

func TestFinalizerKeepsThePod(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Finalizer = true
		asked := c.AddPod(p)
		must(t, c.Evict(t.Context(), asked, 10*second, false))
		until(at, time.Hour)
		must(t, c.Delete(t.Context(), asked, 0, false))
		want(t, "pods", names(c), "web-1@a terminating finished")
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizer = false })
		want(t, "pods", names(c), "")
		want(t, "shortenings", len(c.Shortenings()), 0)
	})
}

func TestEachFinalizerKeepsThePod(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := web("web-1")
		p.Finalizer, p.Finalizers = true, []string{"example.com/one", "example.com/two"}
		asked := c.AddPod(p)
		want(t, "finalizers", strings.Join(asked.Finalizers, " "), "example.com/one example.com/two example.com/finalizer")
		c.PowerOff("a")
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizer = false })
		must(t, c.Delete(t.Context(), asked, 0, false))
		for _, left := range [][]string{{"example.com/one", "example.com/two"}, {"example.com/two"}} {
			c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizers = left })
			want(t, "pods", names(c), "web-1@a terminating")
		}
		c.ChangePod("default/web-1", func(p *sim.Pod) { p.Finalizers = nil })
		want(t, "pods", names(c), "")
	})
}

func TestPowerOff(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "early"}, Exit: 20 * second})
		q := c.AddPod(sim.Pod{Node: "a", Pod: spot.Pod{Name: "late"}})
		must(t, c.Evict(t.Context(), p, 30*second, false))
		until(at, 5*second)
		c.PowerOff("a")
		must(t, c.Evict(t.Context(), q, 30*second, false))
		until(at, time.Hour)
		want(t, "pods", names(c), "early@a terminating, late@a terminating")
		if all := c.Endings(); len(all) != 1 || !all[0].Killed || all[0].Exited.Sub(all[0].SIGTERM) != 5*second {
			t.Errorf("got %+v; want only the early one, dead after 5 s", all)
		}
		must(t, c.Delete(t.Context(), p, 0, false))
		must(t, c.Delete(t.Context(), q, 0, false))
		want(t, "pods", names(c), "")
	})
}

func TestPodThatWasEndingWhenItCame(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		p, q := web("own"), web("until")
		p.Terminating, p.Exit = true, time.Hour
		q.Terminating, q.Exit, q.EndsBy = true, time.Hour, time.Now().Add(12*second)
		want(t, "own grace", time.Until(c.AddPod(p).EndsBy), 30*second)
		want(t, "EndsBy", time.Until(c.AddPod(q).EndsBy), 12*second)
		want(t, "requests", len(c.Requests()), 0)
		until(at, 12*second)
		want(t, "pods", names(c), "own@a terminating")
		until(at, 30*second)
		want(t, "pods", names(c), "")
	})
}
