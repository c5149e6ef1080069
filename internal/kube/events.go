package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/castai/kops-spot/internal/spot"
)

const (
	// reporter is the reporting controller of Events and the field manager of node changes.
	reporter = "kops-spot"

	eventAction = "Draining"
)

// Record implements spot.Cluster with an Event of events.k8s.io/v1 (Kubernetes 1.19).
func (c *Cluster) Record(ctx context.Context, n spot.KubeEvent) error {
	e := eventOf(n, time.Now())
	err := do(ctx, readLimit, c.client.Post().AbsPath("/apis/events.k8s.io/v1/namespaces/"+e.Namespace+"/events").Body(e), nil)
	return translate(err, "creating an Event for "+e.Regarding.Name)
}

func eventOf(n spot.KubeEvent, now time.Time) *eventsv1.Event {
	e := &eventsv1.Event{EventTime: metav1.NewMicroTime(now), ReportingController: reporter, ReportingInstance: reporter,
		Action: eventAction, Reason: n.Reason, Note: n.Message, Type: corev1.EventTypeNormal}
	if n.Warning {
		e.Type = corev1.EventTypeWarning
	}
	if n.Node != nil {
		// Events on nodes belong in the namespace default, with the node's name as UID, as the kubelet writes them.
		e.Namespace = metav1.NamespaceDefault
		e.Regarding = corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: n.Node.Name, UID: types.UID(n.Node.Name)}
	} else {
		e.Namespace = n.Pod.Namespace
		e.Regarding = corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: n.Pod.Namespace, Name: n.Pod.Name,
			UID: types.UID(n.Pod.UID)}
	}
	e.Name = fmt.Sprintf("%s.%x", e.Regarding.Name, now.UnixNano()) // as client-go names them
	return e
}
