package controlplane

import "time"

// criticalPriority is the least priority of pods that a kubelet stops last: of system-cluster-critical.
const criticalPriority = 2_000_000_000

// statusPeriod is a kubelet's default for the time between two reports of the node's status, with the volumes in use.
// Only that the node shuts down is reported at once.
const statusPeriod = 10 * time.Second

// shutDown imitates a kubelet that delays the shutdown of its operating system with an inhibitor lock (KEP-2000): the
// node is NotReady, then ordinary pods and then critical pods get SIGTERM with their grace period, at most the group's
// window. A group ends when its pods have exited and their volumes are unmounted, or with its window; without pods, it
// takes no time. Then power is off. Pods are not deleted.
func (m *machine) shutDown(ordinary, critical time.Duration) {
	go m.heartbeat()
	go m.reportStatus()
	m.mu.Lock()
	var groups [2][]*podRun
	for _, run := range m.runs {
		if p := run.first.Spec.Priority; p != nil && *p >= criticalPriority {
			groups[1] = append(groups[1], run)
		} else {
			groups[0] = append(groups[0], run)
		}
	}
	m.mu.Unlock()
	for i, window := range []time.Duration{ordinary, critical} {
		if !m.stopPods(groups[i], window) {
			return
		}
	}
	m.kubelet.mu.Lock()
	defer m.kubelet.mu.Unlock()
	m.turnOff(m)
}

// stopPods stops pods within the window and reports whether the machine still has power.
func (m *machine) stopPods(runs []*podRun, window time.Duration) bool {
	for _, run := range runs {
		run.limit(window)
	}
	over := time.NewTimer(window)
	defer over.Stop()
	for _, run := range runs {
		select {
		case <-run.ended:
		case <-over.C:
			return m.ctx.Err() == nil
		case <-m.ctx.Done():
			return false
		}
	}
	return m.ctx.Err() == nil
}

// limit stops the pod with its own grace period, at most the window, at least a second.
func (r *podRun) limit(window time.Duration) {
	seconds := int64(window / time.Second)
	if own := r.first.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = min(seconds, *own)
	}
	seconds = max(seconds, 1)
	r.shutdown.Store(&seconds)
	r.nudge()
}

// reportStatus reports the volumes in use at every statusPeriod of the shutdown.
func (m *machine) reportStatus() {
	for m.sleep(statusPeriod, nil) {
		m.reporting.Lock()
		m.patchVolumes()
		m.reporting.Unlock()
	}
}
