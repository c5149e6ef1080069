package onboard

import (
	"maps"
	"slices"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// userRights are the policies of the user: the inline one first, then those that are attached.
func userRights(w Want, s State) ([]step, error) {
	text, err := w.document(iam.RestrictedPolicy, s)
	if err != nil {
		return nil, err
	}
	name := iam.UserName(w.Ground.Cluster)
	var has iamcloud.User
	if s.User != nil {
		has, name = *s.User, s.User.Name
	}
	steps := []step{inline(has.Inline, name, iam.RestrictedPolicy.Name, text, "what the user may do to what the cluster has", iamcloud.PutUserPolicy)}
	arn := w.Ground.PolicyARN(iam.ManagedPolicy)
	if s.Managed != nil {
		arn = s.Managed.ARN // its name may differ in case
	}
	wanted := map[string]string{arn: "what the user may create"}
	for _, policy := range iam.UserManaged {
		wanted[w.Ground.AWSPolicyARN(policy)] = "of AWS' own: the user may read"
	}
	some := attachments(has.Attached, wanted, name, iamcloud.AttachUserPolicy)
	for _, other := range has.Attached {
		if _, ok := wanted[other]; !ok {
			some = append(some, leave(kindAttached, name+"/"+last(other), "it is not ours, and gives the user more than the guide says: "+
				"aws iam detach-user-policy --user-name "+name+" --policy-arn "+other+" takes it away"))
		}
	}
	return append(steps, some...), nil
}

// inline is the step for an inline policy of a user or a role.
func inline(has map[string]string, of, policy, text, why string, put func(of, policy, text string) iamcloud.Call) step {
	kind := kindInline
	old := written(slices.Sorted(maps.Keys(has)), policy)
	switch {
	case old == "":
		return act(change.Create, kind, of+"/"+policy, why, put(of, policy, text))
	case sameDocument(has[old], text):
		return keep(kind, of+"/"+old, why)
	}
	one := act(change.Update, kind, of+"/"+old, why, put(of, old, text))
	one.Diff = diffDocuments(has[old], text)
	return one
}

// attachments are the steps for the managed policies that a user or a role is to have.
func attachments(has []string, wanted map[string]string, of string, attach func(of, arn string) iamcloud.Call) (steps []step) {
	for _, arn := range slices.Sorted(maps.Keys(wanted)) {
		name, why := of+"/"+last(arn), wanted[arn]
		if slices.Contains(has, arn) {
			steps = append(steps, keep(kindAttached, name, why))
		} else {
			steps = append(steps, act(change.Attach, kindAttached, name, why, attach(of, arn)))
		}
	}
	return steps
}

// roleRights are the policies of the function's role.
func roleRights(w Want, s State, l *logIn) ([]step, error) {
	var has iamcloud.Role
	if s.Role != nil {
		has = *s.Role
	}
	text, err := w.document(iam.HandlerPolicy, s)
	if err != nil {
		return nil, err
	}
	one := inline(has.Inline, s.RoleName, iam.HandlerPolicy.Name, text, "what the function's code calls", iamcloud.PutRolePolicy)
	if l != nil && s.LogInSecret == nil {
		if one, err = l.readBy(w, s, has.Inline); err != nil {
			return nil, err
		}
	}
	steps := []step{one}
	if text, err = w.document(iam.RuntimePolicy, s); err != nil {
		return nil, err
	}
	steps = append(steps, inline(has.Inline, s.RoleName, iam.RuntimePolicy.Name, text, "what Lambda does for the function", iamcloud.PutRolePolicy))
	network, err := networkRights(w, s, has)
	if err != nil {
		return nil, err
	}
	steps = append(steps, network...)
	guide := map[string]string{}
	for _, policy := range iam.GuideRoleManaged {
		guide[w.Ground.AWSPolicyARN(policy)] = "of AWS' own, as the guide says; it is not scoped to the cluster"
	}
	if w.Permissions == Guide {
		return append(steps, attachments(has.Attached, guide, s.RoleName, iamcloud.AttachRolePolicy)...), nil
	}
	for _, arn := range slices.Sorted(slices.Values(has.Attached)) {
		if _, ok := guide[arn]; ok {
			steps = append(steps, act(change.Detach, kindAttached, s.RoleName+"/"+last(arn), "it is not scoped to the cluster; --permissions guide keeps it",
				iamcloud.DetachRolePolicy(s.RoleName, arn)))
		}
	}
	return steps, nil
}

// networkRights are what Lambda needs for a function in the VPC. Without subnets they stay as they are: a function that is in
// the VPC would lose its interfaces' keeper.
func networkRights(w Want, s State, has iamcloud.Role) ([]step, error) {
	name := iam.NetworkPolicy.Name
	if len(w.Subnets) == 0 {
		if old := written(slices.Sorted(maps.Keys(has.Inline)), name); old != "" {
			return []step{leave(kindInline, s.RoleName+"/"+old, "no subnets were named this time; if the function is in the VPC no more: "+
				"aws iam delete-role-policy --role-name "+s.RoleName+" --policy-name "+old+" takes it away")}, nil
		}
		return nil, nil
	}
	text, err := w.document(iam.NetworkPolicy, s)
	if err != nil {
		return nil, err
	}
	return []step{inline(has.Inline, s.RoleName, name, text, "the network interfaces that Lambda makes for a function in the VPC", iamcloud.PutRolePolicy)}, nil
}
