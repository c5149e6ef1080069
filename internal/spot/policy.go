package spot

import "time"

// Policy is what the operator decides about interruptions; the rest follows from the event and from what it hits.
type Policy struct {
	Cluster string // the kOps cluster's name, as in the tag KubernetesCluster

	// Reserve is kept between the end of the last grace period and the end of the machine, for the kubelet and for
	// volumes.
	Reserve time.Duration

	// ForceGrace is the longest grace period that a pod gets when it is deleted past its budget, and so how early that
	// happens.
	ForceGrace time.Duration

	// Force is whether pods are deleted past their budgets at all when the machine ends. AnnotationForce overrules it.
	Force Force

	// Parallel is how many evictions are under way at once for one node.
	Parallel int

	// DaemonSets is what becomes of DaemonSets' pods: Leave or Last.
	DaemonSets DrainOrder

	Rebalance       Response // to a rebalance recommendation: RespondNot, RespondCordon or RespondDrain
	ScheduledChange Response // to AWS Health's scheduled change: RespondNot or RespondDrain

	// Hooks are the lifecycle hooks whose terminations are handled; those of other names are left to whom they belong.
	Hooks []string

	// Replace is who is asked for a replacement.
	Replace Replacer

	// Autoscaler is whether there is an autoscaler's API to tell.
	HasAutoscaler bool

	// Follow is how long after the drain the answer to the request for a replacement is waited for, while the machine
	// lives.
	FollowLaunch time.Duration

	// Rehearse is whether a rehearsal really drains; otherwise it is only a Preview.
	DrainRehearsals bool
}

// DefaultPolicy is right for Spot's two minutes.
func DefaultPolicy(cluster string) Policy {
	return Policy{Cluster: cluster, Reserve: 5 * time.Second, ForceGrace: 60 * time.Second, Force: ForceAllow, Parallel: 50,
		DaemonSets: DrainNever, Rebalance: RespondIgnore, ScheduledChange: RespondIgnore, Replace: ReplacerAuto, FollowLaunch: 2 * time.Minute}
}

// Force is whether a pod may be deleted past its budget.
type Force string

const (
	ForceAllow Force = "allow"
	ForceNever Force = "never"
)

// Turn is when a pod is asked to leave.
type DrainOrder string

const (
	DrainFirst DrainOrder = "first" // with all others
	DrainLast  DrainOrder = "last"  // when all others have gone, or when its own grace period begins to run out
	DrainNever DrainOrder = "never" // it stays until the machine ends
)

// Response is what is done about an event that does not end the machine by itself.
type Response string

const (
	RespondIgnore Response = "ignore"
	RespondCordon Response = "cordon"
	RespondDrain  Response = "drain"
)

// Replacer is who brings a replacement.
type Replacer string

const (
	ReplacerAuto       Replacer = "auto"      // whoever the node belongs to
	ReplacerGroup      Replacer = "asg"       // the Auto Scaling group, by a detach
	ReplacerAutoscaler Replacer = "castai"    // CAST AI's autoscaler, by its event API
	ReplacerKarpenter  Replacer = "karpenter" // Karpenter, by deleting the node's NodeClaim
	ReplacerNone       Replacer = "none"
)

// Annotations by which a pod overrules the policy.
const (
	// AnnotationForce on a pod: "never" has it die with its machine rather than be deleted past its budget, "allow" lets
	// it where the policy does not.
	AnnotationForce = AnnotationPrefix + "force"

	// AnnotationDrain on a pod: its Turn.
	AnnotationDrain = AnnotationPrefix + "drain"
)

// DrainOrders and Forces are the values that annotations and settings may have.
func DrainOrders() []DrainOrder { return []DrainOrder{DrainFirst, DrainLast, DrainNever} }
func Forces() []Force           { return []Force{ForceAllow, ForceNever} }

// force is whether the pod may be deleted past its budget, the pod's annotation first. One that has another value does
// not count, and is told.
func (p Policy) force(pod Pod) bool {
	switch Force(pod.Annotations[AnnotationForce]) {
	case ForceNever:
		return false
	case ForceAllow:
		return true
	}
	return p.Force != ForceNever
}

// turn is when the pod is asked, and whether its own annotation says so.
func (p Policy) turn(pod Pod) (turn DrainOrder, own bool) {
	switch t := DrainOrder(pod.Annotations[AnnotationDrain]); t {
	case DrainFirst, DrainLast, DrainNever:
		return t, true
	}
	if pod.Owner.Kind == "DaemonSet" {
		return p.DaemonSets, false
	}
	return DrainFirst, false
}
