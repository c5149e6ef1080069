package savings

import (
	"math"
	"math/rand/v2"
)

// Failures returns in how many of n other orders the scheduler finds no place for a pod on the machines of the packed
// estimate.
func Failures(c Cluster, catalog Catalog, n int) (failed int) {
	p, err := newPlanner(c, catalog)
	if err != nil {
		panic(err)
	}
	limits := map[string]float64{}
	for _, g := range p.groups {
		limits[g.Name] = math.Inf(1)
	}
	_, kinds := p.pack((*group).present, limits, nil)
	boxes := p.boxes
	var pods []*pod
	for _, pod := range p.pods {
		if pod.fixed == "" {
			pods = append(pods, pod)
		}
	}
	for i := range n {
		random := rand.New(rand.NewPCG(uint64(i), 99))
		random.Shuffle(len(pods), func(a, b int) { pods[a], pods[b] = pods[b], pods[a] })
		if unplaced := p.run(boxes, pods, kinds, p.scheduler(random)); len(p.boxes) > len(boxes) || len(unplaced) > 0 {
			failed++
		}
	}
	return failed
}
