package handler_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/internal/spottest"
)

// TestSlots sends 50 warnings at once, and the state changes that follow, to a function with few Lambda slots. Lambda
// tries a throttled event again after 1, 2, 4, 8 ... s.
func TestSlots(t *testing.T) {
	const nodes = 50
	for name, c := range map[string]struct {
		slots int
		exit  time.Duration // of each pod
		few   bool          // too few slots to drain all nodes
	}{
		"a slot for each warning":                        {slots: nodes, exit: 30 * time.Second},
		"ten slots, which are free when a node is empty": {slots: 10, exit: 3 * time.Second},
		"ten slots, and pods that stop slowly":           {slots: 10, exit: 30 * time.Second, few: true},
	} {
		subtest(t, name, func(w *world) {
			slots := make(chan struct{}, c.slots)
			var sent sync.WaitGroup
			var mu sync.Mutex
			results := map[spot.Result]int{}
			send := func(in spot.Interruption) {
				in.EventID = in.State + in.Instance
				sent.Go(func() {
					for backoff := time.Second; ; backoff *= 2 {
						select {
						case slots <- struct{}{}:
							out, err := w.handler.Handle(w.timeout(15*time.Minute), in)
							<-slots
							if err != nil {
								w.Errorf("%+v: %v", in, err)
							}
							mu.Lock()
							defer mu.Unlock()
							results[out.Result]++
							return
						default:
							time.Sleep(backoff)
						}
					}
				})
			}
			stateChange := func(id, state string) {
				send(spot.Interruption{Kind: spot.StateChange, State: state, Instance: id, Region: "us-east-1",
					Time: time.Now()})
			}
			w.aws.OnLaunch(func(i spottest.Instance) { stateChange(i.ID, spot.StateRunning) })
			var members []spottest.Instance
			for i := range nodes {
				id := fmt.Sprintf("i-0ddddddddddddd%03d", i)
				members = append(members, spottest.Instance{ID: id, Spot: true})
				w.cluster.AddNode(newNode(id, id))
				w.pod(fmt.Sprintf("web%d-1", i), exit(c.exit), func(p *spottest.Pod) { p.Node = id })
			}
			w.aws.AddGroup(spottest.Group{Name: "spot." + cluster, Desired: nodes, Max: nodes, Spot: true,
				LaunchTime: 20 * time.Second, DetachTime: time.Second, Tags: map[string]string{spot.TagCluster: cluster}},
				members...)
			for _, m := range members {
				in := w.warning(spot.SpotTerminate)
				in.Instance = m.ID
				send(in)
			}
			time.Sleep(time.Until(w.event.Add(2 * time.Minute)))
			for _, m := range members {
				w.cluster.PowerOff(m.ID)
				w.aws.SetState(m.ID, spot.StateTerminated)
				stateChange(m.ID, spot.StateTerminated)
			}
			sent.Wait()

			drained := results[spot.Drained]
			if drained+results[spot.Missed] != nodes || (drained == nodes) == c.few {
				w.Errorf("got %v", results)
			}
			if results[spot.CleanedUp] != nodes || results[spot.Ignored] != drained {
				w.Errorf("got %v; want each node cleaned up, and each new instance ignored", results)
			}
			for _, m := range members {
				if _, ok := w.cluster.Node(m.ID); ok {
					w.Errorf("node %s is still there", m.ID)
				}
			}
		})
	}
}
