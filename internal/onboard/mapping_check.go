package onboard

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

const (
	// logInLimit is how long a mapping may take until it is known: the authenticator takes one up within seconds.
	logInLimit = 30 * time.Second
	logInPoll  = 1100 * time.Millisecond // tokens of one second are the same, and the API server remembers them
)

// LogIn makes a log-in to the cluster as an identity, each time with a token of its own.
type LogIn func() (*rest.Config, error)

// Check says whether the identities are let in, and to what: by logging in where it is said how, by ARN, and else by what
// stands in the cluster.
func (m Mapping) Check(ctx context.Context, cluster *kubeadmin.Client, logIns map[string]LogIn) (change.Findings, error) {
	s, err := m.Inspect(ctx, cluster)
	if err != nil {
		return nil, err
	}
	p, err := m.Plan(s)
	if err != nil {
		return nil, err
	}
	findings := change.Findings{s.authenticates()}
	for _, c := range p.Changes {
		if c.Changes() {
			findings = append(findings, change.Finding{Level: change.Fail, Name: c.Kind + " " + c.Name, Detail: "it is not as it should be: " + c.Why,
				Advice: "run kops-spot onboard again"})
		}
	}
	if findings.Failed() {
		return findings, nil // to try a log-in that cannot succeed takes long
	}
	known, _ := m.known()
	for _, id := range known {
		if logIn := logIns[id.ARN]; logIn != nil {
			findings = append(findings, m.tryOut(ctx, id, logIn))
			continue
		}
		findings = append(findings, mapped(id, p.Backends[id.ARN]))
	}
	return findings, nil
}

// authenticates says how the cluster knows IAM.
func (s MappingState) authenticates() change.Finding {
	f := change.Finding{Level: change.OK, Name: "authenticator"}
	daemonSet := s.objects[authenticatorRef]
	if daemonSet == nil {
		f.Detail = "there is none: log-ins are with a token of a ServiceAccount"
		return f
	}
	f.Detail = fmt.Sprintf("%d of %d pods of %s serve", daemonSet.Number("status", "numberAvailable"),
		daemonSet.Number("status", "desiredNumberScheduled"), authenticatorRef)
	if left := rolloutLeft(daemonSet); left != "" {
		f.Level, f.Detail = change.Warn, left
		f.Advice = "see kubectl --namespace=" + kubeSystem + " get pods --selector=k8s-app=" + authenticatorRef.Name
	}
	return f
}

// mapped says of an identity that nobody can log in as here where the cluster knows it from.
func mapped(id Identity, b Backend) change.Finding {
	f := change.Finding{Level: change.OK, Name: id.title() + " " + id.ARN}
	switch {
	case b != NoBackend:
		f.Detail = "it is mapped to " + strings.Join(id.Groups, ", ") + " (" + string(b) + "); that it can log in was not tried"
	case id.Kind == RoleIdentity:
		f.Detail = "the function logs in with its ServiceAccount's token"
	default:
		f.Detail = "it cannot log in to this cluster, which does not know IAM"
	}
	return f
}

// tryOut logs in and asks what may be done then: the function everything that it does, and nothing that is not its own.
func (m Mapping) tryOut(ctx context.Context, id Identity, logIn LogIn) change.Finding {
	f := change.Finding{Level: change.OK, Name: id.title() + " " + id.ARN}
	fail := func(detail, advice string) change.Finding {
		f.Level, f.Detail, f.Advice = change.Fail, detail, advice
		return f
	}
	as, everything, err := loggedIn(ctx, logIn)
	switch {
	case err != nil:
		return fail(err.Error(), "look into the authenticator's log: kubectl --namespace="+kubeSystem+" logs daemonset/"+authenticatorRef.Name)
	case id.Kind == UserIdentity:
		f.Detail = "it logs in"
		return f
	case everything:
		return fail("it logs in, and may do everything", "somebody has given it more than "+HandlerGroup+": see kops-spot onboard's plan")
	}
	for _, r := range kube.Requests() {
		if r.Manifest == "rbac-karpenter.yaml" && !m.Karpenter {
			continue
		}
		allowed, _, err := as.Allowed(ctx, r.Verb, r.Group, r.Resource, r.Subresource)
		if err != nil {
			return fail(err.Error(), "run the check again")
		}
		if !allowed {
			return fail(fmt.Sprintf("it logs in, and may not %s, which it has to for %s", r, r.For), "run kops-spot onboard again")
		}
	}
	f.Detail = "it logs in, and may do what the function does and no more"
	return f
}

// loggedIn waits until a log-in is, and says whether it may do everything.
func loggedIn(ctx context.Context, logIn LogIn) (as *kube.Cluster, everything bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, logInLimit)
	defer cancel()
	for {
		cfg, err := logIn()
		if err != nil {
			return nil, false, err
		}
		if as, err = kube.New(cfg); err != nil {
			return nil, false, err
		}
		everything, _, err = as.Allowed(ctx, "*", "*", "*", "")
		if err == nil {
			return as, everything, nil
		}
		if pause(ctx, logInPoll) != nil {
			return nil, false, err
		}
	}
}
