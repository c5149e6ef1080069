// Package kube implements spot's interfaces for Kubernetes, and the authentication to a kOps cluster.
//
// It uses a REST client that knows only the types in use. This halves the cold start compared to the full clientset.
package kube

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// readLimit and writeLimit bound one attempt, to leave time for another one. A write may wait for admission
	// webhooks, which have 10 s by default.
	readLimit  = 5 * time.Second
	writeLimit = 15 * time.Second
)

// Cluster is a Kubernetes cluster.
type Cluster struct {
	client rest.Interface
	params runtime.ParameterCodec
	http1  *atomic.Bool // the server speaks HTTP/1.1
}

var (
	_ spot.Cluster            = (*Cluster)(nil)
	_ spot.CordonedNodeLister = (*Cluster)(nil)
)

// New returns a Cluster without sending a request. It removes the client's rate limit: a client serves one node, and
// the server has its own priority and fairness.
func New(login *rest.Config) (*Cluster, error) {
	cfg := rest.CopyConfig(login)
	cfg.GroupVersion = &corev1.SchemeGroupVersion
	cfg.APIPath = "/api"
	cfg.QPS = -1
	known := newScheme()
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	cfg.ContentType = runtime.ContentTypeProtobuf
	cfg.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	cfg.WarningHandler = rest.NoWarnings{}
	http1 := &atomic.Bool{}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return protocolTransport{next, http1} })
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("creating the client for %s: %w", cfg.Host, err)
	}
	return &Cluster{client: client, params: runtime.NewParameterCodec(known), http1: http1}, nil
}

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for group, types := range map[schema.GroupVersion][]runtime.Object{
		corev1.SchemeGroupVersion: {&corev1.Node{}, &corev1.NodeList{}, &corev1.Pod{}, &corev1.PodList{},
			&corev1.Namespace{}},
		policyv1.SchemeGroupVersion:        {&policyv1.Eviction{}},
		eventsv1.SchemeGroupVersion:        {&eventsv1.Event{}},
		storagev1.SchemeGroupVersion:       {&storagev1.VolumeAttachment{}, &storagev1.VolumeAttachmentList{}},
		authorizationv1.SchemeGroupVersion: {&authorizationv1.SelfSubjectAccessReview{}},
	} {
		s.AddKnownTypes(group, types...)
		metav1.AddToGroupVersion(s, group)
	}
	return s
}

// do sends a request once: client-go's own retries would ignore spot's deadline.
func do(ctx context.Context, limit time.Duration, r *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res := r.MaxRetries(0).Do(ctx)
	if into == nil {
		return res.Error()
	}
	return res.Into(into)
}
