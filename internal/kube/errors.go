package kube

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/castai/kops-spot/internal/spot"
)

// translate says in the domain's terms what an error of a read or of a node's change means; doing says what was tried.
func translate(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	case apierrors.IsForbidden(err) && !isWebhook(err):
		return spot.PossiblyTransient(fmt.Errorf("%s: the credential is good but may not do this (403): "+
			"apply deploy/rbac.yaml and log in as a subject that it binds: %w", doing, err))
	case isCertificate(err):
		return spot.Permanent(fmt.Errorf("%s: the API server's certificate is not what we were told to expect: "+
			"see KOPS_SPOT_CA and KOPS_SPOT_TLS_SERVER_NAME: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// webhookSays begins what the API server says where an admission webhook has denied a request. The code beside it is the
// webhook's own: a 404 of one is no word about the pod, nor is a 401 about us.
const webhookSays = "admission webhook"

func isWebhook(err error) bool { return strings.Contains(err.Error(), webhookSays) }

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}

// refusal says what an answer to an eviction or a delete means. Whoever answers with a status code has refused it,
// whatever the code: budgets say 429 or, where two guard one pod, 500, and an admission webhook says what it likes. (A
// credential that is not accepted has no status here: the log-in has made it an error that explains itself.)
func refusal(err error, doing string) error {
	status := apierrors.APIStatus(nil)
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err) && !isWebhook(err):
		return fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	case apierrors.IsConflict(err) && !isWebhook(err):
		return fmt.Errorf("%s: %w: %w", doing, spot.ErrChanged, err)
	case !errors.As(err, &status):
		return translate(err, doing)
	}
	s := status.Status()
	r := &spot.Refusal{Code: int(s.Code), Message: s.Message}
	if s.Details != nil {
		r.RetryAfter = time.Duration(s.Details.RetryAfterSeconds) * time.Second
		r.Message = strings.Join(append([]string{s.Message}, causes(s.Details.Causes)...), " ")
	}
	return r
}

// causes are what the server adds to its message, such as which budget it was and how many pods it needs.
func causes(cs []metav1.StatusCause) (messages []string) {
	for _, c := range cs {
		if c.Message != "" && c.Type != metav1.CauseTypeUnexpectedServerResponse {
			messages = append(messages, c.Message+".")
		}
	}
	return messages
}

// Advise adds to the error of a request that an administrator of the cluster has made what to do about it.
func Advise(err error) error {
	var network *net.OpError
	var request *url.Error
	switch {
	case runtime.IsMissingKind(err), runtime.IsMissingVersion(err): // the error quotes the answer, which may be a secret
		return errors.New("the answer is not a Kubernetes object: check which server the kubeconfig names")
	case apierrors.IsForbidden(err) && !isWebhook(err):
		return fmt.Errorf("%w: log in as an administrator of the cluster", err)
	case errors.As(err, &network), errors.As(err, &request) && request.Timeout():
		return fmt.Errorf("%w: check that kubectl reaches the cluster, and run this again", err)
	}
	return err
}
