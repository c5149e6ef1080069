package savings

import (
	"cmp"
	"encoding/json"
	"fmt"
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
	requests  []int64     // by rules.resources
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
	key      int // in rules.keys
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
	domains []int32         // by rules.keys; noDomain without the label
	daemons func() []*class // that run there
}

const (
	noDomain  int32 = -1
	newDomain int32 = -2 // the hostname of a machine that is not there yet
)

// rules knows what the scheduler's rules say of pods and machines, apart from what runs where.
type rules struct {
	resources  []corev1.ResourceName // CPU and memory first
	keys       []string              // topology keys
	values     []map[string]int32    // by topology key: the domain of each value
	terms      []*term
	termsByKey map[string]*term
	classes    map[string]*class
	shapes     map[string]*shape
	namespaces []corev1.Namespace
}

func newRules(namespaces []corev1.Namespace) *rules {
	return &rules{resources: []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}, namespaces: namespaces,
		termsByKey: map[string]*term{}, classes: map[string]*class{}, shapes: map[string]*shape{}}
}

// vector orders resources as in r.resources, and adds those that it does not have.
func (r *rules) vector(resources map[corev1.ResourceName]int64) []int64 {
	for _, name := range sortedKeys(resources) {
		if !slices.Contains(r.resources, name) {
			r.resources = append(r.resources, name)
		}
	}
	out := make([]int64, len(r.resources))
	for i, name := range r.resources {
		out[i] = resources[name]
	}
	return out
}

// classify returns the class of a pod. It requests the most that any of the pods like it requests, if there are any.
// Call it for all pods before the first packing.
func (r *rules) classify(pod *corev1.Pod, group string, onDemand bool, volumes []*corev1.PersistentVolume,
	like ...*corev1.Pod) (*class, error) {
	if len(like) == 0 {
		like = []*corev1.Pod{pod}
	}
	requested := map[corev1.ResourceName]int64{}
	var ports []hostPort
	for _, p := range like {
		for name, n := range requests(p) {
			requested[name] = max(requested[name], n)
		}
		for _, port := range hostPorts(p) {
			if !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	var zonal []any
	for _, v := range volumes {
		zonal = append(zonal, v.Spec.NodeAffinity, volumeZones(v))
		if v.Spec.CSI != nil {
			requested[volumesOf(v.Spec.CSI.Driver)]++
		}
	}
	key, err := json.Marshal([]any{pod.Namespace, pod.Labels, pod.Spec.NodeSelector, pod.Spec.Affinity,
		pod.Spec.Tolerations, pod.Spec.TopologySpreadConstraints, requested, fmt.Sprint(ports), zonal, group, onDemand})
	if err != nil {
		return nil, err
	}
	if c := r.classes[string(key)]; c != nil {
		return c, nil
	}
	c := &class{pod: pod, group: group, onDemand: onDemand, requests: r.vector(requested), ports: ports,
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
	if err := r.addTerms(c); err != nil {
		return nil, invalid("pod "+pod.Namespace+"/"+pod.Name, err)
	}
	r.classes[string(key)] = c
	return c, nil
}

func hostPorts(pod *corev1.Pod) (ports []hostPort) {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports = append(ports, hostPort{cmp.Or(port.HostIP, "0.0.0.0"), cmp.Or(port.Protocol, "TCP"), port.HostPort})
			}
		}
	}
	return ports
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

func (r *rules) addTerms(c *class) error {
	if a := c.pod.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			// One pod must match all terms: so does the scheduler read it.
			terms := a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution
			var all []matcher
			for _, t := range terms {
				m, err := r.matcher(c.pod, t)
				if err != nil {
					return err
				}
				all = append(all, m)
			}
			for _, t := range terms {
				c.affinity = append(c.affinity, r.term("affinity", c.pod.Namespace, t.TopologyKey, terms, term{matchers: all}))
			}
			c.self = len(c.affinity) > 0 && c.affinity[0].matches(c.pod)
		}
		if a.PodAntiAffinity != nil {
			for _, t := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
				m, err := r.matcher(c.pod, t)
				if err != nil {
					return err
				}
				c.anti = append(c.anti, r.term("anti", c.pod.Namespace, t.TopologyKey, t, term{matchers: []matcher{m}, anti: true}))
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
		t := r.term("spread", c.pod.Namespace, s.TopologyKey, []any{selector, keys, c.pod.Spec.NodeSelector, nodes},
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

func (r *rules) matcher(pod *corev1.Pod, t corev1.PodAffinityTerm) (matcher, error) {
	m := matcher{namespaces: map[string]bool{}}
	for _, name := range t.Namespaces {
		m.namespaces[name] = true
	}
	if t.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
		if err != nil {
			return m, err
		}
		for _, n := range r.namespaces {
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
func (r *rules) term(use, namespace, topologyKey string, selector any, t term) *term {
	id, _ := json.Marshal([]any{use, namespace, topologyKey, selector}) // API types: cannot fail
	if old := r.termsByKey[string(id)]; old != nil {
		return old
	}
	if t.key = slices.Index(r.keys, topologyKey); t.key < 0 {
		t.key = len(r.keys)
		r.keys, r.values = append(r.keys, topologyKey), append(r.values, map[string]int32{})
	}
	r.termsByKey[string(id)] = &t
	r.terms = append(r.terms, &t)
	return &t
}

// finish prepares for packing: it completes the vectors and finds the terms that select each class.
func (r *rules) finish() {
	byNamespace := map[string][]*term{}
	for _, t := range r.terms {
		for _, namespace := range sortedKeys(t.matchers[0].namespaces) {
			byNamespace[namespace] = append(byNamespace[namespace], t)
		}
	}
	for _, c := range r.classes {
		c.requests = append(c.requests, make([]int64, len(r.resources)-len(c.requests))...)
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
func (r *rules) shapeOf(labels map[string]string, taints []corev1.Taint) *shape {
	id, _ := json.Marshal([]any{labels, taints}) // strings: cannot fail
	if s := r.shapes[string(id)]; s != nil {
		return s
	}
	s := &shape{id: len(r.shapes), Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}}
	for i, key := range r.keys {
		value, ok := labels[key]
		switch {
		case key == corev1.LabelHostname:
			s.domains = append(s.domains, newDomain)
			continue
		case !ok:
			s.domains = append(s.domains, noDomain)
			continue
		}
		if _, ok := r.values[i][value]; !ok {
			r.values[i][value] = int32(len(r.values[i]))
		}
		s.domains = append(s.domains, r.values[i][value])
	}
	r.shapes[string(id)] = s
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
