package savings_test

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// large has 1,000 nodes and 10,000 pods of 500 controllers. A controller's pods are the same to the scheduler, or each
// has a label of its own.
func large(unique bool) *world {
	w := newWorld()
	w.daemon("log", "100m", "200Mi")
	w.daemon("net", "50m", "100Mi")
	for g := range 4 {
		w.nodes(fmt.Sprintf("nodes-%d", g), "m5.xlarge", 250, zones)
	}
	for i := range 500 {
		var change []func(int, *corev1.Pod)
		switch i % 10 {
		case 0:
			change = append(change, w.zonal, repel(labelHost))
		case 1:
			change = append(change, spreadBy(labelZone, 1))
		case 2:
			change = append(change, affinity(nodeSelector(labelSpot, corev1.NodeSelectorOpDoesNotExist)))
		case 3:
			change = append(change, spreadBy(labelHost, 1))
		}
		if unique {
			change = append(change, func(_ int, p *corev1.Pod) { p.Labels["pod"] = p.Name })
		}
		w.workload(fmt.Sprintf("nodes-%d", i%4), fmt.Sprintf("app-%03d", i), 20, fmt.Sprintf("%dm", 50+w.random.IntN(450)),
			fmt.Sprintf("%dMi", 100+w.random.IntN(1300)), change...)
	}
	return w
}

// BenchmarkCompute reports the peak of the heap that the garbage collector sees, with the input.
func BenchmarkCompute(b *testing.B) {
	for _, unique := range []bool{false, true} {
		b.Run(fmt.Sprintf("unique=%t", unique), func(b *testing.B) {
			w := large(unique)
			for b.Loop() {
				r := w.compute(b)
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				b.ReportMetric(float64(m.Sys)/1e6, "MB")
				b.ReportMetric(100*r.Packed.Gap(), "%gap-packed")
				b.ReportMetric(100*r.Resized.Gap(), "%gap-resized")
				b.ReportMetric(float64(r.Packed.Headroom), "headroom")
			}
		})
	}
}
