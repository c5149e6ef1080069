package identitymap

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
)

// TokenOwner is the ServiceAccount whose token the function uses where IAM is not available.
const TokenOwner = kubeSystem + "/" + serviceAccount

const (
	serviceAccount  = "kops-spot"
	secretType      = "kubernetes.io/service-account-token"
	annotationOwner = "kubernetes.io/service-account.name"
	tokenLimit      = 30 * time.Second // Kubernetes fills in the Secret in less than one
	tokenPoll       = 200 * time.Millisecond
)

// mutateToken creates a Secret into which Kubernetes puts a token of the function's ServiceAccount that never expires.
func mutateToken(now object) (object, change.Plan, error) {
	owner := []string{"metadata", "annotations", annotationOwner}
	switch {
	case now == nil:
		next := tokenRef.empty()
		set(next, managedBy, "metadata", "labels", labelManagedBy)
		set(next, serviceAccount, owner...)
		set(next, secretType, "type")
		return next, nil, nil
	case stringAt(now, "type") != secretType || stringAt(now, owner...) != serviceAccount:
		return nil, nil, fmt.Errorf("%s is not a token of the ServiceAccount %s: "+
			"if nobody needs it, delete it and run this again", tokenRef, serviceAccount)
	}
	return now, nil, nil
}

// ReadToken waits until Kubernetes has filled in the Secret. secret contains the token and the cluster's CA
// certificates, in the form that the function reads from Secrets Manager; uid is the Secret's.
func ReadToken(ctx context.Context, cluster dynamic.Interface) (secret, uid string, err error) {
	err = waitFor(ctx, tokenLimit, tokenPoll, "the token", func(ctx context.Context) (string, error) {
		o, err := tokenRef.get(ctx, cluster)
		if err != nil {
			return "", err
		}
		token, notToken := base64.StdEncoding.DecodeString(stringAt(o, "data", "token"))
		ca, notCA := base64.StdEncoding.DecodeString(stringAt(o, "data", "ca.crt"))
		switch {
		case notToken != nil || notCA != nil:
			return "", fmt.Errorf("reading %s: its data is not base64: delete it and run this again", tokenRef)
		case len(token) == 0 || len(ca) == 0:
			return "it is still empty: does the kube-controller-manager run with --service-account-private-key-file?", nil
		}
		both, err := json.Marshal(map[string]string{"token": string(token), "ca": string(ca)})
		secret, uid = string(both), string(o.GetUID())
		return "", err
	})
	return secret, uid, err
}

// waitFor polls until nothing is pending. A timeout error says what is.
func waitFor(ctx context.Context, limit, poll time.Duration, what string,
	check func(context.Context) (pending string, err error)) error {
	last := ""
	err := wait.PollUntilContextTimeout(ctx, poll, limit, true, func(ctx context.Context) (bool, error) {
		pending, err := check(ctx)
		last = cmp.Or(pending, last)
		return pending == "", err
	})
	if wait.Interrupted(err) && last != "" {
		return fmt.Errorf("waiting for %s: %w: %s", what, err, last)
	}
	return err
}
