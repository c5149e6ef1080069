package onboard

import (
	"context"
	"maps"
	"slices"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// PlanRemoval says what offboarding would take away: what onboarding has made for the cluster, and nothing else.
func (r *Onboarding) PlanRemoval(ctx context.Context) (Plan, error) {
	s, err := Inspect(ctx, r.AWS, r.Spec.Environment.Cluster)
	if err != nil {
		return Plan{}, err
	}
	functions, err := r.AWS.Functions(ctx)
	if err != nil {
		return Plan{}, err
	}
	var inCluster []step
	if r.Cluster != nil {
		plan, err := r.mapping(s).PlanRemoval(ctx, r.Cluster)
		if err != nil {
			return Plan{}, err
		}
		inCluster = clusterSteps(plan)
	}
	return r.planned(s, decideRemoval(r.Spec, s, functions, inCluster), nil), nil
}

// decideRemoval takes away the ways in first: the keys, and what the cluster knows. Then what the user and the role may do,
// these two, and last what all clusters share, if no other needs it.
func decideRemoval(w Spec, s State, functions []awsadmin.Function, inCluster []step) []step {
	return slices.Concat(
		removeKeys(w, s), inCluster, removeUser(w, s), removeRole(w, s, functions), removeSecrets(w, s), removeShared(s), rolesMadeByUser(s))
}

func isOurs(tags map[string]string, cluster string) bool {
	return tags[iam.TagManagedBy] == iam.ManagedBy && tags[iam.TagCluster] == cluster && tags[iam.TagStack] == ""
}

const reasonForeign = "it does not carry the tags of kops-spot for this cluster: somebody else has made it"

func removeKeys(w Spec, s State) (steps []step) {
	if s.User == nil || !isOurs(s.User.Tags, w.Environment.Cluster) {
		return nil
	}
	for _, k := range s.User.Keys {
		steps = append(steps, newStep(change.Delete, kindKey, k.ID, "of "+s.User.Name, awsadmin.DeleteKey(s.User.Name, k.ID)))
	}
	return steps
}

func removeUser(w Spec, s State) []step {
	switch {
	case s.User == nil:
		return nil
	case !isOurs(s.User.Tags, w.Environment.Cluster):
		return []step{leave(kindUser, s.User.Name, reasonForeign)}
	}
	steps := removePolicies(s.User.Name, s.User.Attached, s.User.Inline, awsadmin.DetachUserPolicy, awsadmin.DeleteUserPolicy)
	if len(s.User.Groups) > 0 {
		return append(steps, leave(kindUser, s.User.Name, "somebody has put it into "+joinAnd(s.User.Groups)+": take it out of there, and run this again"))
	}
	return append(steps, newStep(change.Delete, kindUser, s.User.Name, "as whom CAST AI worked on the cluster",
		awsadmin.DeleteUser(s.User.Name)))
}

// removePolicies takes every policy from a user or a role, since IAM deletes neither before that.
func removePolicies(of string, attached []string, inline map[string]string, detach, drop func(of, policy string) awsadmin.Call) (steps []step) {
	for _, arn := range slices.Sorted(slices.Values(attached)) {
		steps = append(steps, newStep(change.Detach, kindAttached, of+"/"+arnName(arn), "the policy itself stays", detach(of, arn)))
	}
	for _, policy := range slices.Sorted(maps.Keys(inline)) {
		steps = append(steps, newStep(change.Delete, kindInline, of+"/"+policy, "", drop(of, policy)))
	}
	return steps
}

func removeRole(w Spec, s State, functions []awsadmin.Function) []step {
	switch {
	case s.Role == nil:
		return nil
	case !isOurs(s.Role.Tags, w.Environment.Cluster):
		return []step{leave(kindRole, s.Role.Name, reasonForeign)}
	}
	return deleteRole(s.Role, functions, "as whom the function ran")
}

// deleteRole takes a role away, unless something runs with it.
func deleteRole(role *awsadmin.Role, functions []awsadmin.Function, why string, except ...string) []step {
	var running []string
	for _, f := range functions {
		if f.Role == role.Name && !slices.Contains(except, f.Name) {
			running = append(running, f.Name)
		}
	}
	switch {
	case len(running) > 0:
		return []step{leave(kindRole, role.Name, "the function "+joinAnd(running)+" runs with it: delete that, and run this again")}
	case len(role.Profiles) > 0:
		return []step{leave(kindRole, role.Name, "it is in the instance profile "+joinAnd(role.Profiles)+", which somebody else has made: take it out of there, and run this again")}
	}
	steps := removePolicies(role.Name, role.Attached, role.Inline, awsadmin.DetachRolePolicy, awsadmin.DeleteRolePolicy)
	return append(steps, newStep(change.Delete, kindRole, role.Name, why, awsadmin.DeleteRole(role.Name)))
}

func removeSecrets(w Spec, s State) (steps []step) {
	for _, secret := range []*awsadmin.Secret{s.KeySecret, s.TokenSecret} {
		switch {
		case secret == nil || secret.Deleted:
		case !isOurs(secret.Tags, w.Environment.Cluster):
			steps = append(steps, leave(kindSecret, secret.Name, reasonForeign))
		default:
			steps = append(steps, newStep(change.Delete, kindSecret, secret.Name, "what it holds is worth nothing any more",
				awsadmin.DeleteSecret(secret.Name)))
		}
	}
	return steps
}

// removeShared takes away what is one for the account, if the cluster was the last that needed it.
func removeShared(s State) (steps []step) {
	stays := false
	if p := s.Managed; p != nil {
		others := slices.Concat(s.TaggedUsers, s.UntaggedUsers)
		some, gone := removePolicy(p, slices.Concat(withPrefix("user", others), withPrefix("role", p.Roles), withPrefix("group", p.Groups)),
			"no user of any cluster has it any more")
		steps, stays = append(steps, some...), !gone
	}
	p := s.Boundary
	switch {
	case p == nil:
	case stays:
		steps = append(steps, leave(kindPolicy, p.Name, "what "+s.Managed.Name+" lets users make relies on it"))
	default:
		some, _ := removePolicy(p, slices.Concat(withPrefix("user", p.Users), withPrefix("role", p.Roles), withPrefix("group", p.Groups)),
			"nothing relies on it any more")
		steps = append(steps, some...)
	}
	return steps
}

func removePolicy(p *awsadmin.Policy, others []string, why string) (steps []step, gone bool) {
	switch {
	case len(others) > 0:
		return []step{leave(kindPolicy, p.Name, "it is also of "+joinAnd(others))}, false
	case p.Tags[iam.TagManagedBy] != iam.ManagedBy:
		return []step{leave(kindPolicy, p.Name, "it does not carry the tag of kops-spot: somebody else has made it")}, false
	}
	return deletePolicy(p, why), true
}

// deletePolicy takes a policy away, and first its versions that do not count, since IAM does not delete it before that.
func deletePolicy(p *awsadmin.Policy, why string) (steps []step) {
	for _, v := range p.Versions {
		if !v.Default {
			steps = append(steps, deleteVersion(p, v.ID, ""))
		}
	}
	return append(steps, newStep(change.Delete, kindPolicy, p.Name, why, awsadmin.DeletePolicy(p.ARN)))
}

func withPrefix(kind string, names []string) (all []string) {
	for _, n := range names {
		all = append(all, kind+" "+n)
	}
	return all
}

// rolesMadeByUser tells of what the cluster's user has made itself.
func rolesMadeByUser(s State) (steps []step) {
	for _, name := range s.RolesMadeByUser {
		steps = append(steps, leave(kindRole, name, "the cluster's user has made it for nodes, which may still run with it: delete it after them"))
	}
	return steps
}
