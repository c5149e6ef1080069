package savings_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/castai/kops-spot/internal/savings"
)

// A machine is a machine as the tests see it: they check a finished placement, rule by rule and without the packing's
// types.
type machine struct {
	name        string
	spot        bool
	labels      map[string]string
	taints      []corev1.Taint
	allocatable map[corev1.ResourceName]int64
	used        map[corev1.ResourceName]int64
	pods        []*corev1.Pod
	volumes     int // how many fit; 0 is unlimited
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) int64 {
	q := list[name]
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

// add adds a pod's requests. Init containers run one after the other, before the others.
func (m *machine) add(p *corev1.Pod) {
	m.used["pods"]++
	total, most := map[corev1.ResourceName]int64{}, map[corev1.ResourceName]int64{}
	for _, c := range p.Spec.Containers {
		for name := range c.Resources.Requests {
			total[name] += quantity(c.Resources.Requests, name)
		}
	}
	for _, c := range p.Spec.InitContainers {
		for name := range c.Resources.Requests {
			most[name] = max(most[name], quantity(c.Resources.Requests, name))
		}
	}
	for name, n := range most {
		total[name] = max(total[name], n)
	}
	for name, n := range total {
		m.used[name] += n
	}
}

// machineOf returns a node with the pods of its DaemonSets.
func (w *world) machineOf(n *savings.Node) *machine {
	m := &machine{name: n.Name, spot: n.Spot, labels: maps.Clone(n.Labels), taints: n.Spec.Taints,
		allocatable: map[corev1.ResourceName]int64{}, used: map[corev1.ResourceName]int64{}}
	if delete(m.labels, labelSpot); n.Spot {
		m.labels[labelSpot] = "true"
	}
	for _, c := range w.CSINodes {
		for _, d := range c.Spec.Drivers {
			m.volumes = int(*d.Allocatable.Count)
		}
	}
	for name := range n.Status.Allocatable {
		m.allocatable[name] = quantity(n.Status.Allocatable, name)
	}
	w.addDaemons(m)
	return m
}

func (w *world) addDaemons(m *machine) {
	for i := range w.DaemonSets {
		p := &corev1.Pod{ObjectMeta: w.DaemonSets[i].Spec.Template.ObjectMeta, Spec: w.DaemonSets[i].Spec.Template.Spec}
		p.Namespace = w.DaemonSets[i].Namespace
		if matchesNode(m, p) && tolerates(m, p) {
			m.pods = append(m.pods, p)
			m.add(p)
		}
	}
}

// launched returns a machine that an estimate wants: like a node of its group, of another type and in another zone.
func (w *world) launched(i int, want savings.Machine) *machine {
	for j := range w.Nodes {
		n := w.Nodes[j]
		if want.Node == n.Name {
			n.Spot = want.Spot
			return w.machineOf(&n)
		}
		if want.Node != "" || n.Group != want.Group || n.ControlPlane {
			continue
		}
		t, was := w.catalog.Types[want.Type], w.catalog.Types[n.Labels[labelType]]
		copied := savings.Node{Group: n.Group, Spot: want.Spot, Node: *n.DeepCopy()}
		copied.Name = fmt.Sprintf("new-%d", i)
		copied.Labels = maps.Clone(n.Labels)
		copied.Labels[labelType], copied.Labels[labelZone], copied.Labels[labelHost] = want.Type, want.Zone, copied.Name
		copied.Spec.Taints = slices.DeleteFunc(copied.Spec.Taints, func(t corev1.Taint) bool {
			return strings.HasPrefix(t.Key, "node.kubernetes.io/") // a condition of the other node
		})
		m := w.machineOf(&copied)
		m.allocatable["cpu"] += (t.VCPU - was.VCPU) * 1000
		m.allocatable["memory"] += (t.Memory - was.Memory) * 97 / 100
		if t.GPUs > 0 {
			m.allocatable["nvidia.com/gpu"] = t.GPUs
		}
		if m.allocatable["pods"] == was.Pods {
			m.allocatable["pods"] = t.Pods
		}
		for k := range w.Pods { // its static pods are the same
			if _, static := w.Pods[k].Annotations[corev1.MirrorPodAnnotationKey]; static && w.Pods[k].Spec.NodeName == n.Name {
				m.add(&w.Pods[k])
			}
		}
		return m
	}
	panic("no node is like " + fmt.Sprint(want.Row))
}

func tolerates(m *machine, p *corev1.Pod) bool {
	return !slices.ContainsFunc(m.taints, func(t corev1.Taint) bool {
		return t.Effect != corev1.TaintEffectPreferNoSchedule &&
			!slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool {
				return (o.Key == t.Key || o.Key == "") && (o.Effect == "" || o.Effect == t.Effect) &&
					(o.Operator == corev1.TolerationOpExists || o.Value == t.Value)
			})
	})
}

// matchesNode checks node selector and node affinity.
func matchesNode(m *machine, p *corev1.Pod) bool {
	for key, value := range p.Spec.NodeSelector {
		if m.labels[key] != value {
			return false
		}
	}
	a := p.Spec.Affinity
	return a == nil || a.NodeAffinity == nil ||
		selectsNode(m, a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

// selects checks node selector, node affinity and the zones of volumes.
func (w *world) selects(m *machine, p *corev1.Pod) bool {
	ok := matchesNode(m, p)
	for _, v := range p.Spec.Volumes {
		for i, claim := range w.Claims {
			if c := v.PersistentVolumeClaim; c != nil && c.ClaimName == claim.Name && claim.Namespace == p.Namespace {
				if a := w.Volumes[i].Spec.NodeAffinity; a != nil {
					ok = ok && selectsNode(m, a.Required)
				}
				if zone, labeled := w.Volumes[i].Labels[labelZone]; labeled {
					ok = ok && zone == m.labels[labelZone]
				}
			}
		}
	}
	return ok
}

func selectsNode(m *machine, s *corev1.NodeSelector) bool {
	return slices.ContainsFunc(s.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		for _, e := range t.MatchExpressions {
			value, ok := m.labels[e.Key]
			in := slices.Contains(e.Values, value)
			if !map[corev1.NodeSelectorOperator]bool{"In": ok && in, "NotIn": !in, "Exists": ok, "DoesNotExist": !ok}[e.Operator] {
				return false
			}
		}
		return true
	})
}

// admits returns why a machine, with the pods on it, has no place for a pod, or "".
func (w *world) admits(m *machine, p *corev1.Pod) string {
	switch {
	case !w.selects(m, p):
		return "selector"
	case !tolerates(m, p):
		return "taint"
	}
	after := &machine{used: maps.Clone(m.used)}
	after.add(p)
	return after.over(m.allocatable)
}

// over returns the resource of which a machine uses more than it has, or "".
func (m *machine) over(allocatable map[corev1.ResourceName]int64) string {
	for name, n := range m.used {
		if n > allocatable[name] {
			return fmt.Sprintf("%s: %d of %d", name, n, allocatable[name])
		}
	}
	return ""
}

// violations checks a placement of all of the cluster's pods, and the sum of its prices.
func (w *world) violations(f savings.Fleet, onDemand func(*corev1.Pod) bool) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	byName, times := map[string]*corev1.Pod{}, map[string]int{}
	for i := range w.Pods {
		p := &w.Pods[i]
		if len(p.OwnerReferences) > 0 && p.OwnerReferences[0].Kind == "DaemonSet" && p.OwnerReferences[0].APIVersion == "apps/v1" ||
			p.Spec.Priority != nil && *p.Spec.Priority < 0 {
			continue
		}
		if _, static := p.Annotations[corev1.MirrorPodAnnotationKey]; !static && p.Spec.NodeName != "" {
			byName[p.Namespace+"/"+p.Name] = p
		}
	}
	var all []*machine
	at, stays := map[*corev1.Pod]*machine{}, map[*corev1.Pod]bool{}
	hourly := 0.0
	for i, want := range f.List {
		m := w.launched(i, want)
		all = append(all, m)
		for _, name := range want.Pods {
			p := byName[name]
			if p == nil {
				say("%s is not a pod", name)
				continue
			}
			times[name]++
			m.pods = append(m.pods, p)
			m.add(p)
			at[p], stays[p] = m, p.Spec.NodeName == m.name
		}
		if over := m.over(m.allocatable); over != "" {
			say("%s (%s) has too little %s", m.name, want.Type, over)
		}
		attached := 0
		for _, p := range m.pods {
			attached += len(p.Spec.Volumes)
		}
		if m.volumes > 0 && attached > m.volumes {
			say("%s has %d volumes", m.name, attached)
		}
		if price := w.catalog.Spot[savings.Offer{Type: want.Type, Zone: want.Zone}]; want.Spot {
			hourly += price
		} else {
			hourly += w.catalog.OnDemand[want.Type]
		}
	}
	for _, n := range w.Nodes {
		if n.ControlPlane && !slices.ContainsFunc(f.List, func(m savings.Machine) bool { return m.Node == n.Name && !m.Spot }) {
			say("the control-plane node %s is missing", n.Name)
		}
	}
	for name := range byName {
		if times[name] != 1 {
			say("%s is on %d machines", name, times[name])
		}
	}
	if total := hourly * 730; total < f.Monthly-0.001 || total > f.Monthly+0.001 {
		say("monthly %f; the machines cost %f", f.Monthly, total)
	}
	for p, m := range at {
		if m.spot && onDemand(p) {
			say("%s is on Spot", p.Name)
		}
		if stays[p] {
			continue
		}
		if !w.selects(m, p) || !tolerates(m, p) {
			say("%s does not match %s", p.Name, m.name)
		}
		w.checkNeighbors(p, m, all, say)
	}
	slices.Sort(out)
	return out
}

func (w *world) checkNeighbors(p *corev1.Pod, m *machine, all []*machine, say func(string, ...any)) {
	// others counts the other pods that a selector matches, in the domain of a machine.
	others := func(m *machine, key string, s *metav1.LabelSelector) (n int) {
		selector, _ := metav1.LabelSelectorAsSelector(s)
		for _, o := range all {
			if value, ok := o.labels[key]; !ok || value != m.labels[key] {
				continue
			}
			for _, q := range o.pods {
				if q != p && q.Namespace == p.Namespace && selector.Matches(labels.Set(q.Labels)) {
					n++
				}
			}
		}
		return n
	}
	if a := p.Spec.Affinity; a != nil && a.PodAntiAffinity != nil {
		for _, t := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			if n := others(m, t.TopologyKey, t.LabelSelector); n > 0 {
				say("%s has %d pods in its %s that it repels", p.Name, n, t.TopologyKey)
			}
		}
	}
	if a := p.Spec.Affinity; a != nil && a.PodAffinity != nil {
		for _, t := range a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
			selector, _ := metav1.LabelSelectorAsSelector(t.LabelSelector)
			anywhere := slices.ContainsFunc(all, func(o *machine) bool { return others(o, t.TopologyKey, t.LabelSelector) > 0 })
			if others(m, t.TopologyKey, t.LabelSelector) == 0 && (anywhere || !selector.Matches(labels.Set(p.Labels))) {
				say("%s does not run beside those it needs", p.Name)
			}
		}
	}
	for _, c := range p.Spec.TopologySpreadConstraints {
		if c.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		least := -1
		for _, o := range all {
			if _, ok := o.labels[c.TopologyKey]; !ok || !matchesNode(o, p) {
				continue
			}
			n := others(o, c.TopologyKey, c.LabelSelector)
			if o.labels[c.TopologyKey] == m.labels[c.TopologyKey] {
				n++
			}
			if least < 0 || n < least {
				least = n
			}
		}
		if n := others(m, c.TopologyKey, c.LabelSelector) + 1; n-least > int(c.MaxSkew) {
			say("%s: %d of its kind in its %s, and only %d in another", p.Name, n, c.TopologyKey, least)
		}
	}
	for _, q := range m.pods {
		for _, c := range q.Spec.Containers {
			for _, d := range p.Spec.Containers {
				for _, x := range c.Ports {
					for _, y := range d.Ports {
						if q != p && x.HostPort != 0 && x.HostPort == y.HostPort {
							say("%s and %s use port %d", p.Name, q.Name, x.HostPort)
						}
					}
				}
			}
		}
	}
}
