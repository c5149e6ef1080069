package savings_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/castai/kops-spot/internal/savings"
)

type change = func(int, *corev1.Pod)

func budget(field string, value intstr.IntOrString) func(*world) {
	return func(w *world) {
		b := policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
		b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "app"}}
		if field == "min" {
			b.Spec.MinAvailable = &value
		} else {
			b.Spec.MaxUnavailable = &value
		}
		w.Budgets = append(w.Budgets, b)
	}
}

func hostPath(path string, kind corev1.HostPathType, readOnly bool) change {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: path, ReadOnly: readOnly}}
	}
}

// volume gives the pod a claim, which setVolume may change together with its volume.
func (w *world) volume(set func(*corev1.PersistentVolume)) change {
	return func(i int, p *corev1.Pod) {
		w.zonal(0, p)
		set(&w.Volumes[len(w.Volumes)-1])
	}
}

func affinity(a *corev1.NodeSelector) change {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: a}}
	}
}

// TestOnDemand has a row for each rule about what keeps a pod, and with it its node, on demand.
func TestOnDemand(t *testing.T) {
	all := func(changes ...func(*world)) func(*world) []change {
		return func(w *world) []change {
			for _, f := range changes {
				f(w)
			}
			return nil
		}
	}
	pod := func(c change) func(*world) []change { return func(*world) []change { return []change{c} } }
	for _, c := range []struct {
		name     string
		replicas int
		set      func(*world) []change
		reason   string // empty: it may run on Spot
	}{
		{"ordinary pod", 1, all(), ""},
		{"drain never", 2, pod(annotate("kops-spot.cast.ai/drain", "never")), "not to disrupt"},
		{"drain last", 2, pod(annotate("kops-spot.cast.ai/drain", "last")), ""},
		{"not safe to evict", 2, pod(annotate("cluster-autoscaler.kubernetes.io/safe-to-evict", "false")), "not to disrupt"},
		{"safe to evict", 2, pod(annotate("cluster-autoscaler.kubernetes.io/safe-to-evict", "true")), ""},
		{"Karpenter", 2, pod(annotate("karpenter.sh/do-not-disrupt", "true")), "not to disrupt"},
		{"CAST AI", 2, pod(annotate("autoscaling.cast.ai/removal-disabled", "true")), "not to disrupt"},
		{"CAST AI's label", 2, pod(func(_ int, p *corev1.Pod) { p.Labels["autoscaling.cast.ai/removal-disabled"] = "true" }),
			"not to disrupt"},

		{"budget of none", 1, all(budget("max", intstr.FromInt32(0))), "never allows an eviction"},
		{"budget of 0 %", 1, all(budget("max", intstr.FromString("0%"))), "never allows an eviction"},
		{"budget of 10 %, rounded up", 1, all(budget("max", intstr.FromString("10%"))), ""},
		{"one must be available", 1, all(budget("min", intstr.FromInt32(1))), "never allows an eviction"},
		{"half must be available, rounded up", 1, all(budget("min", intstr.FromString("50%"))), "never allows an eviction"},
		{"none need be available", 1, all(budget("min", intstr.FromInt32(0))), ""},
		{"budget of none, two replicas", 2, all(budget("max", intstr.FromInt32(0))), ""},
		{"budget of another namespace", 1, func(w *world) []change {
			budget("max", intstr.FromInt32(0))(w)
			w.Budgets[0].Namespace = "other"
			return nil
		}, ""},

		{"local volume", 2, func(w *world) []change {
			return []change{w.volume(func(v *corev1.PersistentVolume) { v.Spec.Local = &corev1.LocalVolumeSource{Path: "/d"} })}
		}, "data is on the node"},
		{"network volume", 2, func(w *world) []change { return []change{w.volume(func(*corev1.PersistentVolume) {})} }, ""},
		{"writable hostPath", 2, pod(hostPath("/data", corev1.HostPathUnset, false)), "data is on the node"},
		{"read-only hostPath", 2, pod(hostPath("/etc/ssl", corev1.HostPathUnset, true)), ""},
		{"socket", 2, pod(hostPath("/run/x.sock", corev1.HostPathSocket, false)), ""},
		{"emptyDir", 2, pod(func(_ int, p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		}), ""},
		{"bare pod", 1, pod(func(_ int, p *corev1.Pod) { p.OwnerReferences = nil }), "no controller"},
		{"affinity against Spot", 2, pod(affinity(nodeSelector(labelSpot, corev1.NodeSelectorOpDoesNotExist))), "excludes Spot"},
		{"affinity against Spot, on a cordoned node", 2, func(w *world) []change {
			w.Nodes[0].Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule}}
			w.machines = nil
			return []change{affinity(nodeSelector(labelSpot, corev1.NodeSelectorOpDoesNotExist))}
		}, "excludes Spot"},
		{"Karpenter's label", 2, func(w *world) []change {
			return []change{w.labeled("karpenter.sh/capacity-type", "on-demand")}
		}, "excludes Spot"},
		{"a label of the user", 2, func(w *world) []change { return []change{w.labeled("lifecycle", "OnDemand")} }, "excludes Spot"},
		{"another label of the user", 2, func(w *world) []change { return []change{w.labeled("lifecycle", "long")} }, ""},
		{"toleration only", 2, pod(func(_ int, p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		}), ""},

		{"no Spot price", 2, all(func(w *world) { delete(w.catalog.Spot, savings.Offer{Type: "m5.xlarge", Zone: zones[0]}) }), "no Spot price"},
		{"not offered as Spot", 2, all(func(w *world) {
			offer := w.catalog.Types["m5.large"]
			offer.Spot = false
			w.catalog.Types["m5.large"] = offer
			w.Nodes[0].Labels[labelType] = "m5.large"
		}), "no Spot price"},
		{"Spot is dear", 2, all(func(w *world) { w.catalog.Spot[savings.Offer{Type: "m5.xlarge", Zone: zones[0]}] = 9 }),
			"does not cost less"},
		{"control plane", 2, all(func(w *world) { w.Nodes[0].ControlPlane = true }), "control plane"},
		{"no group", 2, all(func(w *world) { w.Nodes[0].Group = "" }), "no instance group"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.nodes("nodes", "m5.xlarge", 9, zones)
			changes := append(c.set(w), func(_ int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[0].Name })
			w.workload("nodes", "app", c.replicas, "100m", "128Mi", changes...)
			r := w.compute(t)
			if spot := machineOf(t, r.Spot, w.Nodes[0].Name).Spot; spot != (c.reason == "") {
				t.Errorf("the machine is Spot: %v", spot)
			}
			if !machineOf(t, r.Spot, w.Nodes[1].Name).Spot {
				t.Error("a machine without pods is not Spot")
			}
			if c.reason != "" && !slices.ContainsFunc(r.Spot.Reasons, func(r savings.Reason) bool { return strings.Contains(r.Text, c.reason) }) {
				t.Errorf("reasons %v; want %q", r.Spot.Reasons, c.reason)
			}
			price := strings.Contains(c.reason, "price") || strings.Contains(c.reason, "cost") // then the pods may move to Spot
			for _, e := range r.Estimates() {
				for _, v := range w.violations(e.Fleet, func(*corev1.Pod) bool { return c.reason != "" && !price }) {
					t.Error(v)
				}
			}
			if price {
				return
			}
			w.Nodes[0].Spot = true // pods that run on Spot now may stay there
			r = w.compute(t)
			if !machineOf(t, r.Spot, w.Nodes[0].Name).Spot {
				t.Error("a Spot node became on demand")
			}
			if i := slices.IndexFunc(r.Packed.List, func(m savings.Machine) bool { return len(m.Pods) > 0 }); !r.Packed.List[i].Spot {
				t.Error("a pod moved from Spot to on demand")
			}
		})
	}
}

// labeled gives all nodes a label, and the pod a selector for it.
func (w *world) labeled(key, value string) change {
	for i := range w.Nodes {
		w.Nodes[i].Labels[key] = value
	}
	return func(_ int, p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func machineOf(t *testing.T, e savings.Estimate, node string) savings.Machine {
	t.Helper()
	i := slices.IndexFunc(e.List, func(m savings.Machine) bool { return m.Node == node })
	if i < 0 {
		t.Fatalf("node %s is not in the estimate", node)
	}
	return e.List[i]
}

// TestFixed has a row for each rule about what keeps a pod on its node.
func TestFixed(t *testing.T) {
	honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
	spread := func(set func(*corev1.TopologySpreadConstraint)) change {
		return func(i int, p *corev1.Pod) {
			spreadBy(labelZone, 5)(i, p)
			set(&p.Spec.TopologySpreadConstraints[0])
		}
	}
	owner := func(kind, version string) change {
		return func(_ int, p *corev1.Pod) { p.OwnerReferences[0].Kind, p.OwnerReferences[0].APIVersion = kind, version }
	}
	for _, c := range []struct {
		name   string
		set    func(*world) change
		reason string // empty: it may move
	}{
		{"ordinary pod", func(*world) change { return func(int, *corev1.Pod) {} }, ""},
		{"resource claim", func(*world) change {
			return func(_ int, p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }
		}, "does not know"},
		{"scheduling group", func(*world) change {
			return func(_ int, p *corev1.Pod) { p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{} }
		}, "does not know"},
		{"another scheduler", func(*world) change { return func(_ int, p *corev1.Pod) { p.Spec.SchedulerName = "mine" } }, "does not know"},
		{"the default scheduler", func(*world) change {
			return func(_ int, p *corev1.Pod) { p.Spec.SchedulerName = "default-scheduler" }
		}, ""},
		{"another DaemonSet", func(*world) change { return owner("DaemonSet", "apps.kruise.io/v1alpha1") }, "does not know"},
		{"spread that ignores affinity", func(*world) change {
			return spread(func(c *corev1.TopologySpreadConstraint) { c.NodeAffinityPolicy = &ignore })
		}, "does not know"},
		{"spread that honors taints", func(*world) change {
			return spread(func(c *corev1.TopologySpreadConstraint) { c.NodeTaintsPolicy = &honor })
		}, "does not know"},
		{"spread with the default policies", func(*world) change {
			return spread(func(c *corev1.TopologySpreadConstraint) { c.NodeAffinityPolicy, c.NodeTaintsPolicy = &honor, &ignore })
		}, ""},
		{"hostname selector", func(w *world) change {
			return func(_ int, p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{labelHost: w.Nodes[0].Name} }
		}, "not all nodes"},
		{"hostname affinity", func(w *world) change {
			return affinity(nodeSelector(labelHost, corev1.NodeSelectorOpNotIn, "x"))
		}, "not all nodes"},
		{"node name affinity", func(w *world) change {
			return affinity(&corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{w.Nodes[0].Name}}}}}})
		}, "not all nodes"},
		{"label of one node", func(w *world) change {
			w.Nodes[0].Labels["disk"] = "fast"
			return func(_ int, p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "fast"} }
		}, "not all nodes"},
		{"label of the zone", func(w *world) change {
			return func(_ int, p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{labelZone: zones[0]} }
		}, ""},
		{"claim that is not bound", func(w *world) change {
			return func(i int, p *corev1.Pod) {
				w.zonal(0, p)
				w.Claims[len(w.Claims)-1].Spec.VolumeName = ""
			}
		}, "not bound"},
		{"volume that two pods share", func(w *world) change {
			return func(i int, p *corev1.Pod) {
				if w.zonal(0, p); i == 1 {
					p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "app-000"
				}
			}
		}, "shared"},
		{"volume for many pods", func(w *world) change {
			return func(i int, p *corev1.Pod) {
				w.zonal(0, p)
				w.Volumes[len(w.Volumes)-1].Spec.AccessModes = []corev1.PersistentVolumeAccessMode{"ReadWriteMany"}
				p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName = "app-000"
			}
		}, ""},
		{"volume in the pod", func(w *world) change {
			return func(_ int, p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
					AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: "vol-1"}}}}
			}
		}, "unknown"},
		{"affinity to another group", func(w *world) change {
			w.nodes("other", "m5.xlarge", 1, zones)
			w.workload("other", "far", 1, "100m", "128Mi")
			return func(_ int, p *corev1.Pod) {
				p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
					{TopologyKey: labelZone, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "far"}}}}}}
			}
		}, "another instance group"},
		{"beside a pod that stays", func(w *world) change {
			w.workload("nodes", "near", 1, "100m", "128Mi", hostPath("/data", corev1.HostPathUnset, false), beside(labelHost, "app"),
				func(_ int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[0].Name })
			return func(int, *corev1.Pod) {}
		}, "beside"},
		{"no CPU request", func(*world) change { return request("cpu", "0") }, "request no CPU"},
		{"no memory request", func(*world) change { return request("memory", "0") }, "request no CPU or no memory"},
		{"bare pod", func(*world) change { return func(_ int, p *corev1.Pod) { p.OwnerReferences = nil } }, "no controller"},
		{"not to disrupt", func(*world) change { return annotate("karpenter.sh/do-not-disrupt", "true") }, "not to disrupt"},
		{"not to disrupt, on Spot", func(w *world) change {
			w.Nodes[0].Spot = true
			return annotate("karpenter.sh/do-not-disrupt", "true")
		}, "not to disrupt"},
		{"local data", func(*world) change { return hostPath("/data", corev1.HostPathUnset, false) }, "data is on the node"},
		{"no group", func(w *world) change {
			w.Nodes[0].Group = ""
			return func(int, *corev1.Pod) {}
		}, "no instance group"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.nodes("nodes", "m5.xlarge", 6, zones)
			set := c.set(w)
			node := w.Nodes[0].Name
			w.workload("nodes", "app", 2, "100m", "128Mi", set, func(_ int, p *corev1.Pod) { p.Spec.NodeName = node })
			w.workload("nodes", "more", 6, "100m", "128Mi")
			r := w.compute(t)
			kept := slices.ContainsFunc(r.Packed.List, func(m savings.Machine) bool { return m.Node == node && len(m.Pods) >= 2 })
			if kept != (c.reason != "") {
				t.Errorf("the pods stay on their node: %v", kept)
			}
			if all := slices.Concat(r.Spot.Reasons, r.Packed.Reasons); c.reason != "" &&
				!slices.ContainsFunc(all, func(r savings.Reason) bool { return strings.Contains(r.Text, c.reason) }) {
				t.Errorf("reasons %v; want %q", all, c.reason)
			}
			for _, v := range w.violations(r.Packed.Fleet, func(*corev1.Pod) bool { return false }) {
				t.Error(v)
			}
		})
	}
}
