package onboard

import (
	"context"
	"maps"
	"slices"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// userRights are the policies of the user: the inline one first, then those that are attached.
func userRights(w Spec, s State, files Files) []step {
	name := iam.UserName(w.Environment.Cluster)
	var has awsadmin.User
	if s.User != nil {
		has, name = *s.User, s.User.Name
	}
	steps := []step{inline(has.Inline, name, iam.RestrictedPolicy, files, "what the user may do to what the cluster has",
		awsadmin.PutUserPolicy)}
	arn := w.Environment.PolicyARN(iam.ManagedPolicy)
	if s.Managed != nil {
		arn = s.Managed.ARN // its name may differ in case
	}
	wanted := map[string]string{arn: "what the user may create"}
	for _, policy := range iam.UserManaged {
		wanted[w.Environment.AWSPolicyARN(policy)] = "of AWS' own: the user may read"
	}
	some := attachments(has.Attached, wanted, name, awsadmin.AttachUserPolicy)
	for _, other := range has.Attached {
		if _, ok := wanted[other]; !ok {
			some = append(some, leave(kindAttached, name+"/"+arnName(other),
				"it is not ours, and gives the user more than the guide says: "+
					"aws iam detach-user-policy --user-name "+name+" --policy-arn "+other+" takes it away"))
		}
	}
	return append(steps, some...)
}

// inline is the step for an inline policy of a user or a role.
func inline(has map[string]string, of string, d iam.Document, files Files, why string,
	put func(of, policy, text string) awsadmin.Call) step {
	kind, policy, text := kindInline, d.Name, files.text(d)
	old := findFold(slices.Sorted(maps.Keys(has)), policy)
	if old == "" {
		return newStep(change.Create, kind, of+"/"+policy, why, put(of, policy, text))
	}
	return updateDocument(kind, of+"/"+old, why, has[old], text, put(of, old, text))
}

// attachments are the steps for the managed policies that a user or a role is to have.
func attachments(has []string, wanted map[string]string, of string, attach func(of, arn string) awsadmin.Call) (steps []step) {
	for _, arn := range slices.Sorted(maps.Keys(wanted)) {
		name, why := of+"/"+arnName(arn), wanted[arn]
		if slices.Contains(has, arn) {
			steps = append(steps, keep(kindAttached, name, why))
		} else {
			steps = append(steps, newStep(change.Attach, kindAttached, name, why, attach(of, arn)))
		}
	}
	return steps
}

// roleRights are the policies of the function's role.
func roleRights(w Spec, s State, files Files, token *tokenSync) []step {
	var has awsadmin.Role
	if s.Role != nil {
		has = *s.Role
	}
	handler := inline(has.Inline, s.RoleName, iam.HandlerPolicy, files, "what the function's code calls",
		awsadmin.PutRolePolicy)
	if token != nil && s.TokenSecret == nil {
		handler.Why += "; it reads the secret " + TokenSecret(w.Environment.Cluster) + ", the end of whose ARN AWS makes up"
		handler.Write = func(ctx context.Context, r *Onboarding) error {
			return putHandlerPolicy(ctx, r, s, arnName(handler.Name))
		}
	}
	steps := []step{handler, inline(has.Inline, s.RoleName, iam.RuntimePolicy, files, "what Lambda does for the function",
		awsadmin.PutRolePolicy)}
	steps = append(steps, networkRights(w, s, has, files)...)
	guide := map[string]string{}
	for _, policy := range iam.GuideRoleManaged {
		guide[w.Environment.AWSPolicyARN(policy)] = "of AWS' own, as the guide says; it is not scoped to the cluster"
	}
	if w.Permissions == Guide {
		return append(steps, attachments(has.Attached, guide, s.RoleName, awsadmin.AttachRolePolicy)...)
	}
	for _, arn := range slices.Sorted(slices.Values(has.Attached)) {
		if _, ok := guide[arn]; ok {
			steps = append(steps, newStep(change.Detach, kindAttached, s.RoleName+"/"+arnName(arn),
				"it is not scoped to the cluster; --permissions guide keeps it",
				awsadmin.DetachRolePolicy(s.RoleName, arn)))
		}
	}
	return steps
}

// networkRights are what Lambda needs for a function in the VPC. Without subnets they stay as they are: a function that is in
// the VPC would lose its interfaces' keeper.
func networkRights(w Spec, s State, has awsadmin.Role, files Files) []step {
	if len(w.Subnets) > 0 {
		return []step{inline(has.Inline, s.RoleName, iam.NetworkPolicy, files,
			"the network interfaces that Lambda makes for a function in the VPC", awsadmin.PutRolePolicy)}
	}
	old := findFold(slices.Sorted(maps.Keys(has.Inline)), iam.NetworkPolicy.Name)
	if old == "" {
		return nil
	}
	return []step{leave(kindInline, s.RoleName+"/"+old,
		"no subnets were named this time; if the function is in the VPC no more: "+
			"aws iam delete-role-policy --role-name "+s.RoleName+" --policy-name "+old+" takes it away")}
}
