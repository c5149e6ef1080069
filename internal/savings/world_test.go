package savings_test

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/savings"
)

// Labels that nodes have besides those of their group.
const (
	labelType = "node.kubernetes.io/instance-type"
	labelZone = "topology.kubernetes.io/zone"
	labelHost = "kubernetes.io/hostname"
	labelSpot = "node-role.kubernetes.io/spot-worker"
)

var zones = []string{"eu-west-1a", "eu-west-1b", "eu-west-1c"}

// sizes of the families m5 (4 GiB per core) and c5 (2 GiB per core).
var sizes = []struct {
	name string
	vcpu int64
}{{"large", 2}, {"xlarge", 4}, {"2xlarge", 8}, {"4xlarge", 16}, {"8xlarge", 32}}

const gib = 1 << 30

// catalog has the same price per core for all sizes of a family, and Spot at a third of it. The zones differ.
func catalog() savings.Catalog {
	c := savings.Catalog{Types: map[string]savings.InstanceType{}, OnDemand: map[string]float64{},
		Spot: map[savings.Offer]float64{}}
	for family, price := range map[string]float64{"m5": 0.05, "c5": 0.04} {
		for _, s := range sizes {
			memory := s.vcpu * 4 * gib
			if family == "c5" {
				memory /= 2
			}
			name := family + "." + s.name
			c.Types[name] = savings.InstanceType{Architecture: "amd64", VCPU: s.vcpu, Memory: memory, Pods: 29, Spot: true}
			c.OnDemand[name] = price * float64(s.vcpu)
			for i, zone := range zones {
				c.Spot[savings.Offer{Type: name, Zone: zone}] = c.OnDemand[name] * (0.33 + 0.01*float64(i))
			}
		}
	}
	return c
}

// world is a cluster that is being made up.
type world struct {
	savings.Cluster
	catalog  savings.Catalog
	random   *rand.Rand
	machines map[string]*machine
	turn     map[string]int // the next node, by group
}

func newWorld() *world {
	return &world{catalog: catalog(), random: rand.New(rand.NewPCG(1, 1))}
}

// nodes adds nodes, in each of the given zones in turn. A node keeps 0.2 cores and 0.5 GiB for the system.
func (w *world) nodes(group, instanceType string, count int, zones []string, change ...func(*savings.Node)) {
	t := w.catalog.Types[instanceType]
	for i := range count {
		name := fmt.Sprintf("%s-%03d", group, len(w.Nodes))
		memory := t.Memory * 97 / 100
		list := func(cpu, memory int64) corev1.ResourceList {
			return corev1.ResourceList{"cpu": *resource.NewMilliQuantity(cpu, resource.DecimalSI),
				"memory": *resource.NewQuantity(memory, resource.BinarySI), "pods": resource.MustParse("110"),
				"ephemeral-storage": resource.MustParse("100Gi")}
		}
		n := savings.Node{Group: group, Node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			labelType: instanceType, labelZone: zones[i%len(zones)], labelHost: name, "group": group}}}}
		n.Status.Capacity = list(t.VCPU*1000, memory)
		n.Status.Allocatable = list(t.VCPU*1000-200, memory-gib/2)
		for _, f := range change {
			f(&n)
		}
		w.Nodes = append(w.Nodes, n)
	}
}

// workload adds the pods of a controller, one after the other on the group's nodes that have room for them.
func (w *world) workload(group, name string, replicas int, cpu, memory string, change ...func(int, *corev1.Pod)) {
	controller := true
	for i := range replicas {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("%s-%03d", name, i),
			Labels: map[string]string{"app": name}, OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1",
				Kind: "ReplicaSet", Name: name, UID: types.UID(name), Controller: &controller}}}}
		p.Spec.Containers = []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}}}}
		p.Status.Phase = corev1.PodRunning
		for _, f := range change {
			f(i, &p)
		}
		w.assign(group, &p)
		w.Pods = append(w.Pods, p)
	}
}

// zonal gives a pod a volume in the zone of the node that it gets.
func (w *world) zonal(i int, p *corev1.Pod) {
	zone := zones[i%len(zones)]
	name := p.Name
	w.Claims = append(w.Claims, corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: name}})
	w.Volumes = append(w.Volumes, corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com"}},
			NodeAffinity:           &corev1.VolumeNodeAffinity{Required: nodeSelector(labelZone, corev1.NodeSelectorOpIn, zone)}}})
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
}

func nodeSelector(key string, op corev1.NodeSelectorOperator, values ...string) *corev1.NodeSelector {
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: key, Operator: op, Values: values}}}}}
}

// assign gives a pod its node: the one that it has, or the group's next one with room for it.
func (w *world) assign(group string, p *corev1.Pod) {
	if w.machines == nil {
		w.machines, w.turn = map[string]*machine{}, map[string]int{}
	}
	var names []string
	for i := range w.Nodes {
		n := &w.Nodes[i]
		if w.machines[n.Name] == nil {
			w.machines[n.Name] = w.machineOf(n)
		}
		if n.Group == group {
			names = append(names, n.Name)
		}
	}
	for range names {
		if p.Spec.NodeName != "" {
			break
		}
		if m := w.machines[names[w.turn[group]%len(names)]]; w.admits(m, p) == "" {
			p.Spec.NodeName = m.name
		}
		w.turn[group]++
	}
	if p.Spec.NodeName == "" {
		panic(fmt.Sprintf("no node of %s has room for %s", group, p.Name))
	}
	w.machines[p.Spec.NodeName].add(p)
}
