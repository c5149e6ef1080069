package savings_test

import (
	"fmt"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/castai/kops-spot/internal/savings"
)

func request(name corev1.ResourceName, quantity string) change {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Requests[name] = resource.MustParse(quantity)
	}
}

func offer(name corev1.ResourceName, quantity string) func(*savings.Node) {
	return func(n *savings.Node) {
		n.Status.Capacity[name], n.Status.Allocatable[name] = resource.MustParse(quantity), resource.MustParse(quantity)
	}
}

func beside(key, app string) change {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: key,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}}}
	}
}

// TestConstraints has a row for each constraint, with the number of machines that it needs. Without it, one machine
// (3.8 cores, 15 GiB) or one in each zone is enough.
func TestConstraints(t *testing.T) {
	one := zones[:1]
	for _, c := range []struct {
		name  string
		zones []string
		set   func(*world)
		want  int
	}{
		{"small pods", one, func(w *world) { w.workload("nodes", "app", 10, "100m", "100Mi") }, 1},
		{"a machine in each zone", zones, func(w *world) { w.workload("nodes", "app", 10, "100m", "100Mi") }, 3},
		{"CPU", one, func(w *world) { w.workload("nodes", "app", 12, "950m", "100Mi") }, 3},
		{"CPU, a millicore too much", one, func(w *world) { w.workload("nodes", "app", 12, "951m", "100Mi") }, 4},
		{"memory", one, func(w *world) { w.workload("nodes", "app", 12, "100m", "5Gi") }, 4},
		{"ephemeral storage", one, func(w *world) { w.workload("nodes", "app", 12, "100m", "100Mi", request("ephemeral-storage", "50Gi")) }, 6},
		{"init containers, one after the other", one, func(w *world) {
			w.workload("nodes", "app", 4, "100m", "100Mi", func(_ int, p *corev1.Pod) {
				for range 2 {
					p.Spec.InitContainers = append(p.Spec.InitContainers, *p.Spec.Containers[0].DeepCopy())
					p.Spec.InitContainers[0].Resources.Requests["cpu"] = resource.MustParse("1900m")
				}
			})
		}, 2},
		{"pods per node", one, func(w *world) {
			for i := range w.Nodes {
				offer("pods", "5")(&w.Nodes[i])
			}
			w.workload("nodes", "app", 14, "10m", "10Mi")
		}, 3},
		{"devices", one, func(w *world) {
			for i := range w.Nodes {
				offer("example.com/nic", "2")(&w.Nodes[i])
			}
			w.workload("nodes", "app", 8, "100m", "100Mi", request("example.com/nic", "1"))
		}, 4},
		{"attached volumes", one, func(w *world) {
			count := int32(3)
			for _, n := range w.Nodes {
				w.CSINodes = append(w.CSINodes, storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Name},
					Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "ebs.csi.aws.com",
						Allocatable: &storagev1.VolumeNodeResources{Count: &count}}}}})
			}
			w.workload("nodes", "app", 9, "100m", "100Mi", w.volume(func(*corev1.PersistentVolume) {}))
		}, 3},
		{"host ports", one, func(w *world) {
			w.workload("nodes", "app", 4, "100m", "100Mi", func(_ int, p *corev1.Pod) {
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}}
			})
		}, 4},
		{"another host port", one, func(w *world) {
			w.workload("nodes", "app", 4, "100m", "100Mi", func(i int, p *corev1.Pod) {
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: int32(80 + i)}}
			})
		}, 1},
		{"anti-affinity", one, func(w *world) { w.workload("nodes", "app", 5, "100m", "100Mi", repel(labelHost)) }, 5},
		{"anti-affinity of others", one, func(w *world) {
			w.workload("nodes", "app", 2, "100m", "100Mi", func(_ int, p *corev1.Pod) {
				p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: labelHost,
						LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}}}
			})
			w.workload("nodes", "web", 6, "50m", "50Mi")
		}, 2},
		{"anti-affinity in another namespace", one, func(w *world) {
			w.workload("nodes", "app", 2, "100m", "100Mi", repel(labelHost), func(i int, p *corev1.Pod) {
				p.Namespace = fmt.Sprintf("ns-%d", i)
			})
		}, 1},
		{"anti-affinity by zone", zones, func(w *world) {
			w.workload("nodes", "app", 3, "100m", "100Mi", repel(labelZone))
			w.workload("nodes", "more", 3, "3700m", "100Mi", func(i int, p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{labelZone: zones[0]}
			})
		}, 5},
		{"affinity", one, func(w *world) {
			w.workload("nodes", "db", 1, "3", "100Mi", func(_ int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[0].Name })
			w.workload("nodes", "app", 4, "200m", "100Mi", beside(labelHost, "db"), func(_ int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[0].Name })
			w.workload("nodes", "big", 2, "3500m", "100Mi")
		}, 3},
		{"spread by machine", one, func(w *world) { w.workload("nodes", "app", 8, "900m", "100Mi", spreadBy(labelHost, 1)) }, 2},
		{"spread by zone", zones, func(w *world) {
			w.workload("nodes", "app", 9, "1200m", "100Mi", spreadBy(labelZone, 1))
		}, 3},
		{"more domains than there are", zones[:2], func(w *world) {
			w.workload("nodes", "app", 2, "100m", "100Mi", spreadBy(labelHost, 1), func(_ int, p *corev1.Pod) {
				three := int32(3)
				p.Spec.TopologySpreadConstraints[0].MinDomains = &three
			})
		}, 2},
		{"DaemonSets", one, func(w *world) {
			w.daemon("log", "800m", "100Mi")
			w.workload("nodes", "app", 6, "1", "100Mi")
		}, 2},
		{"a DaemonSet of other nodes", one, func(w *world) {
			w.daemon("log", "800m", "100Mi")
			w.DaemonSets[0].Spec.Template.Spec.NodeSelector = map[string]string{"group": "other"}
			w.workload("nodes", "app", 3, "1200m", "100Mi")
		}, 1},
		{"a DaemonSet that does not tolerate", one, func(w *world) {
			w.daemon("log", "800m", "100Mi")
			w.DaemonSets[0].Spec.Template.Spec.Tolerations = nil
			for i := range w.Nodes {
				w.Nodes[i].Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
			}
			w.workload("nodes", "app", 3, "1200m", "100Mi", func(_ int, p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "x", Operator: corev1.TolerationOpExists}}
			})
		}, 1},
		{"static pods", one, func(w *world) {
			for _, n := range w.Nodes {
				w.workload("nodes", "kube-proxy-"+n.Name, 1, "800m", "0", func(_ int, p *corev1.Pod) {
					p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
					p.Spec.NodeName = n.Name
				})
			}
			w.workload("nodes", "app", 6, "1", "100Mi")
		}, 2},
		{"volumes in zones", zones, func(w *world) {
			w.workload("nodes", "app", 6, "2", "100Mi", w.zonal, func(i int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[i].Name })
		}, 6},
		{"labels of volumes", zones, func(w *world) {
			w.workload("nodes", "app", 4, "2", "100Mi", w.volume(func(v *corev1.PersistentVolume) {
				v.Spec.NodeAffinity, v.Labels = nil, map[string]string{labelZone: zones[0]}
			}), func(i int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[i*3].Name })
		}, 6},
		{"node selector", zones, func(w *world) {
			w.workload("nodes", "app", 4, "2", "100Mi", func(_ int, p *corev1.Pod) {
				p.Spec.NodeSelector = map[string]string{labelZone: zones[2]}
			})
		}, 6},
		{"node affinity", zones, func(w *world) {
			w.workload("nodes", "app", 4, "2", "100Mi", affinity(nodeSelector(labelZone, corev1.NodeSelectorOpIn, zones[2])))
		}, 6},
		{"pods that stay", zones, func(w *world) {
			w.workload("nodes", "app", 6, "100m", "100Mi", hostPath("/data", corev1.HostPathUnset, false))
			w.workload("nodes", "more", 30, "400m", "100Mi")
		}, 6},
		{"on demand and Spot", one, func(w *world) {
			w.workload("nodes", "ledger", 4, "100m", "100Mi", annotate("kops-spot.cast.ai/drain", "never"))
			w.workload("nodes", "app", 4, "100m", "100Mi")
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.nodes("nodes", "m5.xlarge", 15, c.zones)
			c.set(w)
			r := w.compute(t)
			if got := r.Packed.Machines - r.Packed.Headroom; got != c.want {
				t.Errorf("%d machines; want %d: %v", got, c.want, r.Packed.Rows)
			}
			w.check(t, r)
		})
	}
}

// check checks what is true of every report.
func (w *world) check(t *testing.T, r savings.Report) {
	t.Helper()
	for i, e := range append(r.Estimates(), savings.Estimate{Fleet: r.Now}) {
		for _, v := range w.violations(e.Fleet, func(p *corev1.Pod) bool { return i < 3 && isLedger(p) }) {
			t.Errorf("estimate %d: %s", i, v)
		}
		if e.Bound > e.Monthly-e.HeadroomMonthly+1e-6 {
			t.Errorf("estimate %d costs %f, which is below its bound %f", i, e.Monthly, e.Bound)
		}
		count, monthly := 0, 0.0
		for _, row := range e.Rows {
			count += row.Count
			monthly += float64(row.Count) * row.Hourly * savings.HoursPerMonth
		}
		if count != e.Machines || count != len(e.List) || monthly < e.Monthly-0.01 || monthly > e.Monthly+0.01 {
			t.Errorf("estimate %d: the rows have %d machines for %f; want %d for %f", i, count, monthly, e.Machines, e.Monthly)
		}
	}
	if r.Spot.Monthly > r.Now.Monthly+1e-6 || r.Packed.Monthly > r.Spot.Monthly+1e-6 || r.Resized.Monthly > r.Packed.Monthly+1e-6 {
		t.Errorf("costs %f, %f, %f, %f: an estimate costs more than the one before", r.Now.Monthly, r.Spot.Monthly,
			r.Packed.Monthly, r.Resized.Monthly)
	}
}

// TestRandom checks random clusters with random constraints.
func TestRandom(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			build := func() *world {
				w := newWorld()
				for range seed {
					w.random.Uint64()
				}
				if seed%2 == 0 {
					w.daemon("log", "100m", "200Mi")
				}
				groups := []string{"a", "b"}
				w.nodes("a", "m5.xlarge", 18, zones)
				w.nodes("b", "c5.2xlarge", 9, zones, func(n *savings.Node) { n.Spot = seed%3 == 0 })
				changes := []change{w.zonal, repel(labelHost), spreadBy(labelZone, 1), spreadBy(labelHost, 2), beside(labelZone, "app-0"),
					hostPath("/data", corev1.HostPathUnset, false), func(int, *corev1.Pod) {}, func(int, *corev1.Pod) {}}
				for i := range 12 {
					group := groups[w.random.IntN(2)]
					name := fmt.Sprintf("app-%d", i)
					if i == 11 && !(seed%3 == 0 && group == "b") {
						name = "ledger"
					}
					set := changes[w.random.IntN(len(changes))]
					w.workload(group, name, 1+w.random.IntN(5), fmt.Sprintf("%dm", 50+w.random.IntN(1200)),
						fmt.Sprintf("%dMi", 50+w.random.IntN(2000)), func(i int, p *corev1.Pod) {
							if name == "ledger" {
								annotate("kops-spot.cast.ai/drain", "never")(i, p)
							}
							set(i, p)
						})
				}
				return w
			}
			w := build()
			r := w.compute(t)
			w.check(t, r)
			if again := build().compute(t); !reflect.DeepEqual(again, r) {
				t.Error("the second result differs")
			}
		})
	}
}
