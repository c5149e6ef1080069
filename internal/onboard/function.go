package onboard

import (
	"cmp"
	"context"
	"slices"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/castai/kops-spot/internal/awsadmin"
)

// FunctionLogin is how a function logs in to its cluster.
type FunctionLogin struct {
	Login     string // the setting KOPS_SPOT_LOGIN
	SecretARN string // of what it reads for that; empty if nothing
	Settled   bool   // the secret is there: its ARN is the one that it has
}

// functionMapping lets the function's role into the cluster, and touches nobody else's mapping.
func (r *Onboarding) functionMapping(role string) identitymap.Mapping {
	v := r.Spec.Environment.Values
	v.FunctionRole = role
	return identitymap.Mapping{Cluster: v.Cluster, Karpenter: r.Spec.Karpenter, Identities: []identitymap.Identity{
		{Kind: identitymap.Role, ARN: v.FunctionRoleARN(), Username: "kops-spot", Groups: []string{identitymap.HandlerGroup}}}}
}

// PlanAccess says what has to be changed for a function with the role to log in to the cluster, and how it does then. It is the
// part of onboarding that the function needs.
func (r *Onboarding) PlanAccess(ctx context.Context, role string) (Plan, FunctionLogin, error) {
	var s State
	var err error
	name := TokenSecret(r.Spec.Environment.Cluster)
	if s.TokenSecret, err = r.AWS.Secret(ctx, name); err != nil {
		return Plan{}, FunctionLogin{}, err
	}
	if err := r.Spec.checkNotDeleting(secretToken, s.TokenSecret); err != nil {
		return Plan{}, FunctionLogin{}, err
	}
	plan, err := r.functionMapping(role).Plan(ctx, r.Cluster)
	if err != nil {
		return Plan{}, FunctionLogin{}, err
	}
	steps := clusterSteps(plan)
	if !plan.NeedsToken {
		how := FunctionLogin{Login: "iam", Settled: true}
		if plan.ClusterID != "" && plan.ClusterID != r.Spec.Environment.Cluster {
			how.Login += ":" + plan.ClusterID
		}
		return r.planned(s, steps, plan.Files), how, nil
	}
	how := FunctionLogin{Login: "secretsmanager:" + name, SecretARN: r.Spec.placeholderSecret().ARN, Settled: s.TokenSecret != nil}
	if how.Settled {
		how.SecretARN = s.TokenSecret.ARN
	}
	token := &tokenSync{tokenLabel(plan.TokenUID())}
	return r.planned(s, append(steps, token.steps(r.Spec, s)...), plan.Files), how, nil
}

// PlanRBAC says what has to be changed in the cluster for a function to do its work there that somebody else sees to the
// log-in of.
func (r *Onboarding) PlanRBAC(ctx context.Context) (Plan, error) {
	plan, err := identitymap.Mapping{Cluster: r.Spec.Environment.Cluster, Karpenter: r.Spec.Karpenter}.Plan(ctx, r.Cluster)
	return r.planned(State{}, clusterSteps(plan), plan.Files), err
}

// PlanAccessRemoval says what is to be taken away for the cluster to forget a function with the role; without one, with the role
// that it would have. Where onboarding has made the role, that is offboarding's to do.
func (r *Onboarding) PlanAccessRemoval(ctx context.Context, role string) (Plan, error) {
	cluster := r.Spec.Environment.Cluster
	s, err := Inspect(ctx, r.AWS, cluster)
	if err != nil {
		return Plan{}, err
	}
	if s.User != nil && isOurs(s.User.Tags, cluster) || s.Role != nil && isOurs(s.Role.Tags, cluster) {
		return r.planned(s, []step{leave("cluster", cluster, "the cluster is onboarded: kops-spot offboard takes away what it knows of the function")}, nil), nil
	}
	plan, err := r.functionMapping(cmp.Or(role, s.RoleName)).PlanRemoval(ctx, r.Cluster)
	return r.planned(s, slices.Concat(clusterSteps(plan), removeSecrets(r.Spec, State{TokenSecret: s.TokenSecret})), nil), err
}

// placeholderSecret stands for the log-in's secret before it is made: what AWS puts after its name is known only then.
func (w Spec) placeholderSecret() *awsadmin.Secret {
	g := w.Environment
	return &awsadmin.Secret{ARN: "arn:" + g.Partition + ":secretsmanager:" + g.Region + ":" + g.Account + ":secret:" +
		TokenSecret(g.Cluster) + "-AbCdEf"}
}

// FunctionRole is the role that a function of the cluster has or would have: the name, and whether onboarding has made it.
func FunctionRole(ctx context.Context, aws *awsadmin.Account, cluster string) (name string, made bool, err error) {
	var s State
	if err := s.role(ctx, aws, cluster); err != nil {
		return "", false, err
	}
	return s.RoleName, s.Role != nil, nil
}
