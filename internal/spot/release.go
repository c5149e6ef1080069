package spot

import (
	"errors"
	"slices"
)

// Release is what is given free after the end of a machine, and why nothing is.
type CleanupPlan struct {
	CleanUp    bool // pods and volumes: the machine that held them has stopped
	DeleteNode bool // the node too: its machine never comes back
	Reason     string
}

// States of an EC2 instance.
const (
	stateRunning    = "running"
	stateStopped    = "stopped"
	stateTerminated = "terminated"
)

// Labels of nodes on Spot instances: kOps' controller and Karpenter set them.
const (
	labelSpotWorker   = labelRolePrefix + "spot-worker"
	labelCapacityType = "karpenter.sh/capacity-type"
)

// Release decides what is given free now that EC2 says what has become of the instance. To give a pod free while its
// machine still runs would start its twin beside it, so what is not certain is left alone.
func (p Policy) Cleanup(t Target) CleanupPlan {
	no := func(why string) CleanupPlan { return CleanupPlan{Reason: why} }
	if t.Node == nil {
		return no("no node of it is left")
	}
	if hasRole(t, "control-plane", "master", "apiserver", "api-server") {
		return no("it is a control-plane node: those are never given up by a machine")
	}
	gone := t.Instance == nil && errors.Is(t.InstanceErr, ErrNotFound)
	switch {
	case gone, t.Instance != nil && t.Instance.State == stateTerminated:
		if !t.Node.isCordonedByUs() && !isSpot(t) {
			return no("it was no Spot instance and nobody was warned: the cloud controller sees to its node")
		}
		return CleanupPlan{CleanUp: true, DeleteNode: true}
	case t.Instance == nil:
		return no("what has become of the instance is not known")
	case t.Instance.State != stateStopped:
		return no("EC2 says that the instance is " + t.Instance.State + ": nothing is given free before its end is certain")
	case t.Instance.Hibernates:
		return no("the instance may only sleep, with its pods in memory")
	case !t.Node.isCordonedByUs():
		return no("whoever stopped the instance did so without a warning, and may start it again")
	case !slices.Contains([]Kind{"", SpotTerminate, SpotStop}, t.Node.appliedKind()):
		return no("the node's marks are of an event that does not stop machines: whoever stopped the instance may start it again")
	}
	return CleanupPlan{CleanUp: true}
}

// isSpot reports whether the instance is on Spot: EC2 knows it, and once it has forgotten the instance, the node's labels.
func isSpot(t Target) bool {
	if t.Instance != nil {
		return t.Instance.Spot
	}
	return has(t.Node.Labels, labelSpotWorker) || t.Node.Labels[labelCapacityType] == "spot"
}

// isCordonedByUs reports whether the node carries marks of ours.
func (n Node) isCordonedByUs() bool { return has(n.Annotations, annotationApplied) }

// appliedKind is the kind of the event that the node is marked for; empty if it is not known.
func (n Node) appliedKind() Kind { return Kind(n.Annotations[annotationKind]) }

// Came reports whether a node that carries our marks has come back with its instance, which runs since the event: a
// machine that was warned and still runs has not.
func (n Node) hasReturned(in Interruption) bool {
	if !n.isCordonedByUs() {
		return false
	}
	if slices.Contains(appliedTo(n), markOutOfService) || n.appliedKind() == SpotStop || n.appliedKind() == SpotHibernate {
		deadline, ok := n.recordedDeadline()
		// A warning may be read a moment before the instance's first "running" is.
		return !ok || slices.Contains(appliedTo(n), markOutOfService) || in.Time.After(deadline.Add(-eventRules[n.appliedKind()].lead))
	}
	deadline, ok := n.recordedDeadline()
	return ok && in.Time.After(deadline)
}

// OutOfService returns the node as it has to be for Kubernetes to believe that its machine has stopped: the
// taint-eviction controller then marks its pods for deletion, and the attach-detach controller takes their volumes away
// without waiting for a kubelet that does not answer.
func OutOfService(n Node) Node {
	n = n.clone()
	if n.hasTaint(taintOutOfService) {
		return n
	}
	n.Taints = append(n.Taints, Taint{Key: taintOutOfService, Value: "nodeshutdown", Effect: effectNoExecute})
	m := appliedTo(n)
	m.add(markOutOfService)
	m.write(n)
	return n
}
