package onboard

import (
	"cmp"
	"context"
	"slices"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/castai/kops-spot/internal/awsadmin"
)

// FunctionLogIn is how a function logs in to its cluster.
type FunctionLogIn struct {
	Login     string // the setting KOPS_SPOT_LOGIN
	SecretARN string // of what it reads for that; empty if nothing
	Settled   bool   // the secret is there: its ARN is the one that it has
}

// functionMapping lets the function's role into the cluster, and touches nobody else's mapping.
func (r *Run) functionMapping(role string) identitymap.Mapping {
	v := r.Want.Ground.Values
	v.FunctionRole = role
	return identitymap.Mapping{Cluster: v.Cluster, Karpenter: r.Want.Karpenter, Identities: []identitymap.Identity{
		{Kind: identitymap.Role, ARN: v.FunctionRoleARN(), Username: "kops-spot", Groups: []string{identitymap.HandlerGroup}}}}
}

// PlanLogIn says what has to be changed for a function with the role to log in to the cluster, and how it does then. It is the
// part of onboarding that the function needs.
func (r *Run) PlanLogIn(ctx context.Context, role string) (Planned, FunctionLogIn, error) {
	var s State
	var err error
	name := LogInSecret(r.Want.Ground.Cluster)
	if s.LogInSecret, err = r.AWS.Secret(ctx, name); err != nil {
		return Planned{}, FunctionLogIn{}, err
	}
	if err := r.Want.goingAway(secretLogIn, s.LogInSecret); err != nil {
		return Planned{}, FunctionLogIn{}, err
	}
	plan, err := r.functionMapping(role).Plan(ctx, r.Cluster)
	if err != nil {
		return Planned{}, FunctionLogIn{}, err
	}
	steps := clusterSteps(plan)
	if !plan.NeedsToken {
		how := FunctionLogIn{Login: "iam", Settled: true}
		if plan.ClusterID != "" && plan.ClusterID != r.Want.Ground.Cluster {
			how.Login += ":" + plan.ClusterID
		}
		return r.planned(s, steps, plan.Files), how, nil
	}
	how := FunctionLogIn{Login: "secretsmanager:" + name, SecretARN: r.Want.secretToMake().ARN, Settled: s.LogInSecret != nil}
	if how.Settled {
		how.SecretARN = s.LogInSecret.ARN
	}
	token := &logIn{tokenLabel(plan.TokenUID())}
	return r.planned(s, append(steps, token.steps(r.Want, s)...), plan.Files), how, nil
}

// PlanRights says what has to be changed in the cluster for a function to do its work there that somebody else sees to the
// log-in of.
func (r *Run) PlanRights(ctx context.Context) (Planned, error) {
	plan, err := identitymap.Mapping{Cluster: r.Want.Ground.Cluster, Karpenter: r.Want.Karpenter}.Plan(ctx, r.Cluster)
	return r.planned(State{}, clusterSteps(plan), plan.Files), err
}

// PlanLogInRemoval says what is to be taken away for the cluster to forget a function with the role; without one, with the role
// that it would have. Where onboarding has made the role, that is offboarding's to do.
func (r *Run) PlanLogInRemoval(ctx context.Context, role string) (Planned, error) {
	cluster := r.Want.Ground.Cluster
	s, err := Inspect(ctx, r.AWS, cluster)
	if err != nil {
		return Planned{}, err
	}
	if s.User != nil && isOurs(s.User.Tags, cluster) || s.Role != nil && isOurs(s.Role.Tags, cluster) {
		return r.planned(s, []step{leave("cluster", cluster, "the cluster is onboarded: kops-spot offboard takes away what it knows of the function")}, nil), nil
	}
	plan, err := r.functionMapping(cmp.Or(role, s.RoleName)).PlanRemoval(ctx, r.Cluster)
	return r.planned(s, slices.Concat(clusterSteps(plan), secretsAway(r.Want, State{LogInSecret: s.LogInSecret})), nil), err
}

// secretToMake stands for the log-in's secret before it is made: what AWS puts after its name is known only then.
func (w Want) secretToMake() *awsadmin.Secret {
	g := w.Ground
	return &awsadmin.Secret{ARN: "arn:" + g.Partition + ":secretsmanager:" + g.Region + ":" + g.Account + ":secret:" +
		LogInSecret(g.Cluster) + "-AbCdEf"}
}

// FunctionRole is the role that a function of the cluster has or would have: the name, and whether onboarding has made it.
func FunctionRole(ctx context.Context, aws *awsadmin.Account, cluster string) (name string, made bool, err error) {
	var s State
	if err := s.role(ctx, aws, cluster); err != nil {
		return "", false, err
	}
	return s.RoleName, s.Role != nil, nil
}
