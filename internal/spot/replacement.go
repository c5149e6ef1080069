package spot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Replace is who is asked for another instance, or why nobody is.
type Replacement struct {
	Action          ReplaceAction
	Group           string   // the Auto Scaling group
	NodeClaim       string   // the NodeClaim
	AutoscalerEvent string   // what the autoscaler is told
	Reason          string   // why not, or what is not known about it
	SkippedHooks    []string // the user's terminate hooks of the group: a detach does not run them
}

// ReplaceAction is one way to a replacement.
type ReplaceAction string

const (
	ReplaceDetach  ReplaceAction = "detach"       // the group launches another when this one is detached from it
	ReplaceNotify  ReplaceAction = "autoscaler"   // CAST AI's autoscaler is told, and replaces the node as it sees fit
	ReplaceClaim   ReplaceAction = "node-claim"   // Karpenter launches what is needed when the NodeClaim is deleted
	ReplacePending ReplaceAction = "pods-pending" // Karpenter launches a node for the pods that are left without one
	ReplaceAlready ReplaceAction = "already"      // somebody has asked before
	ReplaceNone    ReplaceAction = "none"
)

func noReplacement(format string, args ...any) Replacement {
	return Replacement{Action: ReplaceNone, Reason: fmt.Sprintf(format, args...)}
}

// replacerOf chooses by what the node is.
func replacerOf(t Target) Replacer {
	switch {
	case t.Node != nil && has(t.Node.Labels, LabelAutoscalerID):
		return ReplacerAutoscaler
	case isKarpenters(t):
		return ReplacerKarpenter
	}
	return ReplacerGroup
}

func has(m map[string]string, key string) bool {
	_, ok := m[key]
	return ok
}

// replace chooses who is asked for another instance: exactly one, by the node or by the policy.
func (p Policy) replace(m eventRule, t Target) Replacement {
	way := p.Replace
	if way == ReplacerAuto {
		way = replacerOf(t)
	}
	switch {
	case way == ReplacerNone:
		return noReplacement("the policy is to ask nobody")
	case way == ReplacerAutoscaler && m.autoscalerEvent != "":
		return p.replaceByAutoscaler(m, t)
	case !m.detach:
		return noReplacement("%s", m.noReplaceReason)
	}
	if why := p.noReplacementReason(t); why != "" {
		return noReplacement("%s", why)
	}
	if way == ReplacerKarpenter {
		return p.replaceByKarpenter(t)
	}
	return p.replaceByGroup(t)
}

// noReplacementReason says why nobody may be asked, whoever it would be; empty if somebody may.
func (p Policy) noReplacementReason(t Target) string {
	switch {
	case hasRole(t, "control-plane", "master", "apiserver", "api-server"):
		return "it runs the control plane: kOps never surges these nodes, and neither do we"
	case t.Node != nil && t.Node.hasTaint(taintCADeleting):
		return "cluster-autoscaler is removing the node and lowers its group"
	case t.Node != nil && t.Node.hasTaint(taintKarpenter):
		return "Karpenter is removing the node"
	}
	return ""
}

// replaceByAutoscaler tells CAST AI's autoscaler. It needs the node: what it is told is the node's providerID.
func (p Policy) replaceByAutoscaler(m eventRule, t Target) Replacement {
	switch {
	case !p.HasAutoscaler:
		return noReplacement("it is CAST AI's to replace, and there is no API key to tell it with")
	case t.Node == nil:
		return noReplacement("CAST AI's autoscaler is told of nodes, and the node is not known")
	}
	if why := p.noReplacementReason(t); why != "" {
		return noReplacement("%s", why)
	}
	return Replacement{Action: ReplaceNotify, AutoscalerEvent: m.autoscalerEvent}
}

// replaceByKarpenter leaves it to the pods that are evicted, or, where the policy names Karpenter, deletes the NodeClaim:
// that makes Karpenter drain and end the instance too.
func (p Policy) replaceByKarpenter(t Target) Replacement {
	switch {
	case p.Replace != ReplacerKarpenter:
		return Replacement{Action: ReplacePending, Reason: "Karpenter launches a node for the pods that are left without one"}
	case t.Node == nil || t.Node.NodeClaim == "":
		return noReplacement("no NodeClaim of Karpenter's owns the node")
	}
	return Replacement{Action: ReplaceClaim, NodeClaim: t.Node.NodeClaim}
}

// replaceByGroup chooses whether the Auto Scaling group is asked for another instance. kOps itself replaces nodes by
// tagging and detaching them without lowering the group, which works in a group at its maximum too.
func (p Policy) replaceByGroup(t Target) Replacement {
	if t.Instance == nil {
		return noReplacement("EC2 could not be asked whose instance it is: %v", t.InstanceErr)
	}
	if why := p.OtherClusterReason(*t.Instance); why != "" {
		return noReplacement("%s", why)
	}
	if t.Membership == nil {
		if from := t.Instance.Tags[TagDetached]; from != "" && errors.Is(t.MembershipErr, ErrNotFound) {
			return Replacement{Action: ReplaceAlready, Group: from, Reason: "it is detached from its group already"}
		}
		if errors.Is(t.MembershipErr, ErrNotFound) {
			return noReplacement("it is in no Auto Scaling group")
		}
		return noReplacement("Auto Scaling could not be asked for its group: %v", t.MembershipErr)
	}
	g := *t.Membership
	switch owner := g.GroupTags[TagCluster]; {
	case owner != p.Cluster:
		return noReplacement("its group %s does not carry the tag %s=%s", g.Group, TagCluster, p.Cluster)
	case !strings.HasSuffix(g.Group, "."+p.Cluster):
		return noReplacement("its group %s is not named as kOps names the groups of %s", g.Group, p.Cluster)
	case strings.HasPrefix(g.LifecycleState, "Warmed:"):
		return noReplacement("it is in the warm pool of its group %s: nothing runs on it that would need another", g.Group)
	case g.LifecycleState != "InService" && g.LifecycleState != "Standby":
		return Replacement{Action: ReplaceAlready, Group: g.Group, Reason: "it is leaving its group already: " + g.LifecycleState}
	case slices.Contains(g.Suspended, "Launch"):
		return noReplacement("the process Launch is suspended in its group %s: a detach would bring no replacement", g.Group)
	}
	hooks := slices.DeleteFunc(slices.Clone(g.TerminateHooks), func(h string) bool {
		return strings.HasSuffix(h, suffixNTHHook) // for a drainer that finds the node drained
	})
	plan := Replacement{Action: ReplaceDetach, Group: g.Group, SkippedHooks: hooks}
	if g.HooksErr != nil {
		plan.Reason = fmt.Sprintf("whether the detach skips a lifecycle hook is not known: %v", g.HooksErr)
	}
	return plan
}

// suffixNTHHook ends the names of the lifecycle hooks that kOps makes for aws-node-termination-handler.
const suffixNTHHook = "-NTHLifecycleHook"

// hasRole reports whether kOps gave the instance or its node one of the roles.
func hasRole(t Target, roles ...string) bool {
	return slices.ContainsFunc(roles, func(role string) bool {
		return t.Instance != nil && has(t.Instance.Tags, tagRolePrefix+role) || t.Node != nil && has(t.Node.Labels, labelRolePrefix+role)
	})
}

func isKarpenters(t Target) bool {
	return t.Instance != nil && has(t.Instance.Tags, karpenterKey) || t.Node != nil && has(t.Node.Labels, karpenterKey)
}

// toldProvider is what an autoscaler is told as the node's providerID.
func AutoscalerProviderID(n Node) string {
	return cmp.Or(n.Annotations[annotationProvider], n.ProviderID)
}
