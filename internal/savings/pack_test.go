package savings_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
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

func away(app string) change {
	return func(_ int, p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: labelHost,
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
		{"anti-affinity to others", one, func(w *world) {
			w.workload("nodes", "app", 2, "50m", "50Mi", away("web"))
			w.workload("nodes", "web", 6, "100m", "100Mi")
		}, 2},
		{"anti-affinity of others", one, func(w *world) {
			w.workload("nodes", "app", 2, "100m", "100Mi", away("web"))
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
		{"affinity to each other", one, func(w *world) {
			for i, name := range []string{"app-a", "app-b"} {
				w.workload("nodes", name, 2, "500m", "100Mi", beside(labelHost, name), func(_ int, p *corev1.Pod) {
					p.Spec.NodeName = w.Nodes[i].Name
				})
			}
		}, 1},
		{"affinity to each other, and no machine has room for all", one, func(w *world) {
			w.workload("nodes", "app", 6, "600m", "100Mi", beside(labelHost, "app"), func(_ int, p *corev1.Pod) {
				p.Spec.NodeName = w.Nodes[0].Name
			})
			w.workload("nodes", "big", 3, "1900m", "100Mi")
		}, 3},
		{"a node that is cordoned", one, func(w *world) {
			w.workload("nodes", "app", 1, "100m", "100Mi", hostPath("/data", corev1.HostPathUnset, false))
			w.Nodes[0].Spec.Taints = []corev1.Taint{{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule}}
			w.workload("nodes", "more", 3, "100m", "100Mi", func(_ int, p *corev1.Pod) { p.Spec.NodeName = w.Nodes[1].Name })
		}, 2},
		{"spread by machine", one, func(w *world) { w.workload("nodes", "app", 8, "900m", "100Mi", spreadBy(labelHost, 1)) }, 2},
		{"spread by zone", zones, func(w *world) {
			w.workload("nodes", "app", 9, "1200m", "100Mi", spreadBy(labelZone, 1))
		}, 3},
		{"more domains than there are", one, func(w *world) {
			w.workload("nodes", "app", 2, "100m", "100Mi", spreadBy(labelHost, 1), func(_ int, p *corev1.Pod) {
				three := int32(3)
				p.Spec.TopologySpreadConstraints[0].MinDomains = &three
			})
		}, 2},
		{"DaemonSets", one, func(w *world) {
			w.daemon("log", "800m", "100Mi")
			w.workload("nodes", "app", 8, "950m", "100Mi")
		}, 3},
		{"DaemonSets whose pods request more than their template", one, func(w *world) {
			w.daemon("log", "0", "0")
			for i, cpu := range []string{"100m", "800m", "100m"} {
				w.workload("nodes", fmt.Sprint("log-", i), 1, cpu, "100Mi", func(_ int, p *corev1.Pod) {
					p.Namespace, p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name = "kube-system", "DaemonSet", "log"
				})
			}
			w.workload("nodes", "app", 8, "950m", "100Mi")
		}, 3},
		{"DaemonSets whose pods use ports of the host", one, func(w *world) {
			w.daemon("log", "100m", "100Mi")
			ports := func(ports ...int32) change {
				return func(_ int, p *corev1.Pod) {
					for _, port := range ports {
						p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{HostPort: port})
					}
				}
			}
			w.workload("nodes", "log", 1, "100m", "100Mi", ports(80, 81), func(_ int, p *corev1.Pod) {
				p.Namespace, p.OwnerReferences[0].Kind = "kube-system", "DaemonSet"
			})
			w.workload("nodes", "app", 1, "100m", "100Mi", ports(80))
			w.workload("nodes", "more", 1, "100m", "100Mi", ports(81))
		}, 2},
		{"placeholders", one, func(w *world) {
			w.workload("nodes", "app", 6, "100m", "100Mi")
			w.workload("nodes", "hold", 6, "3", "100Mi", func(_ int, p *corev1.Pod) {
				low := int32(-10)
				p.Spec.Priority = &low
			})
		}, 1},
		{"a DaemonSet of Spot nodes, on a node that becomes one", one, func(w *world) {
			w.daemon("log", "2", "100Mi")
			w.DaemonSets[0].Spec.Template.Spec.NodeSelector = map[string]string{labelSpot: "true"}
			w.workload("nodes", "fixed", 1, "100m", "100Mi", func(_ int, p *corev1.Pod) { p.Spec.SchedulerName = "mine" })
			w.workload("nodes", "app", 4, "800m", "100Mi")
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
			w.workload("nodes", "app", 8, "950m", "100Mi")
		}, 3},
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
			w.workload("nodes", "ledger", 4, "100m", "100Mi", affinity(nodeSelector(labelSpot, corev1.NodeSelectorOpDoesNotExist)))
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

// TestSizes has a row for each rule about what a machine of another type offers. Of the types, m5.8xlarge (32 cores,
// 128 GiB) is almost free.
func TestSizes(t *testing.T) {
	type result struct {
		name  string
		count int // without headroom
	}
	big := func(n int) result { return result{"m5.8xlarge", n} }
	for _, c := range []struct {
		name string
		set  func(*world)
		want result
	}{
		{"one machine instead of many", func(w *world) { w.workload("nodes", "app", 50, "600m", "100Mi") }, big(1)},
		{"the kubelet's reserve of CPU", func(w *world) { w.workload("nodes", "app", 53, "600m", "100Mi") }, big(1)},
		{"a millicore too much", func(w *world) { w.workload("nodes", "app", 53, "601m", "100Mi") }, big(2)},
		{"the kernel's and the kubelet's memory", func(w *world) { w.workload("nodes", "app", 61, "100m", "2Gi") }, big(1)},
		{"two GiB too much", func(w *world) { w.workload("nodes", "app", 62, "100m", "2Gi") }, big(2)},
		{"pods per node", func(w *world) { w.workload("nodes", "app", 111, "10m", "10Mi") }, big(2)},
		{"pods per node, by addresses", func(w *world) {
			for i := range w.Nodes {
				offer("pods", "29")(&w.Nodes[i])
			}
			w.setType("m5.8xlarge", func(t *savings.InstanceType) { t.Pods = 234 })
			w.workload("nodes", "app", 220, "10m", "10Mi")
		}, big(1)},
		{"ephemeral storage", func(w *world) { w.workload("nodes", "app", 5, "100m", "100Mi", request("ephemeral-storage", "30Gi")) }, big(2)},
		{"GPUs", func(w *world) {
			for i := range w.Nodes {
				offer("nvidia.com/gpu", "1")(&w.Nodes[i])
			}
			w.setType("m5.8xlarge", func(t *savings.InstanceType) { t.GPUs = 4 })
			w.workload("nodes", "app", 8, "100m", "100Mi", request("nvidia.com/gpu", "1"))
		}, big(2)},
		{"devices of which nobody knows how many it has", func(w *world) {
			for i := range w.Nodes {
				offer("example.com/nic", "4")(&w.Nodes[i])
			}
			w.workload("nodes", "app", 8, "100m", "100Mi", request("example.com/nic", "1"))
		}, result{"m5.xlarge", 2}},
		{"too small", func(w *world) {
			w.cheap("m5.large")
			w.workload("nodes", "app", 4, "100m", "7Gi")
		}, result{"m5.xlarge", 2}},
		{"not in the family", func(w *world) {
			w.cheap("c5.8xlarge")
			w.workload("nodes", "app", 4, "3700m", "100Mi")
		}, result{"m5.xlarge", 4}},
		{"in the group's list", func(w *world) {
			w.cheap("c5.8xlarge")
			w.Groups = []savings.Group{{Name: "nodes", Types: []string{"m5.xlarge", "c5.xlarge"}, Zones: zones[:1]}}
			w.workload("nodes", "app", 4, "3700m", "100Mi")
		}, result{"c5.8xlarge", 1}},
		{"of another architecture", func(w *world) {
			w.setType("m5.8xlarge", func(t *savings.InstanceType) { t.Architecture = "arm64" })
			w.workload("nodes", "app", 4, "3700m", "100Mi")
		}, result{"m5.xlarge", 4}},
		{"bare metal", func(w *world) {
			w.cheap("m5.metal")
			w.catalog.Types["m5.metal"] = w.catalog.Types["m5.8xlarge"]
			w.workload("nodes", "app", 4, "3700m", "100Mi")
		}, result{"m5.xlarge", 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			w.nodes("nodes", "m5.xlarge", 15, zones[:1])
			w.cheap("m5.8xlarge")
			c.set(w)
			r := w.compute(t)
			if got := (result{r.Resized.List[0].Type, r.Resized.Machines - r.Resized.Headroom}); got != c.want {
				t.Errorf("got %v; want %v: %v", got, c.want, r.Resized.Rows)
			}
			w.check(t, r)
		})
	}
}

// cheap makes one type cheap, and m5.8xlarge as dear as it is.
func (w *world) cheap(name string) {
	w.catalog = catalog()
	delete(w.catalog.OnDemand, "m5.2xlarge")
	delete(w.catalog.OnDemand, "m5.4xlarge")
	w.catalog.OnDemand[name] = 0.02
	for _, zone := range zones {
		w.catalog.Spot[savings.Offer{Type: name, Zone: zone}] = 0.01
	}
}

func (w *world) setType(name string, set func(*savings.InstanceType)) {
	t := w.catalog.Types[name]
	set(&t)
	w.catalog.Types[name] = t
}

// TestKeptGroup has machines that are full. The scheduler could not fill as few again.
func TestKeptGroup(t *testing.T) {
	w := newWorld()
	w.nodes("nodes", "m5.xlarge", 6, zones[:1])
	w.workload("nodes", "large", 6, "2500m", "100Mi")
	w.workload("nodes", "small", 6, "1300m", "100Mi")
	r := w.compute(t)
	if e := r.Packed; e.Machines != 6 || e.Headroom != 0 || e.List[0].Node == "" ||
		!slices.ContainsFunc(e.Reasons, func(r savings.Reason) bool { return strings.Contains(r.Text, "stays as it is") }) {
		t.Errorf("%+v; want the six machines", e)
	}
	w.check(t, r)
}

// TestNoRequests checks that pods which request nothing do not become one machine, and that the report names them.
func TestNoRequests(t *testing.T) {
	w := newWorld()
	w.nodes("nodes", "m5.xlarge", 4, zones[:1])
	w.workload("nodes", "no-cpu", 1, "0", "100Mi")
	w.workload("nodes", "no-memory", 1, "100m", "0")
	w.workload("nodes", "both", 2, "100m", "100Mi")
	r := w.compute(t)
	if r.Packed.Machines != 2 {
		t.Errorf("%d machines", r.Packed.Machines)
	}
	for _, r := range r.Packed.Reasons {
		if strings.Contains(r.Text, "stay on their nodes") && slices.Equal(r.Subjects, []string{"default/no-cpu-000", "default/no-memory-000"}) {
			return
		}
	}
	t.Error("the reasons do not name the two pods")
}

// TestNoRoom has pods that run on nodes that offer more than other nodes of their type.
func TestNoRoom(t *testing.T) {
	w := newWorld()
	w.nodes("nodes", "m5.xlarge", 4, zones[:1])
	delete(w.catalog.Types, "m5.2xlarge")
	offer("cpu", "2500m")(&w.Nodes[0])
	w.workload("nodes", "app", 3, "3", "100Mi")
	r := w.compute(t)
	if e := r.Packed; e.Machines != 3 || e.List[0].Node == "" ||
		!slices.ContainsFunc(e.Reasons, func(r savings.Reason) bool { return strings.Contains(r.Text, "no machine") }) {
		t.Errorf("%+v; want the three machines that have room", e)
	}
	w.check(t, r)

	// A machine that stays has room for one of them.
	w.workload("nodes", "local", 1, "100m", "100Mi", hostPath("/data", corev1.HostPathUnset, false), func(_ int, p *corev1.Pod) {
		p.Spec.NodeName = w.Nodes[1].Name
	})
	r = w.compute(t)
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	w.check(t, r)
}

// TestOrders has pods that belong together and that a machine has room for only if they come first.
func TestOrders(t *testing.T) {
	w := newWorld()
	w.nodes("nodes", "m5.xlarge", 15, zones[:1])
	w.workload("nodes", "app", 6, "600m", "100Mi", beside(labelHost, "app"), func(_ int, p *corev1.Pod) {
		p.Spec.NodeName = w.Nodes[0].Name
	})
	w.workload("nodes", "small", 8, "500m", "100Mi")
	if savings.Failures(w.Cluster, w.catalog, 20) == 0 {
		t.Error("no order fails")
	}
	r := w.compute(t)
	if !slices.ContainsFunc(r.Packed.Reasons, func(r savings.Reason) bool {
		return strings.Contains(r.Text, "simulated orders") && strings.HasPrefix(r.Subjects[0], "default/app-")
	}) {
		t.Errorf("the reasons do not name the pods: %+v", r.Packed.Reasons)
	}
}

// TestLeftOut has nodes that nobody can price.
func TestLeftOut(t *testing.T) {
	w := newWorld()
	w.nodes("nodes", "m5.xlarge", 4, zones[:1])
	w.nodes("nodes", "c5.large", 1, zones)
	w.workload("nodes", "app", 5, "100m", "100Mi")
	delete(w.Nodes[0].Labels, labelZone)
	delete(w.Nodes[1].Labels, labelType)
	w.Nodes[2].Spot = true
	delete(w.catalog.Spot, savings.Offer{Type: "m5.xlarge", Zone: zones[0]})
	delete(w.catalog.OnDemand, "c5.large")
	r := w.compute(t)
	if r.Now.Machines != 1 || len(r.Now.List[0].Pods) != 1 {
		t.Errorf("now: %+v", r.Now.List)
	}
	for i, e := range r.Estimates() {
		if !slices.ContainsFunc(e.Reasons, func(r savings.Reason) bool {
			return strings.Contains(r.Text, "left out, with their pods") &&
				slices.Equal(r.Subjects, []string{w.Nodes[0].Name, w.Nodes[1].Name, w.Nodes[2].Name, w.Nodes[4].Name})
		}) || slices.ContainsFunc(e.Reasons, func(r savings.Reason) bool { return strings.Contains(r.Text, "pending") }) {
			t.Errorf("estimate %d: %+v", i, e.Reasons)
		}
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*world)
		want string
	}{
		"no price": {func(w *world) { delete(w.catalog.OnDemand, "m5.xlarge") },
			"pricing node nodes-000: there is no on-demand price for m5.xlarge: add it to the prices"},
		"no Spot price": {func(w *world) { w.Nodes[0].Spot = true; clear(w.catalog.Spot) },
			"pricing node nodes-000: there is no Spot price for m5.xlarge in eu-west-1a: add it to the prices"},
		"no zone": {func(w *world) { delete(w.Nodes[0].Labels, labelZone) }, "reading node nodes-000: it has no label " +
			"node.kubernetes.io/instance-type or topology.kubernetes.io/zone: wait until the cloud controller has set them"},
		"selector": {func(w *world) {
			w.workload("nodes", "app", 1, "1", "1Gi", repel(labelHost), func(_ int, p *corev1.Pod) {
				p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].LabelSelector.MatchLabels["a"] = "-"
			})
		}, "reading pod default/app-000: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.nodes("nodes", "m5.xlarge", 1, zones)
			c.set(w)
			if _, err := savings.Compute(w.Cluster, w.catalog); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v; want %q", err, c.want)
			}
		})
	}
	if r, err := savings.Compute(savings.Cluster{}, savings.Catalog{}); err != nil || r.Packed.Machines != 0 || r.Packed.Gap() != 0 {
		t.Errorf("without nodes: %+v, %v", r, err)
	}
}
