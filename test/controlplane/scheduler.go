package controlplane

import (
	"context"
	"fmt"

	clientset "k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

// startScheduler starts kube-scheduler with its default profile. It retries unschedulable pods after one or two seconds
// instead of up to ten, because drain tests free capacity all the time.
func startScheduler(ctx context.Context, cfg *restclient.Config) error {
	client, err := clientset.NewForConfig(protobuf(cfg))
	if err != nil {
		return fmt.Errorf("starting the scheduler: %w", err)
	}
	informers := scheduler.NewInformerFactory(client, 0, nil)
	recorder := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	recorder.StartRecordingToSink(ctx.Done())
	s, err := scheduler.New(ctx, client, informers, nil, profile.NewRecorderFactory(recorder),
		scheduler.WithKubeConfig(cfg),
		scheduler.WithPodInitialBackoffSeconds(1),
		scheduler.WithPodMaxBackoffSeconds(2))
	if err != nil {
		return fmt.Errorf("starting the scheduler: %w", err)
	}
	informers.Start(ctx.Done())
	informers.WaitForCacheSync(ctx.Done())
	if err := s.WaitForHandlersSync(ctx); err != nil {
		return fmt.Errorf("waiting for the scheduler's caches: %w", err)
	}
	go s.Run(ctx)
	return nil
}
