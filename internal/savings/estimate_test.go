package savings_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/savings"
)

// shapes are clusters of different kinds. Their gaps are in the test's table.
var shapes = map[string]func() *world{
	// many small pods on half-empty machines
	"web": func() *world {
		w := newWorld()
		w.daemon("log", "100m", "200Mi")
		w.nodes("nodes", "m5.xlarge", 30, zones)
		for i := range 20 {
			w.workload("nodes", fmt.Sprintf("web-%02d", i), 6, fmt.Sprintf("%dm", 100+50*(i%8)), fmt.Sprintf("%dMi", 128+128*(i%6)))
		}
		return w
	},
	// volumes in zones, replicas that repel each other
	"data": func() *world {
		w := newWorld()
		w.daemon("log", "100m", "200Mi")
		w.nodes("nodes", "m5.2xlarge", 24, zones)
		for i := range 8 {
			w.workload("nodes", fmt.Sprintf("db-%02d", i), 6, "1", "4Gi", w.zonal, repel(labelHost))
		}
		w.workload("nodes", "api", 60, "400m", "700Mi")
		return w
	},
	// pods of all sizes, some large compared with their machine
	"batch": func() *world {
		w := newWorld()
		w.nodes("nodes", "m5.2xlarge", 60, zones)
		for i := range 120 {
			w.workload("nodes", fmt.Sprintf("job-%03d", i), 1, fmt.Sprintf("%dm", 100+w.random.IntN(3000)),
				fmt.Sprintf("%dMi", 100+w.random.IntN(8000)))
		}
		return w
	},
	// an instance group for each zone, and a tainted one
	"groups": func() *world {
		w := newWorld()
		w.daemon("log", "100m", "200Mi")
		tainted := func(n *savings.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "team", Value: "ml", Effect: corev1.TaintEffectNoSchedule}}
		}
		for _, zone := range zones {
			w.nodes("nodes-"+zone, "m5.xlarge", 8, []string{zone})
		}
		w.nodes("ml", "c5.4xlarge", 5, zones, tainted)
		for i := range 12 {
			w.workload("nodes-"+zones[i%3], fmt.Sprintf("app-%02d", i), 7, "350m", "900Mi")
		}
		w.workload("ml", "train", 9, "3500m", "5Gi", func(_ int, p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Key: "team", Operator: corev1.TolerationOpExists}}
			p.Spec.NodeSelector = map[string]string{"group": "ml"}
		})
		return w
	},
	// a control plane, pods that stay on demand, spread, host ports and static pods
	"mixed": func() *world {
		w := newWorld()
		w.daemon("log", "100m", "200Mi")
		w.nodes("control-plane", "m5.large", 3, zones, func(n *savings.Node) {
			n.ControlPlane = true
			n.Spec.Taints = []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
		})
		w.nodes("nodes", "m5.xlarge", 20, zones)
		for _, n := range w.Nodes {
			w.workload(n.Group, "kube-proxy-"+n.Name, 1, "100m", "0", func(_ int, p *corev1.Pod) {
				p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
				p.Spec.NodeName = n.Name
				p.OwnerReferences = nil
			})
		}
		w.workload("nodes", "ledger", 8, "600m", "1Gi", annotate("kops-spot.cast.ai/drain", "never"))
		w.workload("nodes", "web", 18, "700m", "1Gi", spreadBy(labelZone, 1), spreadBy(labelHost, 2))
		w.workload("nodes", "edge", 4, "200m", "256Mi", func(_ int, p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 443, ContainerPort: 443}}
		})
		w.workload("nodes", "worker", 40, "250m", "512Mi")
		return w
	},
}

func (w *world) daemon(name, cpu, memory string) {
	d := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}}
	d.Spec.Template.Labels = map[string]string{"app": name}
	d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: name, Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}}}}
	w.DaemonSets = append(w.DaemonSets, d)
}

func annotate(key, value string) func(int, *corev1.Pod) {
	return func(_ int, p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
}

func self(p *corev1.Pod) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}
}

func repel(key string) func(int, *corev1.Pod) {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: self(p)}}}}
	}
}

func spreadBy(key string, skew int32) func(int, *corev1.Pod) {
	return func(_ int, p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
			MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: self(p)})
	}
}

func isLedger(p *corev1.Pod) bool { return p.Labels["app"] == "ledger" }

func (w *world) compute(t testing.TB) savings.Report {
	t.Helper()
	r, err := savings.Compute(w.Cluster, w.catalog)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestShapes checks that the packing is within 10 % of its bound, or says why it is not.
func TestShapes(t *testing.T) {
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			w := shape()
			r := w.compute(t)
			w.check(t, r)
			for i, e := range r.Estimates() {
				t.Logf("estimate %d: %.0f of %.0f, bound %.0f, %.1f %% above it, %d machines, %d of them headroom", i, e.Monthly,
					r.Now.Monthly, e.Bound, 100*e.Gap(), e.Machines, e.Headroom)
				if e.Gap() > 0.1 && !slices.ContainsFunc(e.Reasons, func(r savings.Reason) bool { return strings.Contains(r.Text, "lower bound") }) {
					t.Errorf("estimate %d is %.1f %% above its bound, and the reasons do not say why: %v", i, 100*e.Gap(), e.Reasons)
				}
			}
			if again := shape().compute(t); !reflect.DeepEqual(again, r) {
				t.Error("the second result differs")
			}
		})
	}
}

// TestHeadroom checks the headroom in orders of creation for which it was not computed. Without it, most of them fail
// in the shape batch.
func TestHeadroom(t *testing.T) {
	for name, shape := range shapes {
		w := shape()
		if failed := savings.Failures(w.Cluster, w.catalog, 200); failed > 4 {
			t.Errorf("%s: in %d of 200 orders, a pod finds no room", name, failed)
		}
	}
}
