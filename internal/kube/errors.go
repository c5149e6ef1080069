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

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/castai/kops-spot/internal/spot"
)

// translate maps an error to spot's errors; doing describes the request.
func translate(err error, doing string) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", doing, spot.ErrNotFound)
	case apierrors.IsForbidden(err) && !isWebhook(err):
		return spot.Permanent(fmt.Errorf("%s: the credential is valid but not authorized (403): "+
			"apply deploy/rbac.yaml and authenticate as a subject that it binds: %w", doing, err))
	case isCertificate(err):
		return spot.Permanent(fmt.Errorf("%s: the API server's certificate is not trusted: "+
			"check KOPS_SPOT_CA and KOPS_SPOT_SERVER: %w", doing, err))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// webhookPrefix begins the API server's message when an admission webhook denied a request. The status code is then the
// webhook's: a 404 says nothing about the pod, and a 401 nothing about our credential.
const webhookPrefix = "admission webhook"

func isWebhook(err error) bool { return strings.Contains(err.Error(), webhookPrefix) }

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname)
}

// refusal maps the error of an eviction or a delete. Any status code is a refusal: budgets return 429 or, where two
// match one pod, 500, and an admission webhook may return anything. (bearerTransport has replaced a 401 already.)
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
	r := &spot.Refusal{Code: int(s.Code), Budget: isBudget(s), Message: s.Message}
	if s.Details != nil {
		r.RetryAfter = time.Duration(s.Details.RetryAfterSeconds) * time.Second
		r.Message = strings.Join(append([]string{s.Message}, causes(s.Details.Causes)...), " ")
	}
	return r
}

// isBudget reports whether a PodDisruptionBudget refused. Only some of these responses have the cause: those about two
// budgets, or about conflicts when the budget is updated, name the resource.
func isBudget(s metav1.Status) bool {
	if strings.Contains(s.Message, webhookPrefix) {
		return false
	}
	return apierrors.HasStatusCause(&apierrors.StatusError{ErrStatus: s}, policyv1.DisruptionBudgetCause) ||
		strings.Contains(s.Message, "PodDisruptionBudget")
}

// causes returns details such as the budget's name and how many pods it needs.
func causes(cs []metav1.StatusCause) (messages []string) {
	for _, c := range cs {
		if c.Message != "" && c.Type != metav1.CauseTypeUnexpectedServerResponse {
			messages = append(messages, c.Message+".")
		}
	}
	return messages
}

// Advise adds what to do to the error of an administrator's request.
func Advise(err error) error {
	var network *net.OpError
	var request *url.Error
	switch {
	case runtime.IsMissingKind(err), runtime.IsMissingVersion(err): // the error quotes the response, which may be a secret
		return errors.New("the response is not a Kubernetes object: check the server in the kubeconfig")
	case apierrors.IsForbidden(err) && !isWebhook(err):
		return fmt.Errorf("%w: log in as an administrator of the cluster", err)
	case errors.As(err, &network), errors.As(err, &request) && request.Timeout():
		return fmt.Errorf("%w: check that kubectl reaches the cluster, and run this again", err)
	}
	return err
}
