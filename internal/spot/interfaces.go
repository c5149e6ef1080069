package spot

import (
	"context"
	"time"
)

// Nodes is what the handler asks of a cluster about its nodes.
type Nodes interface {
	// NodeNamed reads one node: ErrNotFound if there is none of that name.
	NodeNamed(ctx context.Context, name string) (Node, error)
	// NodeOf searches all nodes, page by page, for the instance's: ErrNotFound if there is none. It costs the more the
	// larger the cluster, so it is asked last.
	NodeOf(ctx context.Context, instanceID string) (Node, error)
	// ChangeNode makes the node what change returns, in one write that is only taken if nobody else has written since n
	// was read; if somebody has, it reads again and changes that. It writes nothing if change changes nothing. It
	// returns the node as it then is, ErrNotFound if it is gone.
	ChangeNode(ctx context.Context, n Node, change func(Node) Node) (Node, error)
}

// Pods is what the handler asks of a cluster about the pods of a node.
type Pods interface {
	// PodsOn lists the pods of a node.
	PodsOn(ctx context.Context, node string) ([]Pod, error)
	// FollowPods calls see with all the pods of the node, then with each change, until ctx ends or the stream breaks.
	// It calls see from one goroutine only. After nil or an error that is not ErrPermanent it may be called again.
	FollowPods(ctx context.Context, node string, see func(PodChange)) error
	// Evict asks for the eviction of that very pod (its UID). If exact, it is only taken if the pod is still as it was
	// read. ErrNotFound: it is gone. ErrChanged: another pod has its name, or it has changed. A *Refusal: somebody
	// said no. The grace period is rounded down to whole seconds.
	Evict(ctx context.Context, p Pod, grace time.Duration, exact bool) error
	// Delete deletes that very pod past every budget; otherwise as Evict.
	Delete(ctx context.Context, p Pod, grace time.Duration, exact bool) error
}

// Cluster is the Kubernetes cluster that the handler works for.
type Cluster interface {
	Nodes
	Pods
	Leftovers
	EventRecorder

	// DeleteNodeClaim deletes a Karpenter NodeClaim, which makes Karpenter end the instance and launch what its pods need:
	// ErrNotFound if it is gone or the cluster has no such kind.
	DeleteNodeClaim(ctx context.Context, name string) error
}

// PodChange is one look at a node's pods.
type PodChange struct {
	All  bool  // Pods are all there are; those not among them are gone
	Gone bool  // Pods are gone
	Pods []Pod // what there is, what has changed, or what is gone
}

// Cloud is what the handler asks of AWS.
type Cloud interface {
	// Instance reads an instance: ErrNotFound if EC2 knows none of that id.
	Instance(ctx context.Context, id string) (Instance, error)
	// Membership reads which Auto Scaling group the instance is in: ErrNotFound if it is in none.
	Membership(ctx context.Context, id string) (Membership, error)
	// Tag puts tags on an instance. It may be repeated.
	Tag(ctx context.Context, id string, tags map[string]string) error
	// Detach takes the instance out of its group without lowering the desired capacity, so that the group launches
	// another at once. ErrPermanent: the group will not, or has done so already; the membership tells which.
	Detach(ctx context.Context, id, group string) error

	Scaling
}

// Launch is an Auto Scaling group's try to launch an instance.
type Launch struct {
	Instance string    // empty while there is none
	At       time.Time // when it began
	Failed   bool
	Reason   string // of a failure, in the group's own words
}

// Action is a lifecycle action: an instance of a group that a hook holds back from its end.
type Action struct{ Group, Hook, Token, Instance string }

// Hook is how long a lifecycle hook holds an instance.
type Hook struct {
	Heartbeat time.Duration // from its beginning or the last heartbeat
	Global    time.Duration // from its beginning, whatever heartbeats there are
}

// Scaling is what the handler asks of Auto Scaling beside the membership.
type Scaling interface {
	// Launches are the group's tries to launch an instance that began at since or later, oldest first.
	Launches(ctx context.Context, group string, since time.Time) ([]Launch, error)
	// Hook reads a lifecycle hook: ErrNotFound if the group has none of that name.
	Hook(ctx context.Context, group, hook string) (Hook, error)
	// Heartbeat has the hook hold the instance for its whole time from now on. ErrPermanent: the action is over.
	Heartbeat(ctx context.Context, a Action) error
	// Complete lets the group go on with the instance's end. It may be repeated. ErrPermanent: the action is over.
	Complete(ctx context.Context, a Action) error
}

// Leftovers is what is asked of a cluster and of EC2 about what an instance leaves behind.
type Leftovers interface {
	// Attachments are the names of the VolumeAttachments of a node.
	VolumeAttachments(ctx context.Context, node string) ([]string, error)
	// DeleteNode deletes that very node (its UID): ErrNotFound if it is gone, ErrChanged if another has its name.
	DeleteNode(ctx context.Context, n Node) error
}

// Autoscaler is an autoscaler that replaces nodes when it is told of their interruption.
type Autoscaler interface {
	// Notify tells it what happens to a node: what is AutoscalerInterrupted or AutoscalerRebalance. nodeID is its own name of the node
	// and may be empty. It is one try; an error may have a method RetryAfter() time.Duration.
	Notify(ctx context.Context, what, nodeID, providerID string) error
}

// What an Autoscaler is told, in CAST AI's words.
const (
	AutoscalerInterrupted = "interrupted"
	AutoscalerRebalance   = "rebalanceRecommendation"
)

// Marked is what a self-check asks of the cluster about its nodes.
type CordonedNodeLister interface {
	// CordonedNodes are the nodes that carry our draining label.
	CordonedNodes(ctx context.Context) ([]Node, error)
}

// Note is told where operators look first: as a Kubernetes Event on a node or a pod.
type KubeEvent struct {
	Node    *Node // what it is about: a node,
	Pod     *Pod  // or a pod
	Warning bool
	Reason  string // in one word, as Kubernetes writes them
	Message string
}

// EventRecorder sends notes.
type EventRecorder interface {
	// Record sends one. It is tried once: what it tells stands in the outcome too.
	Record(ctx context.Context, n KubeEvent) error
}
