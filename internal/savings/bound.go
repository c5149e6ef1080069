package savings

import (
	"math"
	"slices"
)

// bound returns how many machines of these kinds, all of one type, the pods need at least, on demand and others, in
// addition to the free room on the machines that stay. It also returns what these machines cost per hour, at least. It
// relaxes the packing: pods may be split across machines, apart from those that cannot share one.
func (p *packer) bound(kinds []*kind, stay []*box, pods []*pod, zones []string) (onDemand, others int, hourly float64) {
	most := p.roomOn(kinds)
	price, spot := kinds[0].Hourly, kinds[0].Hourly
	for _, k := range kinds {
		if !k.Spot {
			price = k.Hourly
		}
		spot = min(spot, k.Hourly)
	}
	var need, rest []*pod
	shared := false // machines on demand are for all pods
	for _, pod := range pods {
		for i, n := range pod.class.requests {
			if n > most[i] {
				return 0, 0, math.Inf(1)
			}
		}
		if slices.ContainsFunc(kinds, func(k *kind) bool { return k.Spot && pod.class.mayUse(k) }) {
			rest = append(rest, pod)
		} else {
			need = append(need, pod)
		}
		shared = shared || slices.ContainsFunc(kinds, func(k *kind) bool { return !k.Spot && !k.reserved })
	}
	onDemand = p.atLeast(most, need, kinds, slices.DeleteFunc(slices.Clone(stay), func(b *box) bool { return b.Spot }))
	others = p.atLeast(most, rest, kinds, stay)
	if shared {
		others = p.atLeast(most, pods, kinds, stay) - onDemand
	}
	uncovered := 0
	for _, zone := range zones {
		if !slices.ContainsFunc(stay, func(b *box) bool { return b.Zone == zone }) {
			uncovered++
		}
	}
	others = max(others, uncovered-onDemand, 0)
	return onDemand, others, float64(onDemand)*price + float64(others)*spot
}

// roomOn returns the most that a machine of these kinds has for pods, by resource.
func (p *packer) roomOn(kinds []*kind) []int64 {
	most := make([]int64, len(p.resources))
	for _, k := range kinds {
		for i, n := range k.room() {
			most[i] = max(most[i], n)
		}
	}
	return most
}

// atLeast returns how many machines the pods need, at least, in addition to those that stay.
func (p *packer) atLeast(most []int64, pods []*pod, kinds []*kind, stay []*box) int {
	machines := 0
	zones := map[*class]string{} // that a class cannot leave
	for _, pod := range pods {
		if _, ok := zones[pod.class]; !ok {
			zones[pod.class] = onlyZone(pod.class, kinds)
		}
	}
	for i, room := range most {
		if room <= 0 {
			continue
		}
		total, large, byZone := int64(0), int64(0), map[string]int64{}
		for _, pod := range pods {
			n := pod.class.requests[i]
			total += n
			if 2*n > room {
				large++
			}
			if zone := zones[pod.class]; zone != "" {
				byZone[zone] += n
			}
		}
		for _, b := range stay {
			total -= max(b.free[i], 0)
			byZone[b.Zone] -= max(b.free[i], 0)
			large -= max(b.free[i], 0) / (room/2 + 1)
		}
		zonal := 0
		for _, n := range byZone {
			zonal += ceil(n, room)
		}
		machines = max(machines, ceil(total, room), zonal, int(large))
	}
	// Pods that repel each other from a machine need as many machines as there are of them.
	repel := map[*class]int{}
	for _, pod := range pods {
		for _, t := range pod.class.anti {
			if p.keys[t.key] == hostname && t.matches(pod.class.pod) {
				repel[pod.class]++
				break
			}
		}
	}
	for _, n := range repel {
		machines = max(machines, n-len(stay))
	}
	return machines
}

// onlyZone returns the zone that a class cannot leave, or "".
func onlyZone(c *class, kinds []*kind) (zone string) {
	for _, k := range kinds {
		if c.mayUse(k) {
			if zone != "" && zone != k.Zone {
				return ""
			}
			zone = k.Zone
		}
	}
	return zone
}

func ceil(n, by int64) int { return int(max(n+by-1, 0) / by) }
