package spot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Replacement is how to request a replacement, or why not to.
type Replacement struct {
	Action          ReplaceAction
	Group           string   // the Auto Scaling group
	NodeClaim       string   // the Karpenter NodeClaim
	AutoscalerEvent string   // the event to send to CAST AI's autoscaler
	Reason          string   // why not, or a caveat
	SkippedHooks    []string // terminate hooks of the group that a detach does not run
}

// ReplaceAction is a way to request a replacement.
type ReplaceAction string

const (
	ReplaceDetach  ReplaceAction = "detach"       // detach the instance: its group launches another
	ReplaceNotify  ReplaceAction = "autoscaler"   // notify CAST AI's autoscaler
	ReplaceClaim   ReplaceAction = "node-claim"   // delete the NodeClaim: Karpenter launches what the pods need
	ReplacePending ReplaceAction = "pods-pending" // Karpenter launches a node for the evicted pods
	ReplaceAlready ReplaceAction = "already"      // somebody has requested one
	ReplaceNone    ReplaceAction = "none"
)

var controlPlaneRoles = []string{"control-plane", "master", "apiserver", "api-server"}

func noReplacement(format string, args ...any) Replacement {
	return Replacement{Action: ReplaceNone, Reason: fmt.Sprintf(format, args...)}
}

// replace chooses exactly one way to request a replacement.
func (p Policy) replace(rule eventRule, t Target) Replacement {
	way := p.Replace
	if way == ReplacerAuto {
		way = replacerOf(t)
	}
	why := noReplacementReason(t)
	switch {
	case way == ReplacerNone:
		return noReplacement("the policy is not to request one")
	case way == ReplacerAutoscaler && rule.autoscalerEvent != "":
		switch {
		case !p.HasAutoscaler:
			return noReplacement("CAST AI's autoscaler manages the node, and no API key is configured")
		case t.Node == nil:
			return noReplacement("CAST AI's autoscaler can only be notified of a known node")
		case why != "":
			return noReplacement("%s", why)
		}
		return Replacement{Action: ReplaceNotify, AutoscalerEvent: rule.autoscalerEvent}
	case !rule.detach:
		return noReplacement("%s", rule.noReplaceReason)
	case why != "":
		return noReplacement("%s", why)
	case way == ReplacerKarpenter:
		return p.replaceByKarpenter(t)
	}
	return p.replaceByGroup(t)
}

// replacerOf chooses by who manages the node.
func replacerOf(t Target) Replacer {
	switch {
	case t.Node != nil && has(t.Node.Labels, LabelAutoscalerID):
		return ReplacerAutoscaler
	case t.Instance != nil && has(t.Instance.Tags, KarpenterKey), t.Node != nil && has(t.Node.Labels, KarpenterKey):
		return ReplacerKarpenter
	}
	return ReplacerGroup
}

// noReplacementReason returns why no replacement may be requested in any way; empty if one may.
func noReplacementReason(t Target) string {
	switch {
	case hasRole(t, controlPlaneRoles...):
		return "control-plane nodes are never detached"
	case t.Node != nil && t.Node.hasTaint(taintCADeleting):
		return "cluster-autoscaler is removing the node and scaling down its group"
	case t.Node != nil && t.Node.hasTaint(taintKarpenter):
		return "Karpenter is removing the node"
	}
	return ""
}

// replaceByKarpenter relies on the evicted pods or, if the policy names Karpenter, deletes the NodeClaim, which also
// makes Karpenter drain and terminate the instance.
func (p Policy) replaceByKarpenter(t Target) Replacement {
	switch {
	case p.Replace != ReplacerKarpenter:
		return Replacement{Action: ReplacePending, Reason: "Karpenter launches a node for pending pods"}
	case t.Node == nil || t.Node.NodeClaim == "":
		return noReplacement("the node has no Karpenter NodeClaim")
	}
	return Replacement{Action: ReplaceClaim, NodeClaim: t.Node.NodeClaim}
}

// replaceByGroup decides whether to detach the instance from its Auto Scaling group. kOps replaces nodes the same way:
// it tags them and detaches them without lowering the desired capacity, which also works in a group at its maximum.
func (p Policy) replaceByGroup(t Target) Replacement {
	if t.Instance == nil {
		return noReplacement("the instance could not be read from EC2: %v", t.InstanceErr)
	}
	if why := p.OtherClusterReason(*t.Instance); why != "" {
		return noReplacement("%s", why)
	}
	if t.Membership == nil {
		from := t.Instance.Tags[TagDetached]
		switch {
		case !errors.Is(t.MembershipErr, ErrNotFound):
			return noReplacement("the Auto Scaling group could not be read: %v", t.MembershipErr)
		case from != "":
			return Replacement{Action: ReplaceAlready, Group: from, Reason: "already detached from its group"}
		}
		return noReplacement("the instance is in no Auto Scaling group")
	}
	g := *t.Membership
	switch {
	case p.OtherGroupReason(g.Group, g.GroupTags) != "":
		return noReplacement("%s", p.OtherGroupReason(g.Group, g.GroupTags))
	case strings.HasPrefix(g.LifecycleState, "Warmed:"):
		return noReplacement("the instance is in the warm pool of group %s and runs no pods", g.Group)
	case g.IsJoining():
		return noReplacement("the instance is still joining group %s: %s", g.Group, g.LifecycleState)
	case g.LifecycleState != "InService" && g.LifecycleState != "Standby":
		return Replacement{Action: ReplaceAlready, Group: g.Group, Reason: "already leaving its group: " + g.LifecycleState}
	case slices.Contains(g.Suspended, "Launch"):
		return noReplacement("the process Launch of group %s is suspended: a detach would not launch an instance", g.Group)
	}
	hooks := slices.DeleteFunc(slices.Clone(g.TerminateHooks), func(h string) bool {
		return slices.Contains(p.Hooks, h) || IsKopsHook(h) // they only drain the node, as we do now
	})
	r := Replacement{Action: ReplaceDetach, Group: g.Group, SkippedHooks: hooks}
	if g.HooksErr != nil {
		r.Reason = fmt.Sprintf("the group's lifecycle hooks could not be read: %v", g.HooksErr)
	}
	return r
}

// OtherGroupReason returns why a group is not one of this cluster; empty if it is one. The name alone does not prove it:
// group nodes.x of cluster prod.example.com and group nodes of cluster x.prod.example.com have the same name.
func (p Policy) OtherGroupReason(name string, tags map[string]string) string {
	if why := p.OtherGroupNameReason(name); why != "" {
		return why
	}
	if tags[TagCluster] != p.Cluster {
		return fmt.Sprintf("group %s does not have the tag %s=%s", name, TagCluster, p.Cluster)
	}
	return ""
}

// OtherGroupNameReason returns why a name is not that of a group of this cluster; empty if it may be one.
func (p Policy) OtherGroupNameReason(name string) string {
	if !strings.HasSuffix(name, "."+p.Cluster) {
		return fmt.Sprintf("the name of group %s does not end with .%s, as kOps' groups do", name, p.Cluster)
	}
	return ""
}

// IsKopsHook reports whether kOps has created a lifecycle hook, for aws-node-termination-handler.
func IsKopsHook(name string) bool { return strings.HasSuffix(name, "-NTHLifecycleHook") }

// hasRole reports whether kOps gave the instance or its node one of the roles.
func hasRole(t Target, roles ...string) bool {
	return slices.ContainsFunc(roles, func(role string) bool {
		return t.Instance != nil && has(t.Instance.Tags, tagRolePrefix+role) ||
			t.Node != nil && has(t.Node.Labels, labelRolePrefix+role)
	})
}

func has(m map[string]string, key string) bool {
	_, ok := m[key]
	return ok
}

// AutoscalerProviderID returns the provider ID by which CAST AI knows the node.
func AutoscalerProviderID(n Node) string {
	return cmp.Or(n.Annotations[annotationProvider], n.ProviderID)
}
