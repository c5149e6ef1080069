// Package kube is the Kubernetes cluster behind the domain's interfaces, and the log-in to it.
//
// It speaks through a bare REST client that knows just the types in use: against the full clientset that halves the
// time of a cold start.
package kube

import (
	"context"
	"fmt"
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
	// readLimit and writeLimit bound one try of a request, so that a server that accepts a connection and then says
	// nothing leaves time for another try. A write may have to wait for admission webhooks, whose own limit is 10 s
	// unless somebody has raised it.
	readLimit  = 5 * time.Second
	writeLimit = 15 * time.Second
)

// Cluster is a Kubernetes cluster.
type Cluster struct {
	client rest.Interface
	params runtime.ParameterCodec
}

var (
	_ spot.Cluster            = (*Cluster)(nil)
	_ spot.CordonedNodeLister = (*Cluster)(nil)
)

// New makes a Cluster of a log-in. It makes no request. The login's rate limit is taken away: a client lives for one
// node, and the server has its own priority and fairness.
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
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", cfg.Host, err)
	}
	return &Cluster{client: client, params: runtime.NewParameterCodec(known)}, nil
}

// newScheme knows the types in use and no others.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for group, types := range map[schema.GroupVersion][]runtime.Object{
		corev1.SchemeGroupVersion:          {&corev1.Node{}, &corev1.NodeList{}, &corev1.Pod{}, &corev1.PodList{}, &corev1.Namespace{}},
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

// do sends a request that is tried once: the client's own retries would sleep past the domain's clock.
func do(ctx context.Context, limit time.Duration, r *rest.Request, into runtime.Object) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res := r.MaxRetries(0).Do(ctx)
	if into == nil {
		return res.Error()
	}
	return res.Into(into)
}
