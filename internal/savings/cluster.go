package savings

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	hostname        = corev1.LabelHostname
	labelSpotWorker = "node-role.kubernetes.io/spot-worker" // set by kOps on Spot instances

	// kernelShare is the part of the memory that a node does not report as capacity, if no node of its group shows it or
	// its type is smaller than theirs. The kernel takes less on larger machines.
	kernelShare = 0.075
)

// A node is a node of the cluster, with the pods that belong to it.
type node struct {
	*Node
	pods        []*pod
	allocatable []int64
}

// packed reports whether the pods of a node may move.
func (n *node) packed() bool { return n.Group != "" && !n.ControlPlane }

// A group is an instance group, and what its next machine will be like.
type group struct {
	Group
	nodes  []*node
	labels map[string]string // that all nodes have
	ofType map[string]string // labels that are the node's type on all nodes
	ofZone map[string]string // labels that are the node's zone on all nodes
	taints []corev1.Taint    // that all nodes have
	static []int64           // what static pods request on a machine
	kinds  map[string][]*kind
}

// planner knows the cluster and the prices.
type planner struct {
	*packer
	catalog Catalog
	nodes   []*node
	pods    []*pod
	daemons []*class
	groups  []*group
	left    map[string][]string // pods and nodes that are left out, by reason

	daemonPods map[string][]*corev1.Pod // by namespace/name of the DaemonSet

	selected map[*term][]*pod // pods that an affinity selects
}

func newPlanner(c Cluster, catalog Catalog) (*planner, error) {
	p := &planner{packer: &packer{rules: newRules(c.Namespaces)}, catalog: catalog, left: map[string][]string{},
		daemonPods: map[string][]*corev1.Pod{}}
	in, err := newInspector(c)
	if err != nil {
		return nil, err
	}
	byName := map[string]*node{} // nil if the node is left out
	var unpriced error
	for i := range c.Nodes {
		n := &node{Node: &c.Nodes[i]}
		if err := p.priced(n); err != nil {
			byName[n.Name], unpriced = nil, cmp.Or(unpriced, err)
			p.left[reasonUnpriced] = append(p.left[reasonUnpriced], n.Name)
			continue
		}
		p.nodes, byName[n.Name] = append(p.nodes, n), n
	}
	if len(p.nodes) == 0 && unpriced != nil {
		return nil, unpriced
	}
	slices.SortFunc(p.nodes, func(a, b *node) int { return cmp.Compare(a.Name, b.Name) })

	for i := range c.Pods {
		if err := p.addPod(in, &c.Pods[i], byName); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(p.pods, func(a, b *pod) int { return cmp.Compare(a.name, b.name) })
	seen := map[types.UID]int{}
	for _, pod := range p.pods {
		if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
			pod.ordinal = seen[owner.UID]
			seen[owner.UID]++
		}
	}
	for i := range c.DaemonSets {
		d := &c.DaemonSets[i]
		daemon := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
		daemon.Name, daemon.Namespace = d.Name, d.Namespace
		// Only pods have defaults, overhead, sidecars and the ports of the host's network.
		class, err := p.classify(daemon, "", false, nil, p.daemonPods[d.Namespace+"/"+d.Name]...)
		if err != nil {
			return nil, err
		}
		p.daemons = append(p.daemons, class)
	}
	p.finish()

	limits := map[string]map[string]int32{} // of attached volumes, by node and driver
	for _, n := range c.CSINodes {
		limits[n.Name] = map[string]int32{}
		for _, d := range n.Spec.Drivers {
			if d.Allocatable != nil && d.Allocatable.Count != nil {
				limits[n.Name][d.Name] = *d.Allocatable.Count
			}
		}
	}
	for _, n := range p.nodes {
		n.allocatable = p.allocatable(n.Status.Allocatable, limits[n.Name])
	}
	p.addGroups(c.Groups)
	for _, pod := range p.pods {
		p.inspect(pod)
	}
	p.inspectAffinity()
	return p, nil
}

// priced returns an error if a node cannot be priced.
func (p *planner) priced(n *node) error {
	t, zone := n.kind()
	if t == "" || zone == "" {
		return fmt.Errorf("reading node %s: it has no label %s or %s: wait until the cloud controller has set them",
			n.Name, corev1.LabelInstanceTypeStable, corev1.LabelTopologyZone)
	}
	if p.catalog.OnDemand[t] == 0 {
		return fmt.Errorf("pricing node %s: there is no on-demand price for %s: add it to the prices", n.Name, t)
	}
	if n.Spot && p.catalog.Spot[Offer{t, zone}] == 0 {
		return fmt.Errorf("pricing node %s: there is no Spot price for %s in %s: add it to the prices", n.Name, t, zone)
	}
	return nil
}

func (n Node) kind() (instanceType, zone string) {
	return n.Labels[corev1.LabelInstanceTypeStable], n.Labels[corev1.LabelTopologyZone]
}

func (p *planner) addPod(in *inspector, object *corev1.Pod, nodes map[string]*node) error {
	name := object.Namespace + "/" + object.Name
	n, known := nodes[object.Spec.NodeName]
	owner := metav1.GetControllerOfNoCopy(object)
	switch {
	case known && n == nil:
		return nil // left out with its node
	case n == nil || !isRunning(object):
		p.left[reasonPending] = append(p.left[reasonPending], name)
		return nil
	case owner != nil && owner.Kind == "DaemonSet" && strings.HasPrefix(owner.APIVersion, "apps/"):
		set := object.Namespace + "/" + owner.Name
		p.daemonPods[set] = append(p.daemonPods[set], object)
		return nil // each machine has its share
	case object.Spec.Priority != nil && *object.Spec.Priority < 0:
		p.left[reasonPlaceholder] = append(p.left[reasonPlaceholder], name)
		return nil
	}
	var volumes []*corev1.PersistentVolume
	for _, claim := range claimNames(object) {
		if v := in.volume(claim); v != nil {
			volumes = append(volumes, v)
		}
	}
	pod := &pod{Pod: object, name: name, node: n}
	_, mirror := object.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case mirror:
		pod.resident, pod.fixed = true, reasonNode
	case !n.packed():
		pod.fixed = reasonNode
	default:
		pod.fixed = in.fixed(object)
	}
	if !n.Spot && !mirror { // pods that run on Spot now may stay there
		pod.onDemand = in.onDemand(object)
	}
	var err error
	pod.class, err = p.classify(object, n.Group, pod.onDemand != "", volumes)
	p.pods, n.pods = append(p.pods, pod), append(n.pods, pod)
	return err
}

// allocatable orders what a node offers as in p.resources. Attached volumes are unlimited unless the driver says so.
func (p *planner) allocatable(list corev1.ResourceList, volumes map[string]int32) []int64 {
	out := make([]int64, len(p.resources))
	for i, name := range p.resources {
		q := list[name]
		driver, isVolume := strings.CutPrefix(string(name), string(volumesOf("")))
		limit, limited := volumes[driver]
		switch {
		case isVolume && limited:
			out[i] = int64(limit)
		case isVolume:
			out[i] = math.MaxInt32
		case name == corev1.ResourceCPU:
			out[i] = q.MilliValue()
		default:
			out[i] = q.Value()
		}
	}
	return out
}

// shapeFor returns the shape of a machine that has the labels of another one, on Spot or not. The hostname is not among
// them: pods that need a certain one do not move. On Spot, neither are labels that say on demand: Karpenter's
// karpenter.sh/capacity-type, and those of users.
func (p *planner) shapeFor(labels map[string]string, taints []corev1.Taint, spot bool) *shape {
	labels = maps.Clone(labels)
	delete(labels, hostname)
	delete(labels, labelSpotWorker)
	if spot {
		maps.DeleteFunc(labels, func(_, value string) bool {
			return strings.EqualFold(strings.ReplaceAll(value, "-", ""), "ondemand")
		})
		labels[labelSpotWorker] = "true"
	}
	s := p.shapeOf(labels, taints)
	if s.daemons == nil {
		s.daemons = sync.OnceValue(func() []*class { return p.daemonsOn(s) })
	}
	return s
}

// daemonsOn returns the DaemonSets whose pods run on a shape. They tolerate the node's conditions.
func (p *planner) daemonsOn(s *shape) (out []*class) {
	for _, d := range p.daemons {
		if d.selects(s) && d.tolerates(s, "node.kubernetes.io/") {
			out = append(out, d)
		}
	}
	return out
}

// addGroups finds what the nodes of each group have in common.
func (p *planner) addGroups(known []Group) {
	byName := map[string]*group{}
	for _, n := range p.nodes {
		if !n.packed() {
			continue
		}
		g := byName[n.Group]
		if g == nil {
			g = &group{Group: Group{Name: n.Group}, kinds: map[string][]*kind{}, static: make([]int64, len(p.resources))}
			if i := slices.IndexFunc(known, func(k Group) bool { return k.Name == n.Group }); i >= 0 {
				g.Types, g.Zones = slices.Clone(known[i].Types), slices.Clone(known[i].Zones)
			}
			byName[n.Group] = g
			p.groups = append(p.groups, g)
		}
		g.nodes = append(g.nodes, n)
	}
	slices.SortFunc(p.groups, func(a, b *group) int { return cmp.Compare(a.Name, b.Name) })
	for _, g := range p.groups {
		g.Zones = sorted(append(g.Zones, g.zones()...))
		g.Types = sorted(append(g.Types, g.present()...))
		first := g.nodes[0]
		g.labels, g.taints = maps.Clone(first.Labels), slices.Clone(first.Spec.Taints)
		g.ofType, g.ofZone = maps.Clone(g.labels), maps.Clone(g.labels)
		for _, n := range g.nodes {
			t, zone := n.kind()
			maps.DeleteFunc(g.labels, func(key, value string) bool {
				other, ok := n.Labels[key]
				return !ok || other != value
			})
			maps.DeleteFunc(g.ofType, func(key, _ string) bool { return n.Labels[key] != t })
			maps.DeleteFunc(g.ofZone, func(key, _ string) bool { return n.Labels[key] != zone })
			g.taints = slices.DeleteFunc(g.taints, func(t corev1.Taint) bool {
				return strings.HasPrefix(t.Key, "node.kubernetes.io/") || strings.HasPrefix(t.Key, "node.cloudprovider") ||
					!slices.ContainsFunc(n.Spec.Taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) && o.Value == t.Value })
			})
			static := make([]int64, len(p.resources))
			for _, pod := range n.pods {
				if pod.resident {
					for i, r := range pod.class.requests {
						static[i] += r
						g.static[i] = max(g.static[i], static[i])
					}
				}
			}
		}
	}
}

// present returns the types of the group's nodes.
func (g *group) present() (out []string) {
	for _, n := range g.nodes {
		t, _ := n.kind()
		out = append(out, t)
	}
	return sorted(out)
}

// zones returns the zones of the group's nodes.
func (g *group) zones() (out []string) {
	for _, n := range g.nodes {
		_, zone := n.kind()
		out = append(out, zone)
	}
	return sorted(out)
}

// sizes returns the types of the group's families and architecture.
func (p *planner) sizes(g *group) (out []string) {
	families, architectures := map[string]bool{}, map[string]bool{}
	for _, t := range g.Types {
		families[family(t)] = true
		architectures[p.catalog.Types[t].Architecture] = true
	}
	for t, offer := range p.catalog.Types {
		if families[family(t)] && architectures[offer.Architecture] && p.catalog.OnDemand[t] > 0 &&
			offer.VCPU > 0 && !strings.Contains(t, "metal") {
			out = append(out, t)
		}
	}
	return sorted(append(out, g.present()...))
}

func family(t string) string {
	f, _, _ := strings.Cut(t, ".")
	return f
}

// kindsOf returns what machines of a type can be in the group's zones.
func (p *planner) kindsOf(g *group, t string) []*kind {
	if kinds, ok := g.kinds[t]; ok {
		return kinds
	}
	var kinds []*kind
	allocatable := p.allocatableOf(g, t)
	for i := range allocatable {
		allocatable[i] -= g.static[i]
	}
	for _, zone := range g.Zones {
		row := Row{Group: g.Name, Type: t, Zone: zone, Count: 1, Hourly: p.catalog.OnDemand[t]}
		rows := []Row{row}
		if why := p.spotRow(&row); why == "" {
			rows = append(rows, row)
		}
		for _, row := range rows {
			labels := maps.Clone(g.labels)
			for key := range g.ofType {
				labels[key] = t
			}
			for key := range g.ofZone {
				labels[key] = zone
			}
			k := &kind{Row: row, shape: p.shapeFor(labels, g.taints, row.Spot), allocatable: allocatable,
				reserved: !row.Spot && len(rows) > 1}
			kinds = append(kinds, k)
		}
	}
	g.kinds[t] = kinds
	return kinds
}

// spotRow makes a row Spot, or returns why that is not possible.
func (p *planner) spotRow(r *Row) (why string) {
	price := p.catalog.Spot[Offer{r.Type, r.Zone}]
	switch {
	case !p.catalog.Types[r.Type].Spot || price == 0:
		return "their type has no Spot price in their zone"
	case price >= r.Hourly:
		return "Spot does not cost less than on demand there"
	}
	r.Spot, r.Hourly = true, price
	return ""
}

// allocatableOf returns what a machine of a type offers in a group. If the group has such nodes, it is the least of
// what they offer. Otherwise it is what the type has, less the largest reserve of the group's nodes.
func (p *planner) allocatableOf(g *group, t string) []int64 {
	least := func(nodes []*node) (out []int64) {
		for _, n := range nodes {
			if out == nil {
				out = slices.Clone(n.allocatable)
			}
			for i, r := range n.allocatable {
				out[i] = min(out[i], r)
			}
		}
		return out
	}
	if same := slices.DeleteFunc(slices.Clone(g.nodes), func(n *node) bool {
		other, _ := n.kind()
		return other != t
	}); len(same) > 0 {
		return least(same)
	}
	offer := p.catalog.Types[t]
	cpu, memory, kernel, byAddress := int64(0), int64(0), 0.0, false
	for _, n := range g.nodes {
		c, a := n.Status.Capacity, n.Status.Allocatable
		cpu = max(cpu, c.Cpu().MilliValue()-a.Cpu().MilliValue())
		memory = max(memory, c.Memory().Value()-a.Memory().Value())
		name, _ := n.kind()
		sold := p.catalog.Types[name]
		if sold.Memory <= 0 || sold.Memory > offer.Memory {
			kernel = max(kernel, kernelShare)
		}
		if sold.Memory > 0 {
			kernel = max(kernel, 1-float64(c.Memory().Value())/float64(sold.Memory))
		}
		byAddress = byAddress || sold.Pods > 0 && a.Pods().Value() == sold.Pods
	}
	out := least(g.nodes)
	for i, name := range p.resources {
		switch name {
		case corev1.ResourceCPU:
			out[i] = offer.VCPU*1000 - cpu
		case corev1.ResourceMemory:
			out[i] = int64(float64(offer.Memory)*(1-kernel)) - memory
		case corev1.ResourcePods:
			if byAddress && offer.Pods > 0 {
				out[i] = offer.Pods
			}
		case "nvidia.com/gpu":
			if out[i] > 0 {
				out[i] = offer.GPUs
			}
		case corev1.ResourceEphemeralStorage:
		default:
			if !strings.HasPrefix(string(name), string(volumesOf(""))) {
				out[i] = 0 // nobody knows how many devices it has
			}
		}
	}
	return out
}

// inspect finds why a pod may not move or may not run on Spot, as far as the machines of its group say so.
func (p *planner) inspect(pod *pod) {
	n := pod.node
	if !n.Spot && !pod.resident && pod.onDemand == "" && pod.class.selects(p.shapeFor(n.Labels, n.Spec.Taints, false)) &&
		!pod.class.selects(p.shapeFor(n.Labels, n.Spec.Taints, true)) {
		pod.onDemand, pod.class.onDemand = reasonExclude, true
	}
	i := slices.IndexFunc(p.groups, func(g *group) bool { return g.Name == n.Group })
	if pod.fixed != "" || i < 0 {
		return
	}
	t, _ := n.kind()
	if !slices.ContainsFunc(p.kindsOf(p.groups[i], t), pod.class.mayUse) {
		pod.fixed = reasonSelector
	}
}

// inspectAffinity keeps pods where they are if their affinity is to pods of another group, because groups are packed
// one by one. It then extends what stays to the pods beside which it must run.
func (p *planner) inspectAffinity() {
	p.selected = map[*term][]*pod{}
	for _, pod := range p.pods {
		for _, t := range pod.class.counted {
			if !t.anti && !t.spread {
				p.selected[t] = append(p.selected[t], pod)
			}
		}
	}
	across := map[*term]map[string]bool{} // groups that do not have all of the pods
	for t, pods := range p.selected {
		across[t] = map[string]bool{}
		for _, pod := range pods {
			across[t][pod.node.Group] = true
		}
	}
	for _, pod := range p.pods {
		for _, t := range pod.class.affinity {
			if pod.fixed == "" && (len(across[t]) > 1 || !across[t][pod.node.Group]) {
				pod.fixed = reasonAcross
			}
		}
	}
	for _, pod := range p.pods {
		if pod.fixed != "" {
			p.fix(pod, pod.fixed)
		}
	}
}

// fix keeps a pod on its node, and the pods beside which it must run on theirs.
func (p *planner) fix(a *pod, why string) {
	a.fixed = why
	for _, t := range a.class.affinity {
		key := p.keys[t.key]
		for _, b := range p.selected[t] {
			if b.fixed == "" && b.node.Labels[key] == a.node.Labels[key] {
				p.fix(b, reasonBeside)
			}
		}
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func invalid(what string, err error) error {
	return fmt.Errorf("reading %s: %w: correct it or remove it from the input", what, err)
}
