package onboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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

// functionIdentity is the function's role in the cluster. STS omits a role's path from the ARN of a session.
func (r *Onboarding) functionIdentity(s State) identitymap.Identity {
	return identitymap.Identity{Kind: identitymap.Role, ARN: r.Spec.Environment.RoleARN(s.RoleName), Username: "kops-spot",
		Groups: []string{identitymap.HandlerGroup}}
}

// PlanAccess returns what to change so that the function can authenticate to the cluster. It is the part of onboarding
// that the function needs.
func (r *Onboarding) PlanAccess(ctx context.Context) (Plan, error) {
	var s State
	err := s.role(ctx, r, nil)
	if errors.Is(err, awsadmin.ErrDenied) && s.Settings[FunctionRole] != "" { // it is chosen, and does not change
		err = nil
	}
	if err == nil {
		err = r.Spec.checkRoleOwner(s)
	}
	if err == nil {
		s.TokenSecret, err = r.AWS.Secret(ctx, TokenSecret(r.Spec.Environment.Cluster))
	}
	if err == nil {
		err = r.Spec.checkNotDeleting(secretToken, s.TokenSecret)
	}
	if err != nil {
		return Plan{}, err
	}
	p, token, err := r.planAccess(ctx, s)
	if err != nil {
		return Plan{}, err
	}
	access := newPlan(s, append(p.steps, token.steps(r.Spec, s)...), p.Files)
	access.Login = p.Login
	return access, nil
}

// planAccess plans the access of the function and of others in the cluster. token is nil if the function needs none.
func (r *Onboarding) planAccess(ctx context.Context, s State, others ...identitymap.Identity) (p Plan, token *tokenSync,
	err error) {
	if r.Cluster == nil {
		return p, nil, nil
	}
	cluster, name := r.Spec.Environment.Cluster, TokenSecret(r.Spec.Environment.Cluster)
	m := identitymap.Mapping{Cluster: cluster, Karpenter: r.Spec.Karpenter, Identities: others}
	login := s.Settings["Login"]
	custom := login != "" && login != "iam" && !strings.HasPrefix(login, "iam:") && login != "secretsmanager:"+name
	if !custom { // otherwise somebody else manages how the function authenticates
		m.Identities = append([]identitymap.Identity{r.functionIdentity(s)}, others...)
	}
	plan, err := m.Plan(ctx, r.Cluster)
	if err != nil {
		return p, nil, err
	}
	p = Plan{Login: FunctionLogin{Login: login, Settled: true}, Files: plan.Files, steps: clusterSteps(plan)}
	switch {
	case custom:
	case plan.NeedsToken:
		secret := cmp.Or(s.TokenSecret, r.Spec.placeholderSecret())
		p.Login = FunctionLogin{Login: "secretsmanager:" + name, SecretARN: secret.ARN, Settled: s.TokenSecret != nil}
		token = &tokenSync{tokenLabel(plan.TokenUID())}
	default:
		p.Login.Login = "iam"
		if plan.ClusterID != "" && plan.ClusterID != cluster {
			p.Login.Login += ":" + plan.ClusterID
		}
	}
	return p, token, nil
}

// RoleParameter returns the value that the stack's parameter FunctionRole must have; empty if it may stay. onboards means
// that onboarding is about to create the role.
func (w Spec) RoleParameter(s State, onboards bool) string {
	given := s.Settings[FunctionRole]
	switch {
	case s.RoleOwner == "" && (onboards || s.Role != nil) && !strings.Contains(given, ":"):
		return w.Environment.RoleARN(s.RolePath + s.RoleName)
	case given == "":
		return s.RoleName
	}
	return ""
}

// FunctionRole returns the path and name of the function's role, which may not exist yet.
func (r *Onboarding) FunctionRole(ctx context.Context) (string, error) {
	var s State
	err := s.role(ctx, r, nil)
	return s.RolePath + s.RoleName, err
}

// CheckRole checks that a role of onboarding has what the settings of the function need: the stack cannot give it.
func (w Spec) CheckRole(s State, login FunctionLogin) (change.Findings, error) {
	if s.Role == nil || !isOurs(s.Role.Tags, w.Environment.Cluster) {
		return nil, nil
	}
	if s.TokenSecret = nil; login.SecretARN != "" {
		s.TokenSecret = &awsadmin.Secret{ARN: login.SecretARN}
	}
	documents := []iam.Document{iam.HandlerPolicy, iam.RuntimePolicy}
	if s.Settings["SubnetIds"] != "" {
		documents = append(documents, iam.NetworkPolicy)
	}
	var lacks []string
	has := slices.Collect(maps.Values(s.Role.Inline))
	for _, d := range documents {
		text, err := w.document(d, s)
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, awsadmin.NotAllowed(text, has)...)
	}
	if len(lacks) == 0 {
		return nil, nil
	}
	if n := len(lacks) - 3; n > 0 {
		lacks = append(lacks[:3], fmt.Sprintf("%d more", n))
	}
	return change.Findings{{Level: change.Fail, Name: "role permissions",
		Detail: "the role " + s.RoleName + ", which onboard has created, lacks " + joinAnd(lacks),
		Advice: "run kops-spot install --onboard with the same --set"}}, nil
}

// PlanAccessRemoval returns how to remove the function's access. It removes nothing of a cluster with an onboarded role:
// offboarding does. If the role was the stack's, the cluster's user must no longer pass it: another cluster may get a
// role of its name.
func (r *Onboarding) PlanAccessRemoval(ctx context.Context) (Plan, error) {
	cluster := r.Spec.Environment.Cluster
	s, err := r.inspect(ctx)
	if err != nil {
		return Plan{}, err
	}
	if s.Role != nil && isOurs(s.Role.Tags, cluster) {
		onboarded := leave("cluster", cluster, "it is onboarded: kops-spot offboard removes the function's access")
		return newPlan(s, []step{onboarded}, nil), nil
	}
	inCluster, err := r.removeAccess(ctx, true, r.functionIdentity(s))
	s.KeySecret = nil // the user's
	return newPlan(s, slices.Concat(inCluster, removeSecrets(r.Spec, s), dontPass(s, cluster)), nil), err
}

// removeAccess removes identities from the cluster, and the function's RBAC and token if the function's access ends, too.
func (r *Onboarding) removeAccess(ctx context.Context, function bool, all ...identitymap.Identity) ([]step, error) {
	if r.Cluster == nil {
		return nil, nil
	}
	m := identitymap.Mapping{Cluster: r.Spec.Environment.Cluster, Identities: all, IdentitiesOnly: !function}
	plan, err := m.PlanRemoval(ctx, r.Cluster)
	return clusterSteps(plan), err
}

// dontPass removes the permission to pass the function's role from the cluster's policy.
func dontPass(s State, cluster string) []step {
	p := s.ClusterPolicy
	if p == nil || !isOurs(p.Tags, cluster) {
		return nil
	}
	text, err := awsadmin.WithoutStatement(p.Document, "PassToFunction")
	if err != nil || awsadmin.SameDocument(text, p.Document) {
		return nil
	}
	return newVersion(p, "the user can no longer pass the role "+s.RoleName+"; onboard allows it again", text)
}

// placeholderSecret stands for the token's secret before it exists: AWS appends six random characters to its ARN.
func (w Spec) placeholderSecret() *awsadmin.Secret {
	g := w.Environment
	return &awsadmin.Secret{ARN: "arn:" + g.Partition + ":secretsmanager:" + g.Region + ":" + g.Account + ":secret:" +
		TokenSecret(g.Cluster) + "-AbCdEf"}
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
			awsadmin.CreateSecret(name, description, w.tags(iam.Tags(w.Environment.Cluster)))), store}
	case l.label != "" && s.TokenSecret.Label == l.label:
		return []step{keep(kindSecret, name, "the function's token, and the cluster's CA certificates")}
	}
	return []step{store}
}
