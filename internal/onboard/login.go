package onboard

import (
	"context"

	"github.com/castai/kops-spot/iam"
	"github.com/castai/kops-spot/internal/iamcloud"
)

// logIn is the token with which the function logs in where IAM is not known in the cluster, on its way from the cluster into
// Secrets Manager.
type logIn struct {
	plan  MappingPlan
	label string // of the token that the cluster has; empty if it has none yet
}

// LogInSecret is the name of the secret with that token.
func LogInSecret(cluster string) string { return iam.SecretName(cluster, secretLogIn) }

// tokenLabel is what the secret's version with the token is called. Kubernetes never uses a UID again.
func tokenLabel(uid string) string {
	if uid == "" {
		return ""
	}
	return "token-" + uid
}

func (l *logIn) steps(w Want, s State) []step {
	name, why := LogInSecret(w.Ground.Cluster), "the token with which the function logs in, and the cluster's certificates"
	switch {
	case l == nil && s.LogInSecret == nil:
		return nil
	case l == nil:
		return []step{leave(kindSecret, name, "the function may still log in with it; once it logs in with IAM, delete it")}
	case s.LogInSecret == nil:
		one := create(kindSecret, name, why)
		made := iamcloud.CreateSecret(name, "Log-in of the function that handles the Spot interruptions of "+w.Ground.Cluster, iam.Tags(w.Ground.Cluster))
		one.part = func(ctx context.Context, r *Run) error {
			if err := r.AWS.Do(ctx, made); err != nil {
				return err
			}
			return l.store(ctx, r, name)
		}
		return []step{one}
	case l.label != "" && s.LogInSecret.Label == l.label:
		return []step{keep(kindSecret, name, why)}
	}
	one := update(kindSecret, name, why)
	one.part = func(ctx context.Context, r *Run) error { return l.store(ctx, r, name) }
	return []step{one}
}

// store puts the cluster's token into the secret.
func (l *logIn) store(ctx context.Context, r *Run, name string) error {
	token, err := l.plan.Apply(ctx, r.Cluster) // once more: what is as it should be is not written
	if err != nil {
		return err
	}
	o, err := r.Cluster.Get(ctx, tokenRef)
	if err != nil {
		return err
	}
	return r.AWS.Store(ctx, name, token.Secret(), tokenLabel(o.Text("metadata", "uid")))
}

// readBy is the step for the function's own policy, which has to name a secret that is not made yet: its whole ARN is known
// only then.
func (l *logIn) readBy(w Want, s State, has map[string]string) (step, error) {
	name := LogInSecret(w.Ground.Cluster)
	s.LogInSecret = w.secretToMake()
	text, err := w.document(iam.HandlerPolicy, s)
	if err != nil {
		return step{}, err
	}
	one := inline(has, s.RoleName, iam.HandlerPolicy.Name, text, "what the function's code calls; it reads the secret "+name+", the end of whose ARN AWS makes up",
		iamcloud.PutRolePolicy)
	one.late = func(ctx context.Context, aws *iamcloud.Account) ([]iamcloud.Call, error) {
		var err error
		if s.LogInSecret, err = aws.Secret(ctx, name); err != nil {
			return nil, err
		}
		text, err := w.document(iam.HandlerPolicy, s)
		if err != nil {
			return nil, err
		}
		return []iamcloud.Call{iamcloud.PutRolePolicy(s.RoleName, last(one.Name), text)}, nil
	}
	return one, nil
}
