package onboard

import (
	"cmp"
	"context"
	"slices"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
)

// FunctionLogin is how a function authenticates to its cluster.
type FunctionLogin struct {
	Login     string // the setting KOPS_SPOT_LOGIN
	SecretARN string // of the secret that it reads; empty for none
	Settled   bool   // the secret exists, so SecretARN is final
}

// functionMapping maps the function's role, and no other identity.
func (r *Onboarding) functionMapping(role string) identitymap.Mapping {
	v := r.Spec.Environment.Values
	v.FunctionRole = role
	id := identitymap.Identity{Kind: identitymap.Role, ARN: v.FunctionRoleARN(), Username: "kops-spot",
		Groups: []string{identitymap.HandlerGroup}}
	return identitymap.Mapping{Cluster: v.Cluster, Karpenter: r.Spec.Karpenter, Identities: []identitymap.Identity{id}}
}

// PlanAccess returns what to change so that a function with the role can authenticate to the cluster, and how it does.
// It is the part of onboarding that the function needs.
func (r *Onboarding) PlanAccess(ctx context.Context, role string) (p Plan, login FunctionLogin, err error) {
	var s State
	name := TokenSecret(r.Spec.Environment.Cluster)
	if s.TokenSecret, err = r.AWS.Secret(ctx, name); err != nil {
		return p, login, err
	}
	if err := r.Spec.checkNotDeleting(secretToken, s.TokenSecret); err != nil {
		return p, login, err
	}
	plan, err := r.functionMapping(role).Plan(ctx, r.Cluster)
	if err != nil {
		return p, login, err
	}
	steps := clusterSteps(plan)
	if !plan.NeedsToken {
		login = FunctionLogin{Login: "iam", Settled: true}
		if plan.ClusterID != "" && plan.ClusterID != r.Spec.Environment.Cluster {
			login.Login += ":" + plan.ClusterID
		}
		return newPlan(s, steps, plan.Files), login, nil
	}
	secret := cmp.Or(s.TokenSecret, r.Spec.placeholderSecret())
	login = FunctionLogin{Login: "secretsmanager:" + name, SecretARN: secret.ARN, Settled: s.TokenSecret != nil}
	token := &tokenSync{tokenLabel(plan.TokenUID())}
	return newPlan(s, append(steps, token.steps(r.Spec, s)...), plan.Files), login, nil
}

// PlanRBAC returns what to change in the cluster for a function whose authentication somebody else manages.
func (r *Onboarding) PlanRBAC(ctx context.Context) (Plan, error) {
	plan, err := identitymap.Mapping{Cluster: r.Spec.Environment.Cluster, Karpenter: r.Spec.Karpenter}.Plan(ctx, r.Cluster)
	return newPlan(State{}, clusterSteps(plan), plan.Files), err
}

// PlanAccessRemoval returns how to remove the access of a function with the role; if that is empty, with the role that
// it would have. It removes nothing from an onboarded cluster: offboarding does.
func (r *Onboarding) PlanAccessRemoval(ctx context.Context, role string) (Plan, error) {
	cluster := r.Spec.Environment.Cluster
	s, err := Inspect(ctx, r.AWS, cluster)
	if err != nil {
		return Plan{}, err
	}
	if s.User != nil && isOurs(s.User.Tags, cluster) || s.Role != nil && isOurs(s.Role.Tags, cluster) {
		onboarded := leave("cluster", cluster, "it is onboarded: kops-spot offboard removes the function's access")
		return newPlan(s, []step{onboarded}, nil), nil
	}
	plan, err := r.functionMapping(cmp.Or(role, s.RoleName)).PlanRemoval(ctx, r.Cluster)
	s.KeySecret = nil // the user's
	return newPlan(s, slices.Concat(clusterSteps(plan), removeSecrets(r.Spec, s)), nil), err
}

// placeholderSecret stands for the token's secret before it exists: AWS appends six random characters to its ARN.
func (w Spec) placeholderSecret() *awsadmin.Secret {
	g := w.Environment
	return &awsadmin.Secret{ARN: "arn:" + g.Partition + ":secretsmanager:" + g.Region + ":" + g.Account + ":secret:" +
		TokenSecret(g.Cluster) + "-AbCdEf"}
}

// FunctionRole returns the name of the cluster's function's role, and whether onboarding has created it.
func FunctionRole(ctx context.Context, aws *awsadmin.Account, cluster string) (name string, made bool, err error) {
	var s State
	if err = s.role(ctx, aws, cluster); err == nil {
		err = Spec{Environment: Environment{Values: iam.Values{Cluster: cluster}}}.checkRoleOwner(s)
	}
	return s.RoleName, s.Role != nil, err
}

// tokenSync copies the token with which the function authenticates, where IAM is not available, from the cluster to
// Secrets Manager.
type tokenSync struct {
	label string // of the cluster's token; empty if it does not exist yet
}

// TokenSecret returns the name of the token's secret.
func TokenSecret(cluster string) string { return iam.SecretName(cluster, secretToken) }

// tokenLabel is the staging label of a token. Kubernetes never reuses a UID.
func tokenLabel(uid string) string {
	if uid == "" {
		return ""
	}
	return "token-" + uid
}

func (l *tokenSync) steps(w Spec, s State) []step {
	name := TokenSecret(w.Environment.Cluster)
	store := step{Change: change.Change{Verb: change.Store, Kind: "token",
		Name: "of ServiceAccount " + identitymap.TokenOwner,
		Why:  "in the secret " + name + ", with the cluster's CA certificates: the function authenticates with it"},
		Write: func(ctx context.Context, r *Onboarding) error {
			token, uid, err := identitymap.ReadToken(ctx, r.Cluster)
			if err != nil {
				return err
			}
			return r.AWS.Store(ctx, name, token, tokenLabel(uid))
		}}
	switch {
	case l == nil && s.TokenSecret == nil:
		return nil
	case l == nil:
		return []step{leave(kindSecret, name, "the function may still use it: delete it once it authenticates with IAM")}
	case s.TokenSecret == nil:
		description := "Token of the function that handles the Spot interruptions of " + w.Environment.Cluster
		return []step{newStep(change.Create, kindSecret, name, "for the function's token; still empty",
			awsadmin.CreateSecret(name, description, iam.Tags(w.Environment.Cluster))), store}
	case l.label != "" && s.TokenSecret.Label == l.label:
		return []step{keep(kindSecret, name, "the function's token, and the cluster's CA certificates")}
	}
	return []step{store}
}
