package spot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is what the operator decides about interruptions; the rest follows from the event and from what it hits.
type Policy struct {
	Cluster string // the kOps cluster's name, as in the tag KubernetesCluster

	// Reserve is kept between the end of the last grace period and the end of the machine, for the kubelet and for
	// volumes.
	Reserve time.Duration

	// ForceGrace is the longest grace period that a pod gets when it is deleted past its budget, and so how early that
	// happens.
	ForceGrace time.Duration

	// Parallel is how many evictions are under way at once for one node.
	Parallel int
}

// DefaultPolicy is right for Spot's two minutes.
func DefaultPolicy(cluster string) Policy {
	return Policy{Cluster: cluster, Reserve: 5 * time.Second, ForceGrace: 60 * time.Second, Parallel: 50}
}

// Verdict is whether an interruption is ours to act on.
type Verdict string

const (
	Act     Verdict = "act"
	Stale   Verdict = "stale"   // it speaks of the past
	Foreign Verdict = "foreign" // it is another cluster's instance, or none of kOps'
)

// Plan is what to do about one interruption, and why.
type Plan struct {
	Verdict  Verdict
	Reason   string    // why it is not acted on; empty for Act
	Deadline time.Time // the end of the machine
	Until    time.Time // when the work must be done: the deadline, or the end of the invocation
	Replace  Replace

	force  bool
	once   bool
	policy Policy
}

// Replace is whether the group is asked for another instance, and why not.
type Replace struct {
	Action       ReplaceAction
	Group        string
	Reason       string   // why not, or what is not known about it
	SkippedHooks []string // the user's terminate hooks of the group: a detach does not run them
}

// ReplaceAction is one way to a replacement.
type ReplaceAction string

const (
	ReplaceDetach  ReplaceAction = "detach"  // the group launches another when this one is detached from it
	ReplaceAlready ReplaceAction = "already" // somebody has asked before
	ReplaceNone    ReplaceAction = "none"
)

// Plan decides what to do about an interruption of the target at the moment now. limit is when the invocation that is to
// do it ends; zero if nothing ends it.
//
// All sums start from the deadline. A warning sent at 12:00:00 for a pod with a grace period of 90 s whose budget
// refuses: the machine ends at 12:02:00, the reserve begins at 12:01:55, so the eviction is asked for with 90 s at
// first, less from 12:00:25 on, and at 12:00:55 the pod is deleted past its budget with 60 s.
func (p Policy) Plan(in Interruption, t Target, now, limit time.Time) Plan {
	m := meanings[in.Kind]
	plan := Plan{Verdict: Act, Deadline: earlier(in.Time, now).Add(m.lead), force: m.force, once: m.once, policy: p}
	if t.Node != nil {
		if marked, ok := t.Node.markedDeadline(in.EventID); ok {
			plan.Deadline = earlier(plan.Deadline, marked)
		}
	}
	plan.Until = plan.Deadline
	if !limit.IsZero() {
		plan.Until = earlier(plan.Until, limit)
	}
	plan.Verdict, plan.Reason = p.verdict(in, t, plan.Deadline, now)
	if plan.Verdict == Act {
		plan.Replace = p.replace(m, t)
	} else {
		plan.Replace = Replace{Action: ReplaceNone, Reason: plan.Reason}
	}
	return plan
}

func (p Policy) verdict(in Interruption, t Target, deadline, now time.Time) (Verdict, string) {
	if in.Replayed {
		return Stale, "the event is a replay from an archive"
	}
	if t.Node == nil {
		switch {
		case t.Instance != nil:
			if why := p.notOurs(*t.Instance); why != "" {
				return Foreign, why
			}
		case errors.Is(t.InstanceErr, ErrNotFound):
			return Foreign, "EC2 knows no such instance and the cluster has no node of it"
		}
	}
	if !now.Before(deadline) {
		state := "what has become of the instance is not known"
		if t.Instance != nil {
			state = "EC2 says that the instance is " + t.Instance.State
		}
		return Stale, fmt.Sprintf("the deadline passed %s ago; %s", now.Sub(deadline).Round(time.Second), state)
	}
	return Act, ""
}

// notOurs says why an instance is not one of this cluster's nodes; empty if it is.
func (p Policy) notOurs(i Instance) string {
	switch owner, ok := i.Tags[TagCluster]; {
	case !ok:
		return "the instance has no tag " + TagCluster + ": kOps did not make it"
	case owner != p.Cluster:
		return fmt.Sprintf("the instance belongs to the cluster %s", owner)
	case hasRole(i, nil, "bastion"):
		return "the instance is a bastion, not a node"
	}
	return ""
}

// replace chooses whether the Auto Scaling group is asked for another instance. kOps itself replaces nodes by tagging
// and detaching them without lowering the group, which works in a group at its maximum too.
func (p Policy) replace(m meaning, t Target) Replace {
	no := func(format string, args ...any) Replace {
		return Replace{Action: ReplaceNone, Reason: fmt.Sprintf(format, args...)}
	}
	if !m.detach {
		return no("%s: it may come back", m.notice)
	}
	if t.Instance == nil {
		return no("EC2 could not be asked whose instance it is: %v", t.InstanceErr)
	}
	if why := p.notOurs(*t.Instance); why != "" {
		return no("%s", why)
	}
	switch {
	case hasRole(*t.Instance, t.Node, "control-plane", "master", "apiserver", "api-server"):
		return no("it runs the control plane: kOps never surges these nodes, and neither do we")
	case isKarpenters(*t.Instance, t.Node):
		return no("Karpenter launches a node for the pods that are left without one")
	case t.Node != nil && t.Node.hasTaint(taintCADeleting):
		return no("cluster-autoscaler is removing the node and lowers its group")
	case t.Node != nil && t.Node.hasTaint(taintKarpenter):
		return no("Karpenter is removing the node")
	}
	if t.Membership == nil {
		if from := t.Instance.Tags[TagDetached]; from != "" && errors.Is(t.MembershipErr, ErrNotFound) {
			return Replace{Action: ReplaceAlready, Group: from, Reason: "it is detached from its group already"}
		}
		if errors.Is(t.MembershipErr, ErrNotFound) {
			return no("it is in no Auto Scaling group")
		}
		return no("Auto Scaling could not be asked for its group: %v", t.MembershipErr)
	}
	g := *t.Membership
	switch owner := g.GroupTags[TagCluster]; {
	case owner != p.Cluster:
		return no("its group %s does not carry the tag %s=%s", g.Group, TagCluster, p.Cluster)
	case !strings.HasSuffix(g.Group, "."+p.Cluster):
		return no("its group %s is not named as kOps names the groups of %s", g.Group, p.Cluster)
	case g.LifecycleState != "InService" && g.LifecycleState != "Standby":
		return Replace{Action: ReplaceAlready, Group: g.Group, Reason: "it is leaving its group already: " + g.LifecycleState}
	case slices.Contains(g.Suspended, "Launch"):
		return no("the process Launch is suspended in its group %s: a detach would bring no replacement", g.Group)
	}
	hooks := slices.DeleteFunc(slices.Clone(g.TerminateHooks), func(h string) bool {
		return strings.HasSuffix(h, "-NTHLifecycleHook") // kOps' own, for a drainer that finds the node drained
	})
	plan := Replace{Action: ReplaceDetach, Group: g.Group, SkippedHooks: hooks}
	if g.HooksErr != nil {
		plan.Reason = fmt.Sprintf("whether the detach skips a lifecycle hook is not known: %v", g.HooksErr)
	}
	return plan
}

// hasRole reports whether kOps gave the instance or its node one of the roles.
func hasRole(i Instance, n *Node, roles ...string) bool {
	return slices.ContainsFunc(roles, func(role string) bool {
		_, tagged := i.Tags[tagRolePrefix+role]
		labelled := false
		if n != nil {
			_, labelled = n.Labels[labelRolePrefix+role]
		}
		return tagged || labelled
	})
}

func isKarpenters(i Instance, n *Node) bool {
	_, tagged := i.Tags[karpenterKey]
	if n == nil {
		return tagged
	}
	_, labelled := n.Labels[karpenterKey]
	return tagged || labelled
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
