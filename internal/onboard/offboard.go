package onboard

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// PlanRemoval returns what offboarding would delete: what onboarding has created for the cluster, and nothing else.
func (r *Onboarding) PlanRemoval(ctx context.Context) (Plan, error) {
	s, err := r.inspect(ctx)
	if err != nil {
		return Plan{}, err
	}
	functions, err := r.AWS.Functions(ctx)
	if err != nil {
		return Plan{}, err
	}
	var made []awsadmin.Role
	for _, name := range s.RolesMadeByUser {
		switch role, err := r.AWS.Role(ctx, name); {
		case err != nil:
			return Plan{}, err
		case role != nil:
			made = append(made, *role)
		}
	}
	var inCluster []step
	if s.RoleOwner != "" { // the function keeps its access until it is uninstalled
		inCluster, err = r.removeAccess(ctx, false, r.userIdentity())
		s.TokenSecret = nil
	} else {
		inCluster, err = r.removeAccess(ctx, true, r.functionIdentity(s), r.userIdentity())
	}
	if err != nil {
		return Plan{}, err
	}
	return newPlan(s, append(decideRemoval(r.Spec, s, functions, inCluster), rolesMadeByUser(made)...), nil), nil
}

// decideRemoval removes access first: the keys and the identities in the cluster. Then the user and the role with their
// policies, and last what all clusters share, if no other needs it.
func decideRemoval(w Spec, s State, functions []awsadmin.Function, inCluster []step) (steps []step) {
	u, cluster := s.User, w.Environment.Cluster
	switch {
	case u == nil:
		steps = inCluster
	case !isOurs(u.Tags, cluster):
		steps = append(inCluster, leave(kindUser, u.Name, reasonForeign))
	default:
		for _, k := range u.Keys {
			steps = append(steps, newStep(change.Delete, kindKey, k.ID, "of "+u.Name, awsadmin.DeleteKey(u.Name, k.ID)))
		}
		rights, user := removeUser(w, s)
		steps = slices.Concat(change.Of(steps, partKeys), inCluster, change.Of(rights, partRights),
			change.Of([]step{user}, partUser, partKeys, partRights))
	}
	switch {
	case s.Role == nil:
	case s.RoleOwner != "":
		steps = append(steps, leave(kindRole, s.Role.Name, s.RoleOwner))
	case !isOurs(s.Role.Tags, cluster):
		steps = append(steps, leave(kindRole, s.Role.Name, reasonForeign))
	default: // the next plan finds the mapping by the role
		steps = append(steps, change.Of(deleteRole(s.Role, functions), partRole, partCluster)...)
	}
	return slices.Concat(steps, change.Of(removeClusterPolicy(s, cluster), "cluster policy", partRights), removeSecrets(w, s),
		change.Of(removeShared(s), "shared policies", partRights))
}

// Parts of a plan, for change.Of.
const (
	partKeys     = "access keys"
	partUser     = "user"
	partRights   = "the user's policies"
	partRole     = "role"
	partPolicies = "policies"
	partToken    = "token"
	partCluster  = "cluster"
)

// removeUser deletes a user's policies and the user. If it has what somebody else has added, IAM refuses that: then it
// stays, without our policies.
func removeUser(w Spec, s State) (rights []step, user step) {
	u := s.User
	stays := leave(kindUser, u.Name, "IAM does not delete it while it has what somebody else has added. If nobody needs that, "+
		"run this again after")
	for _, group := range u.Groups {
		stays.Diff = append(stays.Diff,
			"  "+awsCLI("iam", "remove-user-from-group", "--user-name", u.Name, "--group-name", group))
	}
	for _, c := range u.Credentials {
		stays.Diff = append(stays.Diff, "  "+awsCLI(removeCredential(u.Name, c)...))
	}
	if len(stays.Diff) == 0 {
		return removePolicies(u.Name, u.Rights, awsadmin.DetachUserPolicy, awsadmin.DeleteUserPolicy),
			newStep(change.Delete, kindUser, u.Name, "CAST AI's identity for the cluster", awsadmin.DeleteUser(u.Name))
	}
	ours, theirs := awsadmin.Rights{Inline: map[string]string{}}, []step{}
	for _, arn := range slices.Sorted(slices.Values(u.Attached)) {
		if w.attaches(s, arn) {
			ours.Attached = append(ours.Attached, arn)
		} else {
			theirs = append(theirs, leave(kindAttached, u.Name+"/"+arnName(arn), reasonAdded))
		}
	}
	for _, policy := range slices.Sorted(maps.Keys(u.Inline)) {
		if strings.EqualFold(policy, iam.RestrictedPolicy.Name) {
			ours.Inline[policy] = ""
		} else {
			theirs = append(theirs, leave(kindInline, u.Name+"/"+policy, reasonAdded))
		}
	}
	return append(removePolicies(u.Name, ours, awsadmin.DetachUserPolicy, awsadmin.DeleteUserPolicy), theirs...), stays
}

// attaches reports whether onboarding, or CAST AI's original script, attaches a policy to the user.
func (w Spec) attaches(s State, arn string) bool {
	for _, p := range []*awsadmin.Policy{s.Managed, s.ClusterPolicy} {
		if p != nil && p.ARN == arn {
			return true
		}
	}
	return slices.ContainsFunc(slices.Concat(iam.UserManaged, iam.OriginalUserManaged),
		func(name string) bool { return w.Environment.AWSPolicyARN(name) == arn })
}

// removeCredential is the command of the AWS CLI that removes a credential of a user.
func removeCredential(user string, c awsadmin.Credential) []string {
	return slices.Concat([]string{"iam", c.Remove[0], "--user-name", user}, c.Remove[1:])
}

// rolesMadeByUser are the rows of roles that the cluster's user has created, with the commands that delete them.
func rolesMadeByUser(roles []awsadmin.Role) (steps []step) {
	for _, r := range roles {
		one := review(kindRole, r.Name)
		one.Why = "the cluster's user has created it, and whoever its trust policy names can still use it: " +
			"once no node needs it, delete it with"
		add := func(words ...string) { one.Diff = append(one.Diff, "  "+awsCLI(append([]string{"iam"}, words...)...)) }
		for _, profile := range r.Profiles {
			add("remove-role-from-instance-profile", "--instance-profile-name", profile, "--role-name", r.Name)
			add("delete-instance-profile", "--instance-profile-name", profile)
		}
		for _, arn := range r.Attached {
			add("detach-role-policy", "--role-name", r.Name, "--policy-arn", arn)
		}
		for _, policy := range slices.Sorted(maps.Keys(r.Inline)) {
			add("delete-role-policy", "--role-name", r.Name, "--policy-name", policy)
		}
		add("delete-role", "--role-name", r.Name)
		steps = append(steps, one)
	}
	return steps
}

func isOurs(tags map[string]string, cluster string) bool {
	return tags[iam.TagManagedBy] == iam.ManagedBy && tags[iam.TagCluster] == cluster && tags[iam.TagStack] == ""
}

const reasonAdded = "somebody else has added it"

const reasonForeign = "it lacks the tags of kops-spot for this cluster, so somebody else has created it"

// removePolicies removes all policies of a user or a role: IAM requires that before it deletes either.
func removePolicies(of string, has awsadmin.Rights, detach, drop func(of, policy string) awsadmin.Call) (steps []step) {
	for _, arn := range slices.Sorted(slices.Values(has.Attached)) {
		name := of + "/" + arnName(arn)
		steps = append(steps, newStep(change.Detach, kindAttached, name, "the policy itself stays", detach(of, arn)))
	}
	for _, policy := range slices.Sorted(maps.Keys(has.Inline)) {
		steps = append(steps, newStep(change.Delete, kindInline, of+"/"+policy, "", drop(of, policy)))
	}
	return steps
}

// deleteRole deletes a role, unless a function runs with it.
func deleteRole(role *awsadmin.Role, functions []awsadmin.Function, except ...string) []step {
	var running []string
	for _, f := range functions {
		if f.Role == role.Name && !slices.Contains(except, f.Name) {
			running = append(running, f.Name)
		}
	}
	switch {
	case len(running) > 0:
		return []step{leave(kindRole, role.Name,
			"function "+joinAnd(running)+" runs with it: delete that, and run this again")}
	case len(role.Profiles) > 0:
		return []step{leave(kindRole, role.Name, "it is in instance profile "+joinAnd(role.Profiles)+
			", which is not ours: remove it from there, and run this again")}
	}
	steps := removePolicies(role.Name, role.Rights, awsadmin.DetachRolePolicy, awsadmin.DeleteRolePolicy)
	return append(steps, newStep(change.Delete, kindRole, role.Name, "the function's identity",
		awsadmin.DeleteRole(role.Name)))
}

func removeSecrets(w Spec, s State) (steps []step) {
	for _, secret := range []*awsadmin.Secret{s.KeySecret, s.TokenSecret} {
		switch {
		case secret == nil || secret.Deleted:
		case !isOurs(secret.Tags, w.Environment.Cluster):
			steps = append(steps, leave(kindSecret, secret.Name, reasonForeign))
		default:
			steps = append(steps, change.Of([]step{newStep(change.Delete, kindSecret, secret.Name, "no longer needed",
				awsadmin.DeleteSecret(secret.Name))}, kindSecret+" "+secret.Name)...)
		}
	}
	return steps
}

// removeClusterPolicy deletes the cluster's own policy, unless somebody else has attached it too.
func removeClusterPolicy(s State, cluster string) []step {
	if s.ClusterPolicy == nil {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(s.ClusterPolicy.Users), func(user string) bool {
		return s.User != nil && user == s.User.Name && isOurs(s.User.Tags, cluster)
	})
	steps, _ := removePolicy(s.ClusterPolicy, others, "nothing uses it")
	return steps
}

// removeShared deletes what all clusters of the account share, if no other cluster needs it.
func removeShared(s State) []step {
	steps, gone := removePolicy(s.Managed, slices.Concat(s.TaggedUsers, s.UntaggedUsers, s.UnreadableUsers), "no cluster's user has it")
	switch p := s.Boundary; {
	case p != nil && gone:
		some, _ := removePolicy(p, p.Users, "nothing uses it")
		steps = append(steps, some...)
	case p != nil:
		steps = append(steps, leave(kindPolicy, p.Name, s.Managed.Name+" requires it"))
	}
	return steps
}

func removePolicy(p *awsadmin.Policy, users []string, why string) (steps []step, gone bool) {
	switch {
	case p == nil:
		return nil, true
	case holders(p, users) != "":
		return []step{leave(kindPolicy, p.Name, "it is still used by "+holders(p, users))}, false
	case p.Tags[iam.TagManagedBy] != iam.ManagedBy:
		return []step{leave(kindPolicy, p.Name, "it lacks the tag of kops-spot, so somebody else has created it")}, false
	}
	return deletePolicy(p, why), true
}

// deletePolicy deletes a policy, after its other versions as IAM requires.
func deletePolicy(p *awsadmin.Policy, why string) (steps []step) {
	for _, v := range p.Versions {
		if !v.Default {
			steps = append(steps, deleteVersion(p, v.ID, ""))
		}
	}
	return append(steps, newStep(change.Delete, kindPolicy, p.Name, why, awsadmin.DeletePolicy(p.ARN)))
}

// holders names the users of a policy, and its roles and groups; empty for none.
func holders(p *awsadmin.Policy, users []string) string {
	var all []string
	for i, names := range [][]string{users, p.Roles, p.Groups} {
		for _, n := range names {
			all = append(all, []string{"user ", "role ", "group "}[i]+n)
		}
	}
	return joinAnd(all)
}

// original is CAST AI's function that kops-spot replaces, with its resources. It handles all clusters of a region.
type original struct {
	function *awsadmin.Function
	rules    []awsadmin.Rule
	role     *awsadmin.Role
	policy   *awsadmin.Policy
}

// Original reads the function that kops-spot replaces; nil if there is none.
func Original(ctx context.Context, aws *awsadmin.Account) (*awsadmin.Function, error) {
	return aws.Function(ctx, originalFunction)
}

// PlanOriginal returns what to delete of the original.
func (r *Onboarding) PlanOriginal(ctx context.Context) (Plan, error) {
	s, err := r.inspect(ctx)
	if err != nil {
		return Plan{}, err
	}
	o := original{policy: s.Managed}
	if o.function, err = Original(ctx, r.AWS); err != nil || o.function == nil {
		return newPlan(s, o.steps(nil), nil), err
	}
	if o.rules, err = r.AWS.RulesFor(ctx, *o.function); err != nil {
		return Plan{}, err
	}
	if o.role, err = r.AWS.Role(ctx, o.function.Role); err != nil {
		return Plan{}, err
	}
	functions, err := r.AWS.Functions(ctx)
	return newPlan(s, o.steps(functions), nil), err
}

// steps deletes the rules first, so that no invocation fails, and then the function last, by which a new plan after an
// interruption finds the rest.
func (o original) steps(functions []awsadmin.Function) (steps []step) {
	if o.function != nil {
		var rules []string
		for _, rule := range o.rules {
			rules = append(rules, kindRule+" "+rule.Name)
			steps = append(steps, change.Of(o.removeRule(rule), kindRule+" "+rule.Name)...)
		}
		function := append(o.removeRole(functions), newStep(change.Delete, kindFunction, o.function.Name,
			"kops-spot replaces it; it handles all clusters of the region", awsadmin.DeleteFunction(o.function.Name)))
		steps = append(steps, change.Of(function, "function", rules...)...)
	}
	if p := o.policy; p != nil && p.Tags[iam.TagManagedBy] != iam.ManagedBy {
		if used := holders(p, p.Users); used != "" {
			return append(steps, leave(kindPolicy, p.Name, "it is used by "+used+": onboard takes it over"))
		}
		steps = append(steps, change.Of(deletePolicy(p, "nothing uses it"), "policy")...)
	}
	return steps
}

// removeRule removes the function from a rule, and deletes the rule if it has no other target.
func (o original) removeRule(rule awsadmin.Rule) []step {
	var ids, others []string
	for _, t := range rule.Targets {
		if t.ARN == o.function.ARN || strings.HasPrefix(t.ARN, o.function.ARN+":") { // or one of its versions
			ids = append(ids, t.ID)
		} else {
			others = append(others, t.ARN)
		}
	}
	update := newStep(change.Update, kindRule, rule.Name, "the function is removed from its targets",
		awsadmin.RemoveTargets(rule.Name, ids))
	remove := newStep(change.Delete, kindRule, rule.Name, "the function was its only target", awsadmin.DeleteRule(rule.Name))
	switch {
	case len(ids) == 0 && len(others) == 0: // an interrupted run has removed the function
		return []step{remove}
	case len(ids) == 0:
		return nil
	case len(others) > 0:
		update.Why += "; " + joinAnd(others) + " stays"
		return []step{update}
	}
	return []step{update, remove}
}

func (o original) removeRole(functions []awsadmin.Function) []step {
	switch {
	case o.role == nil:
		return nil
	case o.role.Tags[iam.TagManagedBy] == iam.ManagedBy:
		return []step{leave(kindRole, o.role.Name, "it belongs to kops-spot: offboard deletes it")}
	case !strings.EqualFold(o.role.Name, iam.FunctionRole):
		return []step{leave(kindRole, o.role.Name, "the function runs with it, but it is not named "+iam.FunctionRole+
			": delete it if nobody needs it")}
	}
	return deleteRole(o.role, functions, o.function.Name)
}
