package spot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CleanupPlan is what to clean up after an instance has stopped.
type CleanupPlan struct {
	CleanUp     bool   // delete the pods and release their volumes
	DeleteNode  bool   // delete the node too: its instance does not come back
	NodeDeleted bool   // the node is already deleted: delete the pods that are left
	Reason      string // why there is nothing to clean up
}

// States of an EC2 instance.
const (
	StateRunning    = "running"
	StateStopped    = "stopped"
	StateTerminated = "terminated"
)

// Labels of nodes on Spot instances, set by kOps and Karpenter.
const (
	labelSpotWorker   = labelRolePrefix + "spot-worker"
	labelCapacityType = "karpenter.sh/capacity-type"
)

// Cleanup decides what to clean up, given the state of the instance. Deleting a pod while its instance runs would start
// the same pod twice, so the instance must have stopped for certain.
func (p Policy) Cleanup(t Target) CleanupPlan {
	no := func(reason string) CleanupPlan { return CleanupPlan{Reason: reason} }
	if hasRole(t, controlPlaneRoles...) {
		return no("control-plane nodes are never cleaned up")
	}
	if t.Node == nil {
		if i := t.Instance; i == nil || i.State != StateTerminated || !i.Spot || p.OtherClusterReason(*i) != "" {
			return no("the instance has no node")
		}
		return CleanupPlan{CleanUp: true, NodeDeleted: true}
	}
	gone := t.Instance == nil && errors.Is(t.InstanceErr, ErrNotFound)
	switch {
	case gone, t.Instance != nil && t.Instance.State == StateTerminated:
		if !t.Node.isCordonedByUs() && !isSpot(t) {
			return no("not a Spot instance, and no event announced its end: the cloud controller deletes its node")
		}
		return CleanupPlan{CleanUp: true, DeleteNode: true}
	case t.Instance == nil:
		return no("the instance's state is unknown")
	case t.Instance.State != StateStopped:
		return no("the instance is " + t.Instance.State + ": clean-up starts when it has stopped")
	case t.Instance.Hibernates:
		return no("the instance may be hibernated, with its pods in memory")
	case !t.Node.isCordonedByUs():
		return no("the instance was stopped without a warning and may be started again")
	case !slices.Contains([]Kind{"", SpotTerminate, SpotStop}, t.Node.appliedKind()):
		return no("the node was cordoned for an event that does not stop instances: the instance may be started again")
	}
	return CleanupPlan{CleanUp: true}
}

// isSpot reports whether the instance is a Spot instance, according to EC2 or, if EC2 no longer knows it, the node's
// labels.
func isSpot(t Target) bool {
	if t.Instance != nil {
		return t.Instance.Spot
	}
	return has(t.Node.Labels, labelSpotWorker) || t.Node.Labels[labelCapacityType] == "spot"
}

func (n Node) isCordonedByUs() bool { return has(n.Annotations, annotationApplied) }

// appliedKind returns the kind of the event that the node was cordoned for; empty if unknown.
func (n Node) appliedKind() Kind { return Kind(n.Annotations[annotationKind]) }

// HasReturned reports whether the instance of a node that kops-spot cordoned has started again. An instance that is
// still running after a warning has not.
func (n Node) HasReturned(in Interruption) bool {
	if !n.isCordonedByUs() {
		return false
	}
	deadline, ok := n.recordedDeadline()
	kind := n.appliedKind()
	switch {
	case slices.Contains(appliedTo(n), appliedOutOfService):
		return true
	case kind == SpotStop, kind == SpotHibernate:
		// The event "running" of the instance's first start may arrive shortly after the warning.
		return !ok || in.Time.After(deadline.Add(-eventRules[kind].notice))
	}
	return ok && in.Time.After(deadline)
}

// OutOfService returns the node with the out-of-service taint. The taint eviction controller then marks its pods for
// deletion, and the attach-detach controller detaches their volumes without waiting for the kubelet.
func OutOfService(n Node) Node {
	n = n.clone()
	if n.hasTaint(taintOutOfService) {
		return n
	}
	n.Taints = append(n.Taints, Taint{Key: taintOutOfService, Value: "nodeshutdown", Effect: effectNoExecute})
	a := appliedTo(n)
	a.add(appliedOutOfService)
	a.write(n)
	return n
}

// overdueAfter is how long after the deadline a running instance is overdue. EC2 interrupts late, and a shutdown takes
// minutes.
const overdueAfter = 15 * time.Minute

// OverdueInstance is an instance that still runs long after the deadline recorded on its node.
type OverdueInstance struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"` // the recorded deadline
}

// OverdueCandidates returns the IDs of the instances whose recorded deadline passed long ago.
func OverdueCandidates(nodes []Node, now time.Time) (ids []string) {
	for _, n := range nodes {
		if _, due := n.due(now); due {
			ids = append(ids, n.instanceID())
		}
	}
	return ids
}

// Overdue returns the candidates that are still running, sorted by node.
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

// due reports whether the deadline recorded by kops-spot passed long ago, for an event after which EC2 terminates the
// instance. The draining label is not enough: CAST AI's components set it too.
func (n Node) due(now time.Time) (since time.Time, due bool) {
	since, ok := n.recordedDeadline()
	terminates := n.appliedKind() == SpotTerminate && !has(n.Annotations, annotationRehearse)
	return since, ok && terminates && n.isCordonedByUs() && n.instanceID() != "" && now.Sub(since) >= overdueAfter
}

// Nodes that stay cordoned. rehearsalStays is how long a rehearsal's cordon may outlast its deadline: the invocation may
// have been killed before it restored the node. cordonStays is that for events that do not terminate the instance.
const (
	rehearsalStays = 10 * time.Minute
	cordonStays    = time.Hour
)

// IsStaleRehearsal reports whether a rehearsal should have restored the node.
func (n Node) IsStaleRehearsal(now time.Time) bool {
	deadline, ok := n.recordedDeadline()
	return ok && n.isCordonedByUs() && has(n.Annotations, annotationRehearse) && now.Sub(deadline) >= rehearsalStays
}

// CordonStays describes for how long kops-spot has kept a working node cordoned without need; empty if it has not.
func (n Node) CordonStays(now time.Time) string {
	deadline, ok := n.recordedDeadline()
	kind := n.appliedKind()
	if !ok || !n.isCordonedByUs() || !n.Unschedulable || n.NotReady || kind == SpotTerminate || now.Sub(deadline) < cordonStays {
		return ""
	}
	return fmt.Sprintf("node %s is still cordoned for the event %s, which ended %s: to use it again, run kops-spot restore %s",
		n.Name, kind, deadline.UTC().Format(time.RFC3339), n.Name)
}

// instanceID returns the ID of the node's instance; empty if unknown.
func (n Node) instanceID() string {
	id := n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:]
	if !strings.HasPrefix(id, "i-") {
		return ""
	}
	return id
}
