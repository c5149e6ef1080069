package sim_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/castai/kops-spot/internal/sim"
	"github.com/castai/kops-spot/internal/spot"
)

// follow follows a node's pods until the test ends and tells each look as a line.
func follow(t *testing.T, c *sim.Cluster, node string) (looks func() []string, ended <-chan error) {
	var mu sync.Mutex
	var all []string
	end := make(chan error, 1)
	go func() {
		end <- c.FollowPods(t.Context(), node, func(change spot.PodChange) {
			mu.Lock()
			defer mu.Unlock()
			line := "changed"
			switch {
			case change.All:
				line = "all"
			case change.Gone:
				line = "gone"
			}
			for _, p := range change.Pods {
				line += " " + p.Name
				if p.Terminating {
					line += " terminating"
				}
				if p.Finished {
					line += " finished"
				}
			}
			all = append(all, line)
		})
	}()
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}, end
}

func TestFollowPods(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.AddPod(web("old"))
		looks, _ := follow(t, c, "a")
		late := c.AddPod(sim.Pod{Node: "a", Exit: second, Pod: spot.Pod{Name: "late"}})
		c.AddPod(sim.Pod{Node: "b", Pod: spot.Pod{Name: "elsewhere"}})
		c.AddPod(sim.Pod{Pod: spot.Pod{Name: "unbound"}, Pending: true})
		c.ChangePod("default/unbound", func(p *sim.Pod) { p.Node = "a" })
		must(t, c.Evict(t.Context(), late, 10*second, false))
		c.RemovePod("default/old")
		until(at, second)
		want(t, "looks", strings.Join(looks(), "\n"), strings.Join([]string{
			"all old",
			"changed late",
			"changed unbound",
			"changed late", // the condition that an eviction writes before it deletes
			"changed late terminating",
			"gone old",
			"changed late terminating finished",
			"changed late terminating finished",
			"gone late terminating finished",
		}, "\n"))
		want(t, "lists", c.Count("list", "pods"), 1)
		want(t, "watches", c.Count("watch", "pods"), 1)
	})
}

func TestFollowPodsBreaks(t *testing.T) {
	broken := errors.New("connection reset")
	for _, err := range []error{nil, broken} {
		inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
			p := c.AddPod(web("web-1"))
			_, ended := follow(t, c, "a")
			c.BreakFollowing(err)
			want(t, "ended with", <-ended, err)
			must(t, c.Delete(t.Context(), p, 0, false))
			looks, ended := follow(t, c, "a")
			want(t, "looks", strings.Join(looks(), "; "), "all")
			select {
			case err := <-ended:
				t.Errorf("the second stream ended: %v", err)
			default:
			}
		})
	}
}

func TestFollowPodsMissesNothingBetweenListAndWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, c *sim.Cluster, at func() time.Duration) {
		c.Disturb(sim.Disturbance{Verb: "watch", Delay: second})
		looks, _ := follow(t, c, "a")
		c.AddPod(web("web-1"))
		want(t, "before the watch", strings.Join(looks(), "; "), "all")
		until(at, second)
		want(t, "after", strings.Join(looks(), "; "), "all; changed web-1")
	})
}
