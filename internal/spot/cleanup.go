package spot

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Release is what is given free after the end of a machine, and why nothing is.
type CleanupPlan struct {
	CleanUp    bool // pods and volumes: the machine that held them has stopped
	DeleteNode bool // the node too: its machine never comes back
	Reason     string
}

// States of an EC2 instance.
const (
	StateRunning    = "running"
	StateStopped    = "stopped"
	StateTerminated = "terminated"
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
	case gone, t.Instance != nil && t.Instance.State == StateTerminated:
		if !t.Node.isCordonedByUs() && !isSpot(t) {
			return no("it was no Spot instance and nobody was warned: the cloud controller sees to its node")
		}
		return CleanupPlan{CleanUp: true, DeleteNode: true}
	case t.Instance == nil:
		return no("what has become of the instance is not known")
	case t.Instance.State != StateStopped:
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
func (n Node) HasReturned(in Interruption) bool {
	if !n.isCordonedByUs() {
		return false
	}
	if slices.Contains(appliedTo(n), markOutOfService) || n.appliedKind() == SpotStop || n.appliedKind() == SpotHibernate {
		deadline, ok := n.recordedDeadline()
		// A warning may be read a moment before the instance's first "running" is.
		return !ok || slices.Contains(appliedTo(n), markOutOfService) || in.Time.After(deadline.Add(-eventRules[n.appliedKind()].notice))
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

// overdueAfter is how long an instance may run on past the end that is marked on its node. EC2 takes back in its own
// time, and a shutdown takes minutes.
const overdueAfter = 15 * time.Minute

// OverdueInstance is a node with our marks whose instance runs long past the marked end.
type OverdueInstance struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"` // the end that is marked on the node
}

// OverdueCandidates are the ids of the instances that should have ended long ago, by the marks on their nodes.
func OverdueCandidates(nodes []Node, now time.Time) (ids []string) {
	for _, n := range nodes {
		if _, due := n.due(now); due {
			ids = append(ids, n.instanceID())
		}
	}
	return ids
}

// Overdue are those of the nodes whose instances run although they should have ended long ago, in the order of their names.
func Overdue(nodes []Node, instances map[string]Instance, now time.Time) (found []OverdueInstance) {
	for _, n := range nodes {
		since, due := n.due(now)
		if i, known := instances[n.instanceID()]; due && known && i.State == StateRunning {
			found = append(found, OverdueInstance{Node: n.Name, Instance: i.ID, Since: since.UTC()})
		}
	}
	slices.SortFunc(found, func(a, b OverdueInstance) int { return strings.Compare(a.Node, b.Node) })
	return found
}

// due reports whether the end that we have marked on an EC2 instance's node passed long ago. The draining label alone does
// not tell: CAST AI's own parts set it too.
func (n Node) due(now time.Time) (since time.Time, due bool) {
	since, ok := n.recordedDeadline()
	return since, ok && n.isCordonedByUs() && n.instanceID() != "" && now.Sub(since) >= overdueAfter
}

// instanceID is the id of the node's instance; empty if the node does not say.
func (n Node) instanceID() string {
	id := n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
	if !strings.HasPrefix(id, "i-") {
		return ""
	}
	return id
}
