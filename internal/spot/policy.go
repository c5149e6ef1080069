package spot

import "time"

// Policy is the operator's configuration.
type Policy struct {
	Cluster string // name of the kOps cluster, as in the tag KubernetesCluster

	// Reserve is the time between the end of the last grace period and the deadline, for the kubelet and for volumes.
	Reserve time.Duration

	// ForceGrace is the longest grace period of a force-deleted pod. It determines how early pods are force-deleted.
	ForceGrace time.Duration

	// ShutdownGrace is how long the kubelet delays the shutdown of the instance for ordinary pods, at least. It is zero
	// if nobody says so: then no pod is left to its kubelet.
	ShutdownGrace time.Duration

	// Force allows deleting pods that cannot be evicted in time. AnnotationForce overrides it.
	Force Force

	// Parallel limits the eviction requests in flight for one node.
	Parallel int

	// DaemonSets is when pods of DaemonSets are evicted: DrainNever or DrainLast.
	DaemonSets DrainOrder

	Rebalance       Response // to a rebalance recommendation
	ScheduledChange Response // to a scheduled change: RespondIgnore or RespondDrain

	// Hooks lists the lifecycle hooks whose terminations are handled.
	Hooks []string

	// Replace is how a replacement is requested.
	Replace Replacer

	// HasAutoscaler is whether CAST AI's API can be called.
	HasAutoscaler bool

	// DrainRehearsals makes rehearsals drain the node. Otherwise they are only previewed.
	DrainRehearsals bool
}

// MaxShutdownGrace is the longest Policy.ShutdownGrace. docs/settings.md has the reason.
const MaxShutdownGrace = 3 * time.Minute

// DefaultPolicy suits the two-minute notice of Spot interruptions.
func DefaultPolicy(cluster string) Policy {
	return Policy{Cluster: cluster, Reserve: 5 * time.Second, ForceGrace: 60 * time.Second, Force: ForceAllow,
		Parallel: 50, DaemonSets: DrainNever, Rebalance: RespondIgnore, ScheduledChange: RespondIgnore,
		Replace: ReplacerAuto}
}

// Force is whether a pod can be deleted regardless of its PodDisruptionBudget.
type Force string

const (
	ForceAllow Force = "allow"
	ForceNever Force = "never"
)

// DrainOrder is when a pod is evicted.
type DrainOrder string

const (
	DrainFirst DrainOrder = "first" // at once
	DrainLast  DrainOrder = "last"  // after the other pods, or in time for its own grace period
	DrainNever DrainOrder = "never"
)

// Response is the response to an event that does not stop the instance.
type Response string

const (
	RespondIgnore Response = "ignore"
	RespondCordon Response = "cordon"
	RespondDrain  Response = "drain"
)

// Replacer is how a replacement is requested.
type Replacer string

const (
	ReplacerAuto       Replacer = "auto"      // chosen by the node
	ReplacerGroup      Replacer = "asg"       // detach the instance from its Auto Scaling group
	ReplacerAutoscaler Replacer = "castai"    // notify CAST AI's autoscaler
	ReplacerKarpenter  Replacer = "karpenter" // delete the Karpenter NodeClaim
	ReplacerNone       Replacer = "none"
)

// Annotations on pods that override the policy.
const (
	AnnotationForce = AnnotationPrefix + "force" // a Force
	AnnotationDrain = AnnotationPrefix + "drain" // a DrainOrder
)

// DrainOrders returns the valid values of AnnotationDrain.
func DrainOrders() []DrainOrder { return []DrainOrder{DrainFirst, DrainLast, DrainNever} }

// Forces returns the valid values of AnnotationForce.
func Forces() []Force { return []Force{ForceAllow, ForceNever} }
