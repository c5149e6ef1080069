package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/savings"
	"github.com/castai/kops-spot/test/testenv"
)

const labelSpotWorker = "node-role.kubernetes.io/spot-worker"

// onDemandTaint is on the on-demand nodes that the estimates assume.
var onDemandTaint = corev1.Taint{Key: "on-demand", Effect: corev1.TaintEffectNoSchedule}

// shape is a cluster that exists only as input of the estimates. Its pods are later created on the machines of an
// estimate.
type shape struct {
	*fixture
	savings.Cluster
}

// add adds the pods of a controller, on the nodes in turn.
func (s *shape) add(name string, replicas int, cpu, memory string, change func(int, *corev1.Pod)) {
	yes := true
	for i := range replicas {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: fmt.Sprintf("%s-%d", name, i),
			Labels: map[string]string{"app": name}, OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1",
				Kind: "ReplicaSet", Name: name, UID: types.UID(name), Controller: &yes}}}}
		p.Spec = s.template(app{name: name}).Spec
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu),
			"memory": resource.MustParse(memory)}
		p.Spec.NodeName = s.Nodes[len(s.Pods)%len(s.Nodes)].Name
		if change != nil {
			change(i, &p)
		}
		s.Pods = append(s.Pods, p)
	}
}

// disk gives a pod a volume in the zone of its node.
func (s *shape) disk(_ int, p *corev1.Pod) {
	zone := s.Nodes[len(s.Pods)%len(s.Nodes)].Labels[corev1.LabelTopologyZone]
	size := corev1.ResourceList{"storage": resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	none := ""
	name := s.namespace + "-" + p.Name
	s.Volumes = append(s.Volumes, corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes,
			ClaimRef:               &corev1.ObjectReference{Namespace: s.namespace, Name: p.Name},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: name}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelTopologyZone, Operator: corev1.NodeSelectorOpIn,
					Values: []string{zone}}}}}}}}})
	s.Claims = append(s.Claims, corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: p.Name},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, VolumeName: name, StorageClassName: &none,
			Resources: corev1.VolumeResourceRequirements{Requests: size}}})
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: p.Name}}})
}

func self(p *corev1.Pod) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}
}

// shapes are made-up clusters of m5.xlarge. The headroom is no guarantee, so they are such that all pods find room in
// each of 3,000 simulated orders: this test should not fail by chance.
var shapes = map[string]func(*shape){
	"pods of all sizes": func(s *shape) {
		random := rand.New(rand.NewPCG(3, 1))
		for i := range 40 {
			s.add(fmt.Sprintf("job-%d", i), 1, fmt.Sprintf("%dm", 100+random.IntN(1900)), fmt.Sprintf("%dMi", 100+random.IntN(6000)), nil)
		}
	},
	"volumes in zones and anti-affinity": func(s *shape) {
		for i := range 4 {
			s.add(fmt.Sprintf("db-%d", i), 6, "800m", "3Gi", func(i int, p *corev1.Pod) {
				s.disk(i, p)
				p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
						{TopologyKey: corev1.LabelHostname, LabelSelector: self(p)}}}}
			})
		}
		s.add("api", 36, "300m", "500Mi", nil)
	},
	"spread, on demand and a DaemonSet": func(s *shape) {
		s.DaemonSets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "log"},
			Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "log"}},
				Template: s.template(app{name: "log", tolerate: true})}}}
		s.DaemonSets[0].Spec.Template.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("200m")}
		s.add("ledger", 6, "600m", "1Gi", func(_ int, p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: labelSpotWorker,
					Operator: corev1.NodeSelectorOpNotIn, Values: []string{"true"}}}}}}}}
		})
		s.add("web", 15, "500m", "1Gi", func(_ int, p *corev1.Pod) {
			for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelHostname} {
				p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
					MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: self(p)})
			}
		})
		s.add("worker", 30, "250m", "700Mi", nil)
	},
}

// TestSavingsAreSchedulable creates the machines of an estimate and lets the scheduler place the pods on them, twice
// and in random orders.
func TestSavingsAreSchedulable(t *testing.T) {
	for name, build := range shapes {
		t.Run(name, func(t *testing.T) {
			s := &shape{fixture: newFixture(t)}
			for i, n := range testenv.SpotNodes(24) {
				n.Name = fmt.Sprintf("%s-old-%d", s.namespace, i)
				n.Labels = map[string]string{"e2e": s.namespace}
				node := savings.Node{Node: *n.Object(), Group: "nodes"}
				delete(node.Labels, labelSpotWorker)
				delete(node.Labels, "kops.k8s.io/instancegroup")
				s.Nodes = append(s.Nodes, node)
			}
			build(s)
			report, err := savings.Compute(s.Cluster, prices(s.Nodes))
			must(t, err)
			e := report.Packed
			t.Logf("%d machines, %d of them headroom, for %d pods: %v", e.Machines, e.Headroom, len(s.Pods), e.Rows)
			if e.Machines >= len(s.Nodes) {
				t.Fatal("the packing does not need fewer machines")
			}
			s.launch(e.List)
			for seed := range uint64(2) {
				s.schedule(rand.New(rand.NewPCG(seed, 7)))
			}
		})
	}
}

// prices has the price of the nodes' only type.
func prices(nodes []savings.Node) savings.Catalog {
	c := savings.Catalog{Types: map[string]savings.InstanceType{"m5.xlarge": {Architecture: "amd64", VCPU: 4, Memory: 16 << 30,
		Spot: true}}, OnDemand: map[string]float64{"m5.xlarge": 0.2}, Spot: map[savings.Offer]float64{}}
	for _, n := range nodes {
		c.Spot[savings.Offer{Type: "m5.xlarge", Zone: n.Labels[corev1.LabelTopologyZone]}] = 0.07
	}
	return c
}

// launch creates the nodes of an estimate, the volumes and the DaemonSets.
func (s *shape) launch(list []savings.Machine) {
	s.Helper()
	var nodes []testenv.Node
	for i, m := range list {
		n := testenv.Node{InstanceID: fmt.Sprintf("i-%017x", s.number<<20|i), Name: fmt.Sprintf("%s-%d", s.namespace, i), Zone: m.Zone,
			Labels: map[string]string{"e2e": s.namespace}}
		if !m.Spot {
			n.Labels[labelSpotWorker] = "false"
			n.Taints = []corev1.Taint{onDemandTaint}
		}
		nodes = append(nodes, n)
	}
	must(s, s.cp.CreateNodes(s.Context(), nodes...))
	for i := range s.Volumes {
		_, err := s.client.CoreV1().PersistentVolumes().Create(s.Context(), &s.Volumes[i], metav1.CreateOptions{})
		must(s, err)
		_, err = s.client.CoreV1().PersistentVolumeClaims(s.namespace).Create(s.Context(), &s.Claims[i], metav1.CreateOptions{})
		must(s, err)
	}
	for i := range s.DaemonSets {
		_, err := s.client.AppsV1().DaemonSets(s.namespace).Create(s.Context(), &s.DaemonSets[i], metav1.CreateOptions{})
		must(s, err)
		s.eventually("the DaemonSet's pods", func() bool { return len(s.pods("app="+s.DaemonSets[i].Name)) == len(list) })
	}
}

// schedule creates the pods in random order, waits until all are scheduled and deletes them.
func (s *shape) schedule(random *rand.Rand) {
	s.Helper()
	pods := s.client.CoreV1().Pods(s.namespace)
	for _, i := range random.Perm(len(s.Pods)) {
		p := s.Pods[i].DeepCopy()
		p.OwnerReferences, p.Spec.NodeName = nil, "" // there is no such controller: this test creates the pods
		if p.Labels["app"] == "ledger" {
			p.Spec.Tolerations = []corev1.Toleration{{Key: onDemandTaint.Key, Operator: corev1.TolerationOpExists}}
		}
		_, err := pods.Create(s.Context(), p, metav1.CreateOptions{})
		must(s, err)
	}
	var waiting []string
	for end := time.Now().Add(45 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		waiting = nil
		for _, p := range s.pods("") {
			if p.Spec.NodeName == "" {
				waiting = append(waiting, p.Name)
			}
		}
		if len(waiting) == 0 {
			break
		}
		if time.Now().After(end) {
			s.Fatalf("not scheduled: %v", waiting)
		}
	}
	var group errgroup.Group
	group.SetLimit(16)
	now := int64(0)
	for _, p := range s.Pods {
		group.Go(func() error {
			return pods.Delete(context.Background(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
		})
	}
	must(s, group.Wait())
	s.eventually("the pods to be gone", func() bool {
		left := len(s.pods(""))
		for _, d := range s.DaemonSets {
			left -= len(s.pods("app=" + d.Name))
		}
		return left == 0
	})
}
