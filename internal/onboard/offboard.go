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
func (r *Run) PlanRemoval(ctx context.Context) (Planned, error) {
	s, err := Inspect(ctx, r.AWS, r.Want.Ground.Cluster)
	if err != nil {
		return Planned{}, err
	}
	functions, err := r.AWS.Functions(ctx)
	if err != nil {
		return Planned{}, err
	}
	var inCluster []step
	if r.Cluster != nil {
		plan, err := r.mapping(s).PlanRemoval(ctx, r.Cluster)
		if err != nil {
			return Planned{}, err
		}
		inCluster = clusterSteps(plan)
	}
	return r.planned(s, decideRemoval(r.Want, s, functions, inCluster), nil), nil
}

// decideRemoval takes away the ways in first: the keys, and what the cluster knows. Then what the user and the role may do,
// these two, and last what all clusters share, if no other needs it.
func decideRemoval(w Want, s State, functions []awsadmin.Function, inCluster []step) []step {
	return slices.Concat(
		keysAway(w, s), inCluster, userAway(w, s), roleAway(w, s, functions), secretsAway(w, s), sharedAway(s), madeByUser(s))
}

func isOurs(tags map[string]string, cluster string) bool {
	return tags[iam.TagManagedBy] == iam.ManagedBy && tags[iam.TagCluster] == cluster && tags[iam.TagStack] == ""
}

const notMade = "it does not carry the tags of kops-spot for this cluster: somebody else has made it"

func keysAway(w Want, s State) (steps []step) {
	if s.User == nil || !isOurs(s.User.Tags, w.Ground.Cluster) {
		return nil
	}
	for _, k := range s.User.Keys {
		steps = append(steps, act(change.Delete, kindKey, k.ID, "of "+s.User.Name, awsadmin.DeleteKey(s.User.Name, k.ID)))
	}
	return steps
}

func userAway(w Want, s State) []step {
	switch {
	case s.User == nil:
		return nil
	case !isOurs(s.User.Tags, w.Ground.Cluster):
		return []step{leave(kindUser, s.User.Name, notMade)}
	}
	steps := rightsAway(s.User.Name, s.User.Attached, s.User.Inline, awsadmin.DetachUserPolicy, awsadmin.DeleteUserPolicy)
	if len(s.User.Groups) > 0 {
		return append(steps, leave(kindUser, s.User.Name, "somebody has put it into "+listed(s.User.Groups)+": take it out of there, and run this again"))
	}
	return append(steps, act(change.Delete, kindUser, s.User.Name, "as whom CAST AI worked on the cluster",
		awsadmin.DeleteUser(s.User.Name)))
}

// rightsAway takes every policy from a user or a role, since IAM deletes neither before that.
func rightsAway(of string, attached []string, inline map[string]string, detach, drop func(of, policy string) awsadmin.Call) (steps []step) {
	for _, arn := range slices.Sorted(slices.Values(attached)) {
		steps = append(steps, act(change.Detach, kindAttached, of+"/"+last(arn), "the policy itself stays", detach(of, arn)))
	}
	for _, policy := range slices.Sorted(maps.Keys(inline)) {
		steps = append(steps, act(change.Delete, kindInline, of+"/"+policy, "", drop(of, policy)))
	}
	return steps
}

func roleAway(w Want, s State, functions []awsadmin.Function) []step {
	switch {
	case s.Role == nil:
		return nil
	case !isOurs(s.Role.Tags, w.Ground.Cluster):
		return []step{leave(kindRole, s.Role.Name, notMade)}
	}
	return dropRole(s.Role, functions, "as whom the function ran")
}

// dropRole takes a role away, unless something runs with it.
func dropRole(role *awsadmin.Role, functions []awsadmin.Function, why string, except ...string) []step {
	var running []string
	for _, f := range functions {
		if f.Role == role.Name && !slices.Contains(except, f.Name) {
			running = append(running, f.Name)
		}
	}
	switch {
	case len(running) > 0:
		return []step{leave(kindRole, role.Name, "the function "+listed(running)+" runs with it: delete that, and run this again")}
	case len(role.Profiles) > 0:
		return []step{leave(kindRole, role.Name, "it is in the instance profile "+listed(role.Profiles)+", which somebody else has made: take it out of there, and run this again")}
	}
	steps := rightsAway(role.Name, role.Attached, role.Inline, awsadmin.DetachRolePolicy, awsadmin.DeleteRolePolicy)
	return append(steps, act(change.Delete, kindRole, role.Name, why, awsadmin.DeleteRole(role.Name)))
}

func secretsAway(w Want, s State) (steps []step) {
	for _, secret := range []*awsadmin.Secret{s.KeySecret, s.LogInSecret} {
		switch {
		case secret == nil || secret.Deleted:
		case !isOurs(secret.Tags, w.Ground.Cluster):
			steps = append(steps, leave(kindSecret, secret.Name, notMade))
		default:
			steps = append(steps, act(change.Delete, kindSecret, secret.Name, "what it holds is worth nothing any more",
				awsadmin.DeleteSecret(secret.Name)))
		}
	}
	return steps
}

// sharedAway takes away what is one for the account, if the cluster was the last that needed it.
func sharedAway(s State) (steps []step) {
	stays := false
	if p := s.Managed; p != nil {
		others := slices.Concat(s.Others, s.Strangers)
		some, gone := policyAway(p, slices.Concat(named("user", others), named("role", p.Roles), named("group", p.Groups)),
			"no user of any cluster has it any more")
		steps, stays = append(steps, some...), !gone
	}
	p := s.Boundary
	switch {
	case p == nil:
	case stays:
		steps = append(steps, leave(kindPolicy, p.Name, "what "+s.Managed.Name+" lets users make relies on it"))
	default:
		some, _ := policyAway(p, slices.Concat(named("user", p.Users), named("role", p.Roles), named("group", p.Groups)),
			"nothing relies on it any more")
		steps = append(steps, some...)
	}
	return steps
}

func policyAway(p *awsadmin.Policy, others []string, why string) (steps []step, gone bool) {
	switch {
	case len(others) > 0:
		return []step{leave(kindPolicy, p.Name, "it is also of "+listed(others))}, false
	case p.Tags[iam.TagManagedBy] != iam.ManagedBy:
		return []step{leave(kindPolicy, p.Name, "it does not carry the tag of kops-spot: somebody else has made it")}, false
	}
	return dropPolicy(p, why), true
}

// dropPolicy takes a policy away, and first its versions that do not count, since IAM does not delete it before that.
func dropPolicy(p *awsadmin.Policy, why string) (steps []step) {
	for _, v := range p.Versions {
		if !v.Default {
			steps = append(steps, versionAway(p, v.ID, ""))
		}
	}
	return append(steps, act(change.Delete, kindPolicy, p.Name, why, awsadmin.DeletePolicy(p.ARN)))
}

func named(kind string, names []string) (all []string) {
	for _, n := range names {
		all = append(all, kind+" "+n)
	}
	return all
}

// madeByUser tells of what the cluster's user has made itself.
func madeByUser(s State) (steps []step) {
	for _, name := range s.Made {
		steps = append(steps, leave(kindRole, name, "the cluster's user has made it for nodes, which may still run with it: delete it after them"))
	}
	return steps
}
