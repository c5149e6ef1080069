package kube

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/spot"
)

// Evict implements spot.Pods. Kubernetes before 1.22 knows an Eviction only as policy/v1beta1's: when the server has said
// so once, it is asked in that way from then on. Later versions take either, so nothing is lost if it is upgraded meanwhile.
func (c *Cluster) Evict(ctx context.Context, p spot.Pod, grace time.Duration, exact bool) error {
	doing := "evicting " + p.ID()
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: deleteOptions(p, grace, exact),
	}
	if !c.oldEvictions.Load() {
		err := do(ctx, writeLimit, c.evicting(p).Body(eviction), nil)
		if !saysEvictionIsUnknown(err) {
			return refusal(err, doing)
		}
		c.oldEvictions.Store(true)
	}
	eviction.APIVersion, eviction.Kind = "policy/v1beta1", "Eviction"
	body, err := json.Marshal(eviction) // the two versions have the same fields
	if err != nil {
		return spot.Final(err)
	}
	err = do(ctx, writeLimit, c.evicting(p).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body), nil)
	return refusal(err, doing)
}

func (c *Cluster) evicting(p spot.Pod) *rest.Request {
	return c.client.Post().Namespace(p.Namespace).Resource("pods").Name(p.Name).SubResource("eviction")
}

// saysEvictionIsUnknown reports whether the API server itself, and before it did anything, says that it has no Eviction in
// policy/v1. An admission webhook can fail with almost the same words, but is quoted with its name before them; to ask in
// another way would be to go round it. A 404 is the pod's and means that it is gone: no server answers so to a version that
// it does not know.
func saysEvictionIsUnknown(err error) bool {
	answer := apierrors.APIStatus(nil)
	if !errors.As(err, &answer) || answer.Status().Code != http.StatusBadRequest {
		return false
	}
	return slices.ContainsFunc(unknownEviction, func(words string) bool { return strings.HasPrefix(answer.Status().Message, words) })
}

// unknownEviction is how the server begins to say so: it cannot decode the body, or has the kind but does not take this
// version of it for the purpose.
var unknownEviction = []string{
	`Eviction in version "v1" cannot be handled as a Eviction: no kind "Eviction" is registered for version "policy/v1"`,
	`the object provided is unrecognized (must be of type Eviction): no kind "Eviction" is registered for version "policy/v1"`,
	`the API version in the data (policy/v1) does not match the expected API version`,
}
