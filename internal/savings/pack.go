package savings

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A kind is what a machine can be.
type kind struct {
	Row
	shape       *shape
	allocatable []int64 // by rules.resources; for new machines, without the share of static pods
	reserved    bool    // only for pods that stay on demand
}

// room returns what the DaemonSets leave of a machine.
func (k *kind) room() []int64 {
	room := slices.Clone(k.allocatable)
	for _, d := range k.shape.daemons() {
		for i, n := range d.requests {
			room[i] -= n
		}
	}
	return room
}

// A box is a machine during the packing.
type box struct {
	*kind
	index int
	node  *node // the node that stays
	free  []int64
	ports []hostPort
}

// packer places pods under the scheduler's rules.
type packer struct {
	*rules
	boxes   []*box
	byGroup map[string][]*box
	at      map[*pod]*box
}

// newBox returns an empty machine that is not there yet.
func newBox(k *kind, n *node) *box { return &box{kind: k, node: n, index: int(newDomain)} }

func (b *box) domain(t *term) int32 {
	if d := b.shape.domains[t.key]; d != newDomain {
		return d
	}
	return int32(b.index)
}

func at(counts []int32, domain int32) int32 {
	if domain < 0 || int(domain) >= len(counts) {
		return 0
	}
	return counts[domain]
}

func add(counts *[]int32, domain, n int32) {
	for int(domain) >= len(*counts) {
		*counts = append(*counts, 0)
	}
	(*counts)[domain] += n
}

// hasRoom reports whether a class may use a machine and its resources suffice, whatever other pods are where.
func (c *class) hasRoom(b *box) bool {
	if !c.mayUse(b.kind) {
		return false
	}
	for i, n := range c.requests {
		if n > 0 && n > b.free[i] {
			return false
		}
	}
	return true
}

// accepts reports whether the pods that are already placed leave the machine to the class.
func (c *class) accepts(b *box) bool {
	for _, p := range c.ports {
		for _, q := range b.ports {
			if p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == "0.0.0.0" || q.ip == "0.0.0.0") {
				return false
			}
		}
	}
	for _, t := range c.anti {
		if at(t.counts, b.domain(t)) > 0 {
			return false
		}
	}
	for _, t := range c.avoids {
		if at(t.owners, b.domain(t)) > 0 {
			return false
		}
	}
	for _, s := range c.spread {
		d := b.domain(s.term)
		least, domains := s.least, s.domains
		if at(s.nodes, d) == 0 {
			least, domains = 0, domains+1
		}
		if domains < s.minDomains {
			least = 0
		}
		if d == noDomain || at(s.counts, d)+s.self-least > s.maxSkew {
			return false
		}
	}
	beside, anywhere := true, false
	for _, t := range c.affinity {
		d := b.domain(t)
		if d == noDomain {
			return false
		}
		beside, anywhere = beside && at(t.counts, d) > 0, anywhere || t.total > 0
	}
	return beside || c.self && !anywhere // the first of pods that belong together
}

// put adds a machine.
func (p *packer) put(b *box) {
	b.index, b.free, b.ports = len(p.boxes), slices.Clone(b.allocatable), nil
	p.boxes = append(p.boxes, b)
	p.byGroup[b.Group] = append(p.byGroup[b.Group], b)
	for _, t := range p.terms {
		if d := b.domain(t); t.spread && d >= 0 && t.covers(b.shape) {
			if add(&t.nodes, d, 1); t.nodes[d] == 1 {
				add(&t.counts, d, 0)
				add(&t.with, 0, 1)
				t.domains, t.least = t.domains+1, 0
			}
		}
	}
	for _, c := range b.shape.daemons() {
		p.place(c, b)
	}
	if b.node != nil {
		for _, pod := range b.node.pods {
			if pod.fixed != "" {
				p.place(pod.class, b)
				p.at[pod] = b
			}
		}
	}
}

func (p *packer) place(c *class, b *box) {
	for i, n := range c.requests {
		b.free[i] -= n
	}
	b.ports = append(b.ports, c.ports...)
	for _, t := range c.counted {
		d := b.domain(t)
		if d < 0 || !t.covers(b.shape) {
			continue
		}
		t.total++
		add(&t.counts, d, 1)
		if t.spread {
			n := t.counts[d]
			add(&t.with, n, 1)
			t.with[n-1]--
			if n-1 == t.least && t.with[n-1] == 0 {
				t.least = n
			}
		}
	}
	for _, t := range c.anti {
		if d := b.domain(t); d >= 0 {
			add(&t.owners, d, 1)
		}
	}
}

// reset empties the machines, apart from what stays there.
func (p *packer) reset(boxes []*box) {
	for _, t := range p.terms {
		t.total, t.counts, t.owners, t.nodes, t.with, t.domains, t.least = 0, t.counts[:0], t.owners[:0], t.nodes[:0],
			t.with[:0], 0, 0
	}
	for _, c := range p.classes {
		c.next = 0
	}
	p.boxes, p.byGroup, p.at = nil, map[string][]*box{}, map[*pod]*box{}
	for _, b := range boxes {
		p.put(b)
	}
}

// run empties the machines and places pods in the given order, where choose says. It opens machines of the group's
// kinds where that returns nil. It returns the pods for which even that does not help.
func (p *packer) run(boxes []*box, pods []*pod, kinds map[string][]*kind, choose func(*class) *box) (unplaced []*pod) {
	p.reset(boxes)
	for left := -1; len(pods) > 0 && len(pods) != left; pods, unplaced = unplaced, nil {
		left = len(pods)
		for _, pod := range pods {
			b := choose(pod.class)
			if b == nil {
				b = p.open(pod.class, kinds[pod.class.group])
			}
			if b == nil {
				unplaced = append(unplaced, pod) // once more: the pods that it must run beside may come later
				continue
			}
			p.place(pod.class, b)
			p.at[pod] = b
		}
	}
	return pods
}

// open adds a machine for a class: Spot if it may be, in the zone that has fewest.
func (p *packer) open(c *class, kinds []*kind) *box {
	var best *box
	least := 0
	for _, k := range kinds {
		b := newBox(k, nil)
		b.free = k.room()
		for _, d := range k.shape.daemons() {
			b.ports = append(b.ports, d.ports...)
		}
		if !c.hasRoom(b) || !c.accepts(b) {
			continue
		}
		n := p.count(k)
		if best == nil || k.Spot && !best.Spot || k.Spot == best.Spot && (n < least || n == least && k.Hourly < best.Hourly) {
			best, least = b, n
		}
	}
	if best != nil {
		p.put(best)
	}
	return best
}

// count returns how many machines of a kind's group are in its zone: -1 if there is none, not even of another kind.
func (p *packer) count(k *kind) (n int) {
	covered := false
	for _, b := range p.byGroup[k.Group] {
		if b.Zone == k.Zone {
			covered = true
			if b.Spot == k.Spot {
				n++
			}
		}
	}
	if !covered {
		return -1
	}
	return n
}

// firstFit chooses the first machine of the class's own group.
func (p *packer) firstFit(c *class) *box {
	boxes := p.byGroup[c.group]
	for i := c.next; i < len(boxes); i++ {
		if !c.hasRoom(boxes[i]) {
			if i == c.next {
				c.next++ // machines only fill up
			}
		} else if c.accepts(boxes[i]) {
			return boxes[i]
		}
	}
	return nil
}

var nothing = &class{requests: []int64{0, 0}}

// shares returns which parts of a machine's CPU and memory would be free with one more pod of a class.
func (p *packer) shares(c *class, b *box) (cpu, memory float64) {
	share := func(i int) float64 { return float64(b.free[i]-c.requests[i]) / float64(max(b.allocatable[i], 1)) }
	return share(0), share(1)
}

// evenest chooses the machine of the class's own group of which CPU and memory would be used most evenly.
func (p *packer) evenest(c *class) (best *box) {
	least := math.Inf(1)
	for _, b := range p.byGroup[c.group] {
		if !c.hasRoom(b) {
			continue
		}
		cpu, memory := p.shares(c, b)
		if score := math.Abs(cpu - memory); score < least && c.accepts(b) {
			best, least = b, score
		}
	}
	return best
}

// scheduler chooses in any group, as the default scores NodeResourcesFit and NodeResourcesBalancedAllocation do. Of
// equal scores, it takes one at random.
func (p *packer) scheduler(random *rand.Rand) func(*class) *box {
	return func(c *class) (best *box) {
		most, equal := -1, 0
		for _, b := range p.boxes {
			if !c.hasRoom(b) {
				continue
			}
			cpu, memory := p.shares(c, b)
			balance := func(cpu, memory float64) int { return int(100 * (1 - math.Abs(cpu-memory)/2)) }
			score := (int(100*cpu)+int(100*memory))/2 + (100+balance(cpu, memory)-balance(p.shares(nothing, b)))/2
			if score < most || !c.accepts(b) {
				continue
			}
			if score > most {
				most, equal = score, 0
			}
			if equal++; random.IntN(equal) == 0 {
				best = b
			}
		}
		return best
	}
}

// anyFit chooses at random, for the scheduler's other scores.
func (p *packer) anyFit(random *rand.Rand) func(c *class) *box {
	return func(c *class) *box {
		n := len(p.boxes)
		for i, start := 0, random.IntN(max(n, 1)); i < n; i++ {
			if b := p.boxes[(start+i)%n]; c.hasRoom(b) && c.accepts(b) {
				return b
			}
		}
		return nil
	}
}
