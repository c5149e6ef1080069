package savings

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

const (
	orders     = 8   // of creation that the headroom must allow for, at least
	mostOrders = 100 // the same for small clusters, where a pod that finds no room matters more
	effort     = 4e6 // pods times machines times orders, apart from that
	fewer      = 4   // divides the orders while types are compared
	candidates = 6   // how many types that hold all pods are compared
	variants   = 3   // how many orders of packing are compared
)

var assumptions = []string{
	"Prices are those of the instances, for 730 hours a month. Volumes, load balancers, data transfer, Savings Plans " +
		"and reserved instances are not included.",
	"The cost of interruptions is not included. Larger machines mean more pods per interruption, and Spot prices are those " +
		"of the moment.",
	"Pods use what they request. Pods that are pending, terminating or finished are left out.",
	"Pods stay in their instance group. Preferences, such as preferred affinity, are ignored.",
	"Each instance group becomes two with the same labels and taints, and with one instance type, or several of the same " +
		"size: one on Spot, and one on demand with an additional taint. Only the pods that stay on demand tolerate it, and " +
		"a node affinity keeps them off Spot nodes.",
	"Each group keeps a machine in each of its zones. A group whose machines are not spread evenly needs an instance " +
		"group for each zone.",
	fmt.Sprintf("The scheduler places pods one at a time and spreads them. Unless a reason says otherwise, the headroom "+
		"suffices for %d or more simulated orders of creation, but is no guarantee: in another order, a pod may need one more "+
		"machine. There is no room for growth or for rolling updates.", orders),
}

// Compute computes the three estimates. The same input gives the same result. It returns an error if a selector is
// invalid, or if no node has a type, a zone and a price. A reason names single nodes without them.
func Compute(c Cluster, catalog Catalog) (Report, error) {
	p, err := newPlanner(c, catalog)
	if err != nil {
		return Report{}, err
	}
	var now, same []Machine
	onDemand := map[string][]string{}
	for _, n := range p.nodes {
		now = append(now, machine(p.row(n), n.Name, n.pods))
		row, why := p.stay(n, n.pods)
		same = append(same, machine(row, n.Name, n.pods))
		if why != "" {
			onDemand[why] = append(onDemand[why], n.Name)
		}
	}
	for _, pod := range p.pods {
		if pod.onDemand != "" && !pod.node.ControlPlane {
			onDemand[pod.onDemand] = append(onDemand[pod.onDemand], pod.name)
		}
	}
	r := Report{Now: newFleet(now), Assumptions: assumptions}
	maps.Copy(onDemand, p.left)
	r.Spot = Estimate{Fleet: newFleet(same), Reasons: reasonsOf(onDemand)}
	r.Spot.Bound = r.Spot.Monthly
	first := costs(r.Spot.List)
	packed, kinds := p.pack((*group).present, first, nil)
	resized, _ := p.pack(p.sizes, first, kinds)
	r.Packed, r.Resized = packed, resized
	if r.Resized.Monthly >= r.Packed.Monthly {
		bound := min(r.Resized.Bound, r.Packed.Bound)
		r.Resized = r.Packed
		if r.Resized.Bound = bound; r.Resized.Gap() > 0.1 {
			r.Resized.Reasons = append(slices.Clone(r.Resized.Reasons), Reason{Text: "no other size that was tried costs less, " +
				"although the lower bound of one does", Subjects: sortedKeys(first)})
		}
	}
	return r, nil
}

// row returns what a node is now.
func (p *planner) row(n *node) Row {
	t, zone := n.kind()
	r := Row{Group: n.Group, Type: t, Zone: zone, Count: 1, Hourly: p.catalog.OnDemand[t]}
	if n.Spot {
		r.Spot, r.Hourly = true, p.catalog.Spot[Offer{t, zone}]
	}
	return r
}

// stay returns what a node becomes if these of its pods stay on it, and why it is not Spot.
func (p *planner) stay(n *node, pods []*pod) (r Row, why string) {
	r = p.row(n)
	switch {
	case n.Spot:
		return r, ""
	case n.ControlPlane:
		return r, "the control plane stays on demand"
	case n.Group == "":
		return r, "they belong to no instance group"
	case slices.ContainsFunc(pods, func(p *pod) bool { return p.onDemand != "" }):
		return r, "some of their pods stay on demand"
	}
	why = p.spotRow(&r)
	return r, why
}

func machine(r Row, node string, pods []*pod) Machine {
	m := Machine{Row: r, Node: node}
	for _, p := range pods {
		if !p.resident {
			m.Pods = append(m.Pods, p.name)
		}
	}
	return m
}

// costs returns the hourly cost of each group.
func costs(list []Machine) map[string]float64 {
	out := map[string]float64{}
	for _, m := range list {
		out[m.Group] += m.Hourly
	}
	return out
}

func reasonsOf(subjects map[string][]string) (out []Reason) {
	out = []Reason{} // not null in JSON
	for _, text := range sortedKeys(subjects) {
		out = append(out, Reason{Text: text, Subjects: sorted(subjects[text])})
	}
	return out
}

// packing is one estimate that is being computed.
type packing struct {
	*planner
	kept     map[string]bool    // groups that stay as they are
	bounds   map[string]float64 // per hour, by group
	kinds    map[string][]*kind
	variant  map[string]int // of the order
	headroom map[string]int
	cost     map[string]float64 // of the headroom, per hour
	failing  []string           // pods and groups for which the headroom may not suffice
}

// pack packs the pods of each group on machines of the best of some types. A group whose cost would be above limits
// gets the types that fallback has for it, or else stays as it is. It returns the types that it chose.
func (p *planner) pack(types func(*group) []string, limits map[string]float64, fallback map[string][]*kind) (
	Estimate, map[string][]*kind) {
	fixed := map[*pod]string{}
	for _, pod := range p.pods {
		fixed[pod] = pod.fixed
	}
	defer func() {
		for pod, why := range fixed {
			pod.fixed = why
		}
	}()
	k := &packing{planner: p, kept: map[string]bool{}, bounds: map[string]float64{}, kinds: map[string][]*kind{},
		variant: map[string]int{}}
	dirty := p.groups
	for {
		for _, g := range dirty {
			k.choose(g, types(g))
		}
		unplaced := k.fill(p.groups, k.kinds, 1)
		before := map[*group]int{}
		for _, g := range p.groups {
			before[g] = g.staying()
		}
		dirty = nil
		for _, pod := range unplaced {
			if pod.fixed == "" {
				p.fix(pod, reasonNoRoom)
			}
		}
		if len(unplaced) > 0 {
			dirty = slices.DeleteFunc(slices.Clone(p.groups), func(g *group) bool { return g.staying() == before[g] })
			continue
		}
		for _, g := range p.groups {
			if math.IsInf(k.bounds[g.Name], 1) { // some pods have room only on machines that stay
				k.bounds[g.Name] = 0
				for _, b := range k.staying(g.nodes) {
					k.bounds[g.Name] += b.Hourly
				}
			}
		}
		estimate := k.estimate()
		spent := costs(estimate.List)
		again := false
		for _, g := range p.groups {
			if k.kept[g.Name] || spent[g.Name] <= limits[g.Name]*(1+1e-9) {
				continue
			}
			again = true
			if other, ok := fallback[g.Name]; ok && !slices.Equal(other, k.kinds[g.Name]) {
				k.kinds[g.Name] = other
				continue
			}
			k.kept[g.Name] = true
			for _, n := range g.nodes {
				for _, pod := range n.pods {
					if pod.fixed == "" {
						pod.fixed = reasonNode
					}
				}
			}
		}
		if !again {
			return estimate, k.kinds
		}
	}
}

// staying returns how many pods of the group stay on their nodes.
func (g *group) staying() (n int) {
	for _, node := range g.nodes {
		for _, pod := range node.pods {
			if pod.fixed != "" {
				n++
			}
		}
	}
	return n
}

// staying returns which of these machines stay, because some of their pods do.
func (k *packing) staying(nodes []*node) (out []*box) {
	for _, n := range nodes {
		var pods []*pod
		for _, pod := range n.pods {
			if pod.fixed != "" && !pod.resident {
				pods = append(pods, pod)
			}
		}
		if len(pods) > 0 || !n.packed() || k.kept[n.Group] {
			row, _ := k.stay(n, pods)
			out = append(out, newBox(&kind{Row: row, shape: k.shapeFor(n.Labels, n.Spec.Taints, row.Spot),
				allocatable: n.allocatable}, n))
		}
	}
	return out
}

// choose finds the best type for a group, and the group's bound over all types.
func (k *packing) choose(g *group, types []string) {
	type candidate struct {
		kinds []*kind
		bound float64
	}
	stay := k.staying(g.nodes)
	k.reset(stay)
	base := 0.0
	for _, b := range stay {
		base += b.Hourly
	}
	var list []candidate
	for _, t := range types {
		kinds := k.kindsOf(g, t)
		_, _, hourly := k.bound(kinds, stay, k.order(g, kinds), g.zones())
		list = append(list, candidate{kinds, base + hourly})
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(a.bound, b.bound) })
	if bound, ok := k.bounds[g.Name]; !ok || math.IsInf(bound, 1) { // infinite: some pods have room nowhere, and will stay
		k.bounds[g.Name] = list[0].bound
	}
	best, missing, tried := math.Inf(1), math.MaxInt, 0
	variant := 0
	for _, c := range list {
		if missing == 0 && (c.bound >= best || tried == candidates) {
			break
		}
		whole := false
		for k.variant[g.Name] = range variants {
			unplaced := len(k.fill([]*group{g}, map[string][]*kind{g.Name: c.kinds}, fewer))
			cost := 0.0
			for _, b := range k.boxes {
				cost += b.Hourly
			}
			whole = whole || unplaced == 0
			if unplaced < missing || unplaced == missing && cost < best {
				best, missing, variant, k.kinds[g.Name] = cost, unplaced, k.variant[g.Name], c.kinds
			}
		}
		if whole {
			tried++
		}
	}
	k.variant[g.Name] = variant
}

// order returns the pods of a group that move, in the order in which they are packed: the largest first, by the
// resource of which they need most, or by the sum. Pods with affinity come after those beside which they run. The pods
// of a controller take turns with others, because they often repel each other.
func (k *packing) order(g *group, kinds []*kind) (out []*pod) {
	most := k.roomOn(kinds)
	size, sum := map[*class]float64{}, map[*class]float64{}
	for _, n := range g.nodes {
		for _, pod := range n.pods {
			if pod.fixed != "" {
				continue
			}
			out = append(out, pod)
			if _, ok := size[pod.class]; ok {
				continue
			}
			for i, r := range pod.class.requests {
				share := float64(r) / float64(max(most[i], 1))
				sum[pod.class] += share
				size[pod.class] = max(size[pod.class], share)
			}
		}
	}
	if k.variant[g.Name] > 0 {
		size = sum
	}
	rank := func(p *pod) int {
		if len(p.class.affinity) > 0 && !p.class.self {
			return 1
		}
		return 0
	}
	slices.SortFunc(out, func(a, b *pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(size[b.class], size[a.class]),
			cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.name, b.name))
	})
	return out
}

// fill packs the pods of groups, and adds machines until the scheduler can place them in many random orders in a row,
// too. It returns the pods that found no machine.
func (k *packing) fill(groups []*group, kinds map[string][]*kind, fewer int) (unplaced []*pod) {
	var boxes []*box
	var pods []*pod
	for _, g := range groups {
		boxes = append(boxes, k.staying(g.nodes)...)
		if !k.kept[g.Name] {
			pods = append(pods, k.order(g, kinds[g.Name])...)
		}
	}
	if len(groups) == len(k.groups) {
		boxes = append(boxes, k.staying(slices.DeleteFunc(slices.Clone(k.nodes), (*node).packed))...)
	}
	// Begin with the machines that are needed in any case, and repeat until no more is opened: a machine that is opened
	// late may break a topology spread.
	k.reset(boxes)
	for _, g := range groups {
		if !k.kept[g.Name] {
			k.cover(g, kinds[g.Name])
		}
	}
	boxes = k.boxes
	settle := func() {
		for n := -1; n != len(boxes); {
			n = len(boxes)
			unplaced = k.run(boxes, pods, kinds, func(c *class) *box {
				if k.variant[c.group] == 2 {
					return k.evenest(c)
				}
				return k.firstFit(c)
			})
			boxes = k.boxes
		}
	}
	if settle(); len(unplaced) > 0 {
		return unplaced // they will stay on their nodes, and the packing begins again
	}
	boxes = k.trim()
	k.headroom, k.cost = map[string]int{}, map[string]float64{}
	for _, b := range boxes {
		k.headroom[b.Group]--
		k.cost[b.Group] -= b.Hourly
	}
	shuffled := slices.Clone(pods)
	enough := min(max(int(effort)/(len(pods)*len(boxes)+1), orders), mostOrders) / fewer
	passed := 0
	for i, limit := 0, 4*enough; passed < enough && i < limit; i++ {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		random.Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		choose := k.scheduler(random)
		if i%4 == 3 {
			choose = k.anyFit(random)
		}
		missing := k.run(boxes, shuffled, kinds, choose)
		if passed++; len(k.boxes) > len(boxes) || len(missing) > 0 {
			passed, k.failing = 0, nil
			if len(missing) > 0 {
				limit -= 3 // more machines do not help
			}
			for _, pod := range missing {
				k.failing = append(k.failing, pod.name)
			}
			for _, b := range k.boxes[len(boxes):] {
				k.failing = append(k.failing, b.Group)
			}
		}
		boxes = k.boxes
	}
	if passed == enough {
		k.failing = nil
	}
	settle()
	for _, b := range boxes {
		k.headroom[b.Group]++
		k.cost[b.Group] += b.Hourly
	}
	return unplaced
}

// cover adds the machines that a group needs at least, in each zone in turn.
func (k *packing) cover(g *group, kinds []*kind) {
	onDemand, others, _ := k.bound(kinds, k.byGroup[g.Name], k.order(g, kinds), g.zones())
	add := func(n int, may func(*kind) bool) {
		for range n {
			var best *kind
			least := math.MaxInt
			for _, kind := range kinds {
				if n := k.count(kind); may(kind) && n < least {
					best, least = kind, n
				}
			}
			if best != nil {
				k.put(newBox(best, nil))
			}
		}
	}
	add(onDemand, func(k *kind) bool { return !k.Spot })
	add(others, func(k *kind) bool { return !k.reserved })
}

// trim returns the machines without those that are empty, unless they are the last of their group in a zone.
func (k *packing) trim() (boxes []*box) {
	used := map[*box]bool{}
	for _, b := range k.at {
		used[b] = true
	}
	covered := map[[2]string]bool{}
	for _, b := range k.boxes {
		if used[b] || b.node != nil {
			covered[[2]string{b.Group, b.Zone}] = true
		}
	}
	for _, b := range k.boxes {
		zone := [2]string{b.Group, b.Zone}
		if used[b] || b.node != nil || !covered[zone] {
			boxes = append(boxes, b)
			covered[zone] = true
		}
	}
	return boxes
}

// estimate returns the result of the last packing.
func (k *packing) estimate() Estimate {
	pods := map[*box][]*pod{}
	subjects := map[string][]string{}
	for _, pod := range k.pods {
		pods[k.at[pod]] = append(pods[k.at[pod]], pod)
		if pod.fixed != "" && !pod.resident && pod.fixed != reasonNode {
			subjects[pod.fixed] = append(subjects[pod.fixed], pod.name)
		}
		if pod.onDemand != "" && !pod.node.ControlPlane {
			subjects[pod.onDemand] = append(subjects[pod.onDemand], pod.name)
		}
	}
	maps.Copy(subjects, k.left)
	subjects[reasonOrders] = k.failing
	var list []Machine
	bound := 0.0
	for _, b := range k.boxes {
		name := ""
		if b.node != nil {
			name = b.node.Name
			if !b.node.packed() {
				bound += b.Hourly
			}
		}
		list = append(list, machine(b.Row, name, pods[b]))
	}
	spent := costs(list)
	headroom, cost := 0, 0.0
	for _, g := range k.groups {
		bound += k.bounds[g.Name]
		headroom, cost = headroom+k.headroom[g.Name], cost+k.cost[g.Name]
		if why := k.gap(g.Name, spent[g.Name]); why != "" {
			subjects[why] = append(subjects[why], g.Name)
		}
	}
	maps.DeleteFunc(subjects, func(_ string, s []string) bool { return len(s) == 0 })
	return Estimate{Fleet: newFleet(list), Bound: bound * HoursPerMonth, Headroom: headroom,
		HeadroomMonthly: cost * HoursPerMonth, Reasons: reasonsOf(subjects)}
}

// gap returns why a group costs more than 10 % above its bound, or stays as it is, or "".
func (k *packing) gap(group string, cost float64) string {
	const more = 1.1
	switch {
	case k.kept[group]:
		return "the group stays as it is: no packing that was found costs less"
	case cost <= k.bounds[group]*more:
		return ""
	case cost-k.cost[group] <= k.bounds[group]*more:
		return "the group costs over 10 % more than its lower bound, because of the headroom for the scheduler"
	}
	return "the group costs over 10 % more than its lower bound: its pods are large compared with the machines, or their " +
		"constraints leave machines partly empty"
}
