package controlplane

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/nodelifecycle"
	"k8s.io/kubernetes/pkg/controller/podgc"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/tainteviction"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// controllers builds kube-controller-manager's controllers on shared informers. All controllers are created before the
// informers start, because a later one would miss their start.
type controllers struct {
	client   clientset.Interface
	json     *restclient.Config // for clients of any type, which cannot speak protobuf
	shared   informers.SharedInformerFactory
	settings Config
	runs     []func(context.Context)
}

// startControllers starts the controllers that handle terminating nodes, and those that a working cluster needs:
// namespaces that can be deleted and have a ServiceAccount, and aggregated roles.
func startControllers(ctx context.Context, cfg *restclient.Config, creds *credentials, settings Config) error {
	client, err := clientset.NewForConfig(protobuf(cfg))
	if err != nil {
		return fmt.Errorf("starting controllers: %w", err)
	}
	c := &controllers{
		client:   client,
		json:     cfg,
		shared:   informers.NewSharedInformerFactory(client, 12*time.Hour),
		settings: settings,
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("starting controllers: %w", err)
	}
	metaInformers := metadatainformer.NewSharedInformerFactory(meta, 12*time.Hour)
	informersStarted := make(chan struct{})
	for _, part := range []struct {
		name string
		add  func(context.Context) error
	}{
		{"workload controllers", c.addWorkloads},
		{"disruption controller", c.addDisruption},
		{"node controllers", c.addNodes},
		{"cloud controller", c.addCloud},
		{"volume controllers", c.addVolumes},
		{"access controllers", func(ctx context.Context) error { return c.addAccess(ctx, creds) }},
		{"garbage collector", func(ctx context.Context) error {
			return c.addCollectors(ctx, meta, metaInformers, informersStarted)
		}},
	} {
		if err := part.add(ctx); err != nil {
			return fmt.Errorf("starting the %s: %w", part.name, err)
		}
	}
	c.shared.Start(ctx.Done())
	metaInformers.Start(ctx.Done())
	close(informersStarted)
	for _, run := range c.runs {
		go run(ctx)
	}
	c.shared.WaitForCacheSync(ctx.Done())
	return ctx.Err()
}

func (c *controllers) run(f func(context.Context)) { c.runs = append(c.runs, f) }

// runWith starts a controller with the given number of workers.
func (c *controllers) runWith(workers int, f func(context.Context, int)) {
	c.run(func(ctx context.Context) { f(ctx, workers) })
}

func (c *controllers) addWorkloads(ctx context.Context) error {
	core, apps := c.shared.Core().V1(), c.shared.Apps().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(),
		c.client)
	if err != nil {
		return err
	}
	daemonSets, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(),
		core.Nodes(), c.client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return err
	}
	c.runWith(5, deployments.Run)
	c.runWith(5, daemonSets.Run)
	c.runWith(5, replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), c.client,
		replicaset.BurstReplicas).Run)
	c.runWith(5, statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(),
		core.PersistentVolumeClaims(),
		apps.ControllerRevisions(), c.client).Run)
	return nil
}

func (c *controllers) addDisruption(ctx context.Context) error {
	core, apps := c.shared.Core().V1(), c.shared.Apps().V1()
	discovery := c.client.Discovery()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery))
	scales, err := scale.NewForConfig(c.json, mapper, dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(discovery))
	if err != nil {
		return err
	}
	c.runWith(5, disruption.NewDisruptionController(ctx, core.Pods(), c.shared.Policy().V1().PodDisruptionBudgets(),
		core.ReplicationControllers(), apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(),
		c.client, mapper, scales, discovery).Run)
	return nil
}

// addNodes adds the controllers for nodes that are not Ready. Without the node lifecycle controller, the initial taint
// of every node would stay and no pod would be scheduled.
func (c *controllers) addNodes(ctx context.Context) error {
	core := c.shared.Core().V1()
	grace := c.settings.NodeGrace
	lifecycle, err := nodelifecycle.NewNodeLifecycleController(ctx, c.shared.Coordination().V1().Leases(), core.Pods(),
		core.Nodes(),
		c.shared.Apps().V1().DaemonSets(), c.client,
		min(grace/8, 5*time.Second), // check interval
		grace, grace,                // grace period for new nodes, and for all nodes
		0.1, 0.01, 50, 0.55) // kube-controller-manager's defaults
	if err != nil {
		return err
	}
	evictions, err := tainteviction.New(ctx, c.client, core.Pods(), core.Nodes(), "taint-eviction-controller")
	if err != nil {
		return err
	}
	const finishedPodsKept = 12500 // kube-controller-manager's default
	collector := podgc.NewPodGC(ctx, c.client, core.Pods(), core.Nodes(), finishedPodsKept)
	c.run(lifecycle.Run)
	c.run(evictions.Run)
	c.run(collector.Run)
	return nil
}

// addAccess adds the controllers that create each namespace's ServiceAccount, root certificate and requested Secret
// tokens, and that aggregate the roles admin, edit and view.
func (c *controllers) addAccess(ctx context.Context, creds *credentials) error {
	core := c.shared.Core().V1()
	logger := klog.FromContext(ctx)
	accounts, err := serviceaccountcontroller.NewServiceAccountsController(logger, core.ServiceAccounts(),
		core.Namespaces(), c.client,
		serviceaccountcontroller.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	generator, err := serviceaccount.JWTTokenGenerator(serviceaccount.LegacyIssuer, creds.serviceAccountKey)
	if err != nil {
		return err
	}
	tokens, err := serviceaccountcontroller.NewTokensController(logger, core.ServiceAccounts(), core.Secrets(),
		c.client,
		serviceaccountcontroller.TokensControllerOptions{TokenGenerator: generator, RootCA: creds.caPEM})
	if err != nil {
		return err
	}
	roots, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), c.client, creds.caPEM)
	if err != nil {
		return err
	}
	c.runWith(1, accounts.Run)
	c.runWith(1, tokens.Run)
	c.runWith(1, roots.Run)
	c.runWith(1, clusterroleaggregation.NewClusterRoleAggregation(c.shared.Rbac().V1().ClusterRoles(),
		c.client.RbacV1()).Run)
	return nil
}

// addCollectors adds the garbage collector and the namespace controller.
func (c *controllers) addCollectors(ctx context.Context, meta metadata.Interface,
	metaInformers metadatainformer.SharedInformerFactory, started <-chan struct{}) error {
	discovery := memory.NewMemCacheClient(c.client.Discovery())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(discovery)
	gc, err := garbagecollector.NewGarbageCollector(ctx, c.client, meta, mapper,
		garbagecollector.DefaultIgnoredResources(),
		informerfactory.NewInformerFactory(c.shared, metaInformers), started)
	if err != nil {
		return err
	}
	namespaces := namespace.NewNamespaceController(ctx, c.client, meta,
		c.client.Discovery().ServerPreferredNamespacedResources,
		c.shared.Core().V1().Namespaces(), 5*time.Minute, corev1.FinalizerKubernetes)
	c.runWith(5, namespaces.Run)
	c.run(func(ctx context.Context) { gc.Run(ctx, 5, 2*time.Second) })
	c.run(func(ctx context.Context) { gc.Sync(ctx, discovery, 30*time.Second) })
	return nil
}

// protobuf returns cfg for typed clients, with half the work for API server and client.
func protobuf(cfg *restclient.Config) *restclient.Config {
	cfg = restclient.CopyConfig(cfg)
	cfg.ContentType = runtime.ContentTypeProtobuf
	return cfg
}

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
