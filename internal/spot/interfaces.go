package spot

import (
	"context"
	"time"
)

// Cluster is the Kubernetes cluster.
type Cluster interface {
	CordonedNodeLister // for rehearsals

	// NodeNamed reads a node. It returns ErrNotFound if no node has that name.
	NodeNamed(ctx context.Context, name string) (Node, error)
	// NodeOf searches all nodes, page by page, for the node of an instance. It returns ErrNotFound if there is none.
	// Its cost grows with the cluster.
	NodeOf(ctx context.Context, instanceID string) (Node, error)
	// ChangeNode applies change in one write that fails if the node has changed since n was read; it then reads the
	// node and tries again. It writes nothing if change changes nothing. It returns the new node, or ErrNotFound.
	ChangeNode(ctx context.Context, n Node, change func(Node) Node) (Node, error)
	// FollowNode calls see with each change of the node since n was read, until ctx ends or the watch breaks.
	FollowNode(ctx context.Context, n Node, see func(Node)) error
	// DeleteNode deletes the node with n's UID. It returns ErrNotFound if there is none, and ErrChanged if another node
	// has its name.
	DeleteNode(ctx context.Context, n Node) error
	// FollowVolumes calls see with the names of the node's VolumeAttachments, sorted, and again after each change, until
	// ctx ends or the watch breaks.
	FollowVolumes(ctx context.Context, node string, see func(attached []string)) error

	// FollowPods calls see with all the pods on the node, then with each change, until ctx ends or the watch breaks.
	// All calls come from one goroutine. It can be called again.
	FollowPods(ctx context.Context, node string, see func(PodChange)) error
	// ReadPod reads the pod with p's UID, never from a cache. It returns ErrNotFound if the pod is gone.
	ReadPod(ctx context.Context, p Pod) (Pod, error)
	// Evict evicts the pod with p's UID. If exact, the request fails if the pod has changed since it was read. It
	// returns ErrNotFound if the pod is gone, ErrChanged if it has changed or another pod has its name, and a *Refusal
	// if the eviction was refused. It rounds the grace period down to seconds.
	Evict(ctx context.Context, p Pod, grace time.Duration, exact bool) error
	// Disrupt sets the condition DisruptionTarget of the pod with p's UID, as an eviction does: a Job's
	// podFailurePolicy depends on it. It returns the pod as it is then.
	Disrupt(ctx context.Context, p Pod) (Pod, error)
	// Delete is Evict without PodDisruptionBudgets.
	Delete(ctx context.Context, p Pod, grace time.Duration, exact bool) error

	// DeleteNodeClaim deletes a Karpenter NodeClaim. Karpenter then terminates the instance and launches what the pods
	// need. It returns ErrNotFound if there is no such NodeClaim or no such resource type.
	DeleteNodeClaim(ctx context.Context, name string) error
	// Record sends a Kubernetes Event, without retries: the outcome contains the same information.
	Record(ctx context.Context, e KubeEvent) error
}

// CordonedNodeLister lists the nodes with kops-spot's draining label.
type CordonedNodeLister interface {
	CordonedNodes(ctx context.Context) ([]Node, error)
}

// PodChange is a change of the pods on a node.
type PodChange struct {
	All  bool  // Pods is the complete list
	Gone bool  // Pods were deleted
	Pods []Pod // the complete list, or the pods that changed or were deleted
}

// KubeEvent is a Kubernetes Event about a node or a pod.
type KubeEvent struct {
	Node    *Node // either the node
	Pod     *Pod  // or the pod
	Warning bool
	Reason  string // in CamelCase
	Message string
}

// Cloud is EC2 and EC2 Auto Scaling.
type Cloud interface {
	// Instance reads an instance. It returns ErrNotFound if EC2 does not know the ID.
	Instance(ctx context.Context, id string) (Instance, error)
	// Membership reads the instance's Auto Scaling group. It returns ErrNotFound if the instance is in none.
	Membership(ctx context.Context, id string) (Membership, error)
	// Group reads an Auto Scaling group. It returns ErrNotFound if there is none of that name.
	Group(ctx context.Context, name string) (Group, error)
	// DetachedFrom reads the instances whose tag TagDetached names the group.
	DetachedFrom(ctx context.Context, group string) ([]Instance, error)
	// Tag adds tags to an instance. It is idempotent.
	Tag(ctx context.Context, id string, tags map[string]string) error
	// Detach detaches the instance from its group without lowering the desired capacity, so that the group launches a
	// replacement at once. It returns ErrPermanent if the group refuses or the instance is already detached.
	Detach(ctx context.Context, id, group string) error

	// Hook reads a lifecycle hook. It returns ErrNotFound if the group has no hook of that name.
	Hook(ctx context.Context, group, hook string) (Hook, error)
	// Heartbeat restarts the hook's heartbeat timeout. It returns ErrPermanent if the lifecycle action is over.
	Heartbeat(ctx context.Context, a Action) error
	// Complete completes the lifecycle action. It is idempotent. It returns ErrPermanent if the action is over.
	Complete(ctx context.Context, a Action) error
}

// Action is a lifecycle action: a hook delays the termination of an instance.
type Action struct{ Group, Hook, Token, Instance string }

// Hook contains a lifecycle hook's timeouts.
type Hook struct {
	Heartbeat time.Duration // from the start or the last heartbeat
	Global    time.Duration // from the start, regardless of heartbeats
}

// Publisher publishes notifications on an event bus.
type Publisher interface {
	// Publish makes one attempt.
	Publish(ctx context.Context, n Notification) error
}

// Autoscaler is CAST AI's autoscaler, which replaces nodes when it is notified of their interruption.
type Autoscaler interface {
	// Notify reports an event, AutoscalerInterrupted or AutoscalerRebalance, about a node. nodeID is CAST AI's ID of
	// the node; it may be empty. Notify does not retry. Its error may have a method RetryAfter() time.Duration.
	Notify(ctx context.Context, event, nodeID, providerID string) error
}

// Events in CAST AI's API.
const (
	AutoscalerInterrupted = "interrupted"
	AutoscalerRebalance   = "rebalanceRecommendation"
)
