package savings

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// A class is a set of pods that are the same to the scheduler.
type class struct {
	pod       *corev1.Pod // one of them
	group     string      // in which they run
	onDemand  bool        // they stay on demand
	requests  []int64     // by packer.resources
	ports     []hostPort
	required  nodeaffinity.RequiredNodeAffinity
	selectors []*nodeaffinity.NodeSelector // of their volumes
	zones     []map[string][]string        // labels of their volumes, with the allowed values

	affinity, anti []*term
	self           bool // they match their own affinity
	spread         []spread
	counted        []*term // terms that select them
	avoids         []*term // anti-affinity terms of any pod that select them

	fits []int8 // by shape; 0 is unknown
	next int    // machines of the group before this one have no room
}

type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

type spread struct {
	*term
	maxSkew, minDomains int32
	self                int32 // 1 if the pods match the selector
}

// A term is a topology key and what selects pods, and counts those pods in each domain of the key.
type term struct {
	key      int // in packer.keys
	matchers []matcher
	anti     bool
	// A topology spread counts only the nodes that its pods may use.
	spread   bool
	keys     []string // labels that these nodes have
	required nodeaffinity.RequiredNodeAffinity
	shapes   map[*shape]bool

	total   int32
	counts  []int32 // selected pods by domain
	owners  []int32 // pods that have the term, by domain
	nodes   []int32 // machines by domain
	domains int32
	with    []int32 // domains by number of selected pods
	least   int32   // selected pods in the domain that has fewest
}

type matcher struct {
	namespaces map[string]bool
	selector   labels.Selector
}

func (t *term) matches(p *corev1.Pod) bool {
	return !slices.ContainsFunc(t.matchers, func(m matcher) bool {
		return !m.namespaces[p.Namespace] || !m.selector.Matches(labels.Set(p.Labels))
	})
}

// A shape is what node selectors and taints see of a machine. All machines have their own hostname.
type shape struct {
	*corev1.Node
	id      int
	domains []int32 // by packer.keys; noDomain without the label
}

// A kind is what a machine can be.
type kind struct {
	Row
	shape       *shape
	allocatable []int64  // by packer.resources; for new machines, without the share of static pods
	daemons     []*class // that run there
	reserved    bool     // only for pods that stay on demand
}

// room returns what the DaemonSets leave of a machine.
func (k *kind) room() []int64 {
	room := slices.Clone(k.allocatable)
	for _, d := range k.daemons {
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

const (
	noDomain  int32 = -1
	newDomain int32 = -2 // the hostname of a machine that is not there yet
)

// packer places pods under the scheduler's rules.
type packer struct {
	resources  []corev1.ResourceName
	keys       []string // topology keys
	values     []map[string]int32
	terms      []*term
	termsByKey map[string]*term
	classes    map[string]*class
	shapes     map[string]*shape
	namespaces []corev1.Namespace

	boxes   []*box
	byGroup map[string][]*box
	at      map[*pod]*box
}

func newPacker(namespaces []corev1.Namespace) *packer {
	return &packer{resources: []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}, termsByKey: map[string]*term{}, classes: map[string]*class{}, shapes: map[string]*shape{},
		namespaces: namespaces}
}

// vector orders resources as in p.resources, and adds those that it does not have.
func (p *packer) vector(resources map[corev1.ResourceName]int64) []int64 {
	for _, name := range sortedKeys(resources) {
		if !slices.Contains(p.resources, name) {
			p.resources = append(p.resources, name)
		}
	}
	out := make([]int64, len(p.resources))
	for i, name := range p.resources {
		out[i] = resources[name]
	}
	return out
}

// classify returns the class of a pod. Call it for all pods before the first packing.
func (p *packer) classify(pod *corev1.Pod, group string, onDemand bool, volumes []*corev1.PersistentVolume) (*class, error) {
	requested := requests(pod)
	var zonal []any
	for _, v := range volumes {
		zonal = append(zonal, v.Spec.NodeAffinity, volumeZones(v))
		if v.Spec.CSI != nil {
			requested[volumesOf(v.Spec.CSI.Driver)]++
		}
	}
	var ports []hostPort
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, hostPort{cmp.Or(port.HostIP, "0.0.0.0"), cmp.Or(port.Protocol, "TCP"), port.HostPort})
			}
		}
	}
	key, err := json.Marshal([]any{pod.Namespace, pod.Labels, pod.Spec.NodeSelector, pod.Spec.Affinity,
		pod.Spec.Tolerations, pod.Spec.TopologySpreadConstraints, requested, fmt.Sprint(ports), zonal, group, onDemand})
	if err != nil {
		return nil, err
	}
	if c := p.classes[string(key)]; c != nil {
		return c, nil
	}
	c := &class{pod: pod, group: group, onDemand: onDemand, requests: p.vector(requested), ports: ports,
		required: nodeaffinity.GetRequiredNodeAffinity(pod)}
	for _, v := range volumes {
		c.zones = append(c.zones, volumeZones(v))
		if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
			selector, err := nodeaffinity.NewNodeSelector(a.Required)
			if err != nil {
				return nil, invalid("PersistentVolume "+v.Name, err)
			}
			c.selectors = append(c.selectors, selector)
		}
	}
	if err := p.addTerms(c); err != nil {
		return nil, invalid("pod "+pod.Namespace+"/"+pod.Name, err)
	}
	p.classes[string(key)] = c
	return c, nil
}

// volumesOf names the number of volumes of a driver that are attached to a node, as a resource.
func volumesOf(driver string) corev1.ResourceName {
	return corev1.ResourceName("attached-volumes/" + driver)
}

// volumeZones returns the labels with which the in-tree plugin marked the zones of its volumes.
func volumeZones(v *corev1.PersistentVolume) map[string][]string {
	out := map[string][]string{}
	for key, value := range v.Labels {
		switch key {
		case corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone:
			out[corev1.LabelTopologyZone] = strings.Split(value, "__")
		case corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaRegion:
			out[corev1.LabelTopologyRegion] = strings.Split(value, "__")
		}
	}
	return out
}

func (p *packer) addTerms(c *class) error {
	if a := c.pod.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			// One pod must match all terms: so does the scheduler read it.
			terms := a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			var all []matcher
			for _, t := range terms {
				m, err := p.matcher(c.pod, t)
				if err != nil {
					return err
				}
				all = append(all, m)
			}
			for _, t := range terms {
				c.affinity = append(c.affinity, p.term("affinity", c.pod.Namespace, t.TopologyKey, terms, term{matchers: all}))
			}
			c.self = len(c.affinity) > 0 && c.affinity[0].matches(c.pod)
		}
		if a.PodAntiAffinity != nil {
			for _, t := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				m, err := p.matcher(c.pod, t)
				if err != nil {
					return err
				}
				c.anti = append(c.anti, p.term("anti", c.pod.Namespace, t.TopologyKey, t, term{matchers: []matcher{m}, anti: true}))
			}
		}
	}
	var keys []string
	for _, s := range c.pod.Spec.TopologySpreadConstraints {
		if s.WhenUnsatisfiable == corev1.DoNotSchedule {
			keys = append(keys, s.TopologyKey)
		}
	}
	for _, s := range c.pod.Spec.TopologySpreadConstraints {
		if s.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		selector := s.LabelSelector.DeepCopy()
		for _, key := range s.MatchLabelKeys {
			if value, ok := c.pod.Labels[key]; ok && selector != nil {
				selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: key,
					Operator: metav1.LabelSelectorOpIn, Values: []string{value}})
			}
		}
		compiled, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return err
		}
		var nodes *corev1.NodeAffinity
		if c.pod.Spec.Affinity != nil {
			nodes = c.pod.Spec.Affinity.NodeAffinity
		}
		t := p.term("spread", c.pod.Namespace, s.TopologyKey, []any{selector, keys, c.pod.Spec.NodeSelector, nodes},
			term{spread: true, keys: keys, required: c.required, shapes: map[*shape]bool{},
				matchers: []matcher{{map[string]bool{c.pod.Namespace: true}, compiled}}})
		constraint := spread{term: t, maxSkew: s.MaxSkew, minDomains: 1}
		if s.MinDomains != nil {
			constraint.minDomains = *s.MinDomains
		}
		if t.matches(c.pod) {
			constraint.self = 1
		}
		c.spread = append(c.spread, constraint)
	}
	return nil
}

func (p *packer) matcher(pod *corev1.Pod, t corev1.PodAffinityTerm) (matcher, error) {
	m := matcher{namespaces: map[string]bool{}}
	for _, name := range t.Namespaces {
		m.namespaces[name] = true
	}
	if t.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		if err != nil {
			return m, err
		}
		for _, n := range p.namespaces {
			if selector.Matches(labels.Set(n.Labels)) {
				m.namespaces[n.Name] = true
			}
		}
	} else if len(t.Namespaces) == 0 {
		m.namespaces[pod.Namespace] = true
	}
	var err error
	m.selector, err = metav1.LabelSelectorAsSelector(t.LabelSelector)
	return m, err
}

// term returns the one term of its use, namespace, topology key and selector.
func (p *packer) term(use, namespace, topologyKey string, selector any, t term) *term {
	id, _ := json.Marshal([]any{use, namespace, topologyKey, selector}) // API types: cannot fail
	if old := p.termsByKey[string(id)]; old != nil {
		return old
	}
	if t.key = slices.Index(p.keys, topologyKey); t.key < 0 {
		t.key = len(p.keys)
		p.keys, p.values = append(p.keys, topologyKey), append(p.values, map[string]int32{})
	}
	p.termsByKey[string(id)] = &t
	p.terms = append(p.terms, &t)
	return &t
}

// finish prepares for packing: it completes the vectors and finds the terms that select each class.
func (p *packer) finish() {
	byNamespace := map[string][]*term{}
	for _, t := range p.terms {
		for _, namespace := range sortedKeys(t.matchers[0].namespaces) {
			byNamespace[namespace] = append(byNamespace[namespace], t)
		}
	}
	for _, c := range p.classes {
		c.requests = append(c.requests, make([]int64, len(p.resources)-len(c.requests))...)
		for _, t := range byNamespace[c.pod.Namespace] {
			if !t.matches(c.pod) {
				continue
			}
			c.counted = append(c.counted, t)
			if t.anti {
				c.avoids = append(c.avoids, t)
			}
		}
	}
}

// shapeOf returns the shape of a node. Only its labels and taints count.
func (p *packer) shapeOf(labels map[string]string, taints []corev1.Taint) *shape {
	id, _ := json.Marshal([]any{labels, taints}) // strings: cannot fail
	if s := p.shapes[string(id)]; s != nil {
		return s
	}
	s := &shape{id: len(p.shapes), Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}}
	for i, key := range p.keys {
		value, ok := labels[key]
		switch {
		case key == corev1.LabelHostname:
			s.domains = append(s.domains, newDomain)
			continue
		case !ok:
			s.domains = append(s.domains, noDomain)
			continue
		}
		if _, ok := p.values[i][value]; !ok {
			p.values[i][value] = int32(len(p.values[i]))
		}
		s.domains = append(s.domains, p.values[i][value])
	}
	p.shapes[string(id)] = s
	return s
}

// matches reports whether a class may run on a shape: taints, node selector, node affinity and volumes.
func (c *class) matches(s *shape) bool {
	for len(c.fits) <= s.id {
		c.fits = append(c.fits, 0)
	}
	if c.fits[s.id] == 0 {
		c.fits[s.id] = -1
		if c.tolerates(s, "") && c.selects(s) {
			c.fits[s.id] = 1
		}
	}
	return c.fits[s.id] > 0
}

// mayUse reports whether a class may run on a kind of machine that is empty and large enough.
func (c *class) mayUse(k *kind) bool {
	return (c.onDemand && !k.Spot || !c.onDemand && !k.reserved) && c.matches(k.shape)
}

func (c *class) tolerates(s *shape, except string) bool {
	_, found := helpers.FindMatchingUntoleratedTaint(klog.Background(), s.Spec.Taints, c.pod.Spec.Tolerations,
		func(t *corev1.Taint) bool {
			return t.Effect != corev1.TaintEffectPreferNoSchedule && (except == "" || !strings.HasPrefix(t.Key, except))
		}, false)
	return !found
}

func (c *class) selects(s *shape) bool {
	if ok, err := c.required.Match(s.Node); !ok || err != nil {
		return false
	}
	for _, zones := range c.zones {
		for key, values := range zones {
			if !slices.Contains(values, s.Labels[key]) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(c.selectors, func(n *nodeaffinity.NodeSelector) bool { return !n.Match(s.Node) })
}

// covers reports whether a topology spread counts the pods on a shape.
func (t *term) covers(s *shape) bool {
	if !t.spread {
		return true
	}
	ok, known := t.shapes[s]
	if !known {
		ok, _ = t.required.Match(s.Node)
		ok = ok && !slices.ContainsFunc(t.keys, func(key string) bool {
			_, ok := s.Labels[key]
			return !ok && key != corev1.LabelHostname
		})
		t.shapes[s] = ok
	}
	return ok
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
	for _, c := range b.daemons {
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
		for _, d := range k.daemons {
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

// emptiest chooses as the scheduler's default score NodeResourcesFit does, in any group.
func (p *packer) emptiest(c *class) (best *box) {
	most := math.Inf(-1)
	for _, b := range p.boxes {
		if !c.hasRoom(b) {
			continue
		}
		cpu, memory := p.shares(c, b)
		if score := cpu + memory; score > most && c.accepts(b) {
			best, most = b, score
		}
	}
	return best
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
