package onboard

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kubeadmin"
)

const (
	serviceAccount     = "kops-spot" // of rbac.yaml
	secretType         = "kubernetes.io/service-account-token"
	annotationOwner    = "kubernetes.io/service-account.name"
	tokenLimit         = 30 * time.Second // Kubernetes fills such a Secret in less than one
	tokenPoll          = 200 * time.Millisecond
	tokenKey, caKey    = "token", "ca" // as the function reads them from one secret
	secretToken        = "token"
	secretCertificates = "ca.crt"
)

// tokenEdit has a Secret in which Kubernetes puts a token of the function's ServiceAccount that does not end.
type tokenEdit struct{ remove bool }

func (e tokenEdit) on(now kubeadmin.Object) (kubeadmin.Object, change.Plan, error) {
	switch {
	case e.remove:
		return overlay{remove: true}.on(now)
	case now == nil:
		next := tokenRef.New()
		next.Set(managedBy, "metadata", "labels", labelManagedBy)
		next.Set(serviceAccount, "metadata", "annotations", annotationOwner)
		next["type"] = secretType
		return next, nil, nil
	case now.Text("type") != secretType || now.Text("metadata", "annotations", annotationOwner) != serviceAccount:
		return nil, nil, fmt.Errorf("%s is something else than the token of the ServiceAccount %s: "+
			"if nobody needs it, delete it and run this again", tokenRef, serviceAccount)
	}
	return now, nil, nil
}

// ServiceAccountToken is what the function logs in with where no authenticator knows its role. Printing it does not show
// it.
type ServiceAccountToken struct{ token, ca string }

// String says what it is, and not what is in it.
func (t ServiceAccountToken) String() string {
	return "the token of the ServiceAccount " + kubeSystem + "/" + serviceAccount
}

// GoString is String: %#v shows no more than %v.
func (t ServiceAccountToken) GoString() string { return t.String() }

// Token is the bearer token.
func (t ServiceAccountToken) Token() string { return t.token }

// Secret is the token together with the cluster's certificates, as the function reads both from one secret of Secrets
// Manager.
func (t ServiceAccountToken) Secret() string {
	text, _ := json.Marshal(map[string]string{tokenKey: t.token, caKey: t.ca}) // of strings alone: it cannot fail
	return string(text)
}

// readToken waits until Kubernetes has filled the Secret.
func readToken(ctx context.Context, cluster *kubeadmin.Client) (*ServiceAccountToken, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tokenLimit, errors.New("it is still empty: "+
		"is the kube-controller-manager running, and with --service-account-private-key-file?"))
	defer cancel()
	for {
		o, err := cluster.Get(ctx, tokenRef)
		if err != nil {
			return nil, cause(ctx, err, "waiting for "+tokenRef.String())
		}
		token, err := base64.StdEncoding.DecodeString(o.Text("data", secretToken))
		if err != nil {
			return nil, fmt.Errorf("reading %s: its token is not in base64", tokenRef)
		}
		ca, err := base64.StdEncoding.DecodeString(o.Text("data", secretCertificates))
		if err != nil {
			return nil, fmt.Errorf("reading %s: its certificates are not in base64", tokenRef)
		}
		if len(token) > 0 && len(ca) > 0 {
			return &ServiceAccountToken{string(token), string(ca)}, nil
		}
		if err := pause(ctx, tokenPoll); err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", tokenRef, err)
		}
	}
}

// pause waits, or says why the context has ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cause is an error of a wait: that of its end, if that is what it is.
func cause(ctx context.Context, err error, doing string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	return err
}
