package onboard

import (
	"context"

	"github.com/castai/kops-spot/internal/identitymap"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/awsadmin"
	"github.com/castai/kops-spot/internal/change"
)

// tokenSync is the token with which the function logs in where IAM is not known in the cluster, on its way from the cluster into
// Secrets Manager.
type tokenSync struct {
	label string // of the token that the cluster has; empty if it has none yet
}

// TokenSecret is the name of the secret with that token.
func TokenSecret(cluster string) string { return iam.SecretName(cluster, secretToken) }

// tokenLabel is what the secret's version with the token is called. Kubernetes never uses a UID again.
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
		Why:  "with the cluster's certificates, in the secret " + name + ": the function logs in with it"},
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
		return []step{leave(kindSecret, name, "the function may still log in with it; once it logs in with IAM, delete it")}
	case s.TokenSecret == nil:
		description := "Log-in of the function that handles the Spot interruptions of " + w.Environment.Cluster
		return []step{newStep(change.Create, kindSecret, name,
			"for the token with which the function logs in; it holds nothing yet",
			awsadmin.CreateSecret(name, description, iam.Tags(w.Environment.Cluster))), store}
	case l.label != "" && s.TokenSecret.Label == l.label:
		return []step{keep(kindSecret, name, "the token with which the function logs in, and the cluster's certificates")}
	}
	return []step{store}
}

// putHandlerPolicy writes the function's own policy, which has to name a secret that was not made yet: its whole ARN is known
// only then.
func putHandlerPolicy(ctx context.Context, r *Onboarding, s State, policy string) (err error) {
	if s.TokenSecret, err = r.AWS.Secret(ctx, TokenSecret(r.Spec.Environment.Cluster)); err != nil {
		return err
	}
	text, err := r.Spec.document(iam.HandlerPolicy, s)
	if err != nil {
		return err
	}
	return r.AWS.Do(ctx, awsadmin.PutRolePolicy(s.RoleName, policy, text))
}
