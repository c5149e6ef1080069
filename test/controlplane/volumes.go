package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/volume/attachdetach"
	"k8s.io/kubernetes/pkg/controller/volume/persistentvolume"
	"k8s.io/kubernetes/pkg/controller/volume/pvcprotection"
	"k8s.io/kubernetes/pkg/controller/volume/pvprotection"
	"k8s.io/kubernetes/pkg/volume/csi"
)

// addVolumes adds the binding of claims and the attachment of volumes. Tests create the volumes; nothing provisions
// them. The protection controllers remove the finalizers that admission adds to claims and volumes; without them, a
// namespace with a claim could not be deleted.
func (c *controllers) addVolumes(ctx context.Context) error {
	core, storage := c.shared.Core().V1(), c.shared.Storage().V1()
	logger := klog.FromContext(ctx)
	binder, err := persistentvolume.NewController(ctx, persistentvolume.ControllerParameters{
		KubeClient: c.client,
		// A volume created with its claim may be bound only at the next sync of all claims.
		SyncPeriod:     time.Second,
		VolumeInformer: core.PersistentVolumes(),
		ClaimInformer:  core.PersistentVolumeClaims(),
		ClassInformer:  storage.StorageClasses(),
		PodInformer:    core.Pods(),
		NodeInformer:   core.Nodes(),
	})
	if err != nil {
		return err
	}
	timers := attachdetach.DefaultTimerConfig
	timers.ReconcilerMaxWaitForUnmountDuration = c.settings.MaxWaitForUnmount
	attacher, err := attachdetach.NewAttachDetachController(ctx, c.client, core.Pods(), core.Nodes(),
		core.PersistentVolumeClaims(), core.PersistentVolumes(), storage.CSINodes(), storage.CSIDrivers(),
		storage.VolumeAttachments(),
		csi.ProbeVolumePlugins(), nil, // no volume plugins from files
		false, time.Minute, // sync with the nodes' status every minute
		false, // force-detach when the wait for unmount is over
		timers)
	if err != nil {
		return err
	}
	claims, err := pvcprotection.NewPVCProtectionController(logger, core.PersistentVolumeClaims(), core.Pods(),
		c.client)
	if err != nil {
		return err
	}
	volumes, err := pvprotection.NewPVProtectionController(logger, core.PersistentVolumes(), c.client)
	if err != nil {
		return err
	}
	c.run(binder.Run)
	c.run(attacher.Run)
	c.runWith(1, claims.Run)
	c.runWith(1, volumes.Run)
	return nil
}

// Times of the fake CSI driver. EBS needs seconds; the order is the same.
const (
	attachTime = 300 * time.Millisecond
	detachTime = 500 * time.Millisecond
)

// attachedFinalizer keeps a VolumeAttachment until its volume is detached, like the finalizer of a real driver.
const attachedFinalizer = "external-attacher/fake"

// csiAttacher is the external-attacher of every CSI driver.
type csiAttacher struct {
	client clientset.Interface
	lister storagelisters.VolumeAttachmentLister
	queue  workqueue.TypedRateLimitingInterface[string]
}

// startCSIAttacher starts the fake CSI attacher.
func startCSIAttacher(ctx context.Context, cfg *restclient.Config) error {
	client, err := clientset.NewForConfig(protobuf(cfg))
	if err != nil {
		return fmt.Errorf("starting the CSI attacher: %w", err)
	}
	shared := informers.NewSharedInformerFactory(client, 0)
	attachments := shared.Storage().V1().VolumeAttachments()
	a := &csiAttacher{
		client: client,
		lister: attachments.Lister(),
		queue:  workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Second)),
	}
	if _, err := attachments.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.seen(o.(*storagev1.VolumeAttachment)) },
		UpdateFunc: func(_, o any) { a.seen(o.(*storagev1.VolumeAttachment)) },
	}); err != nil {
		return fmt.Errorf("starting the CSI attacher: %w", err)
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	context.AfterFunc(ctx, a.queue.ShutDown)
	for range 8 {
		go a.work(ctx)
	}
	return nil
}

func (a *csiAttacher) seen(va *storagev1.VolumeAttachment) {
	switch {
	case va.DeletionTimestamp != nil:
		a.queue.AddAfter(va.Name, detachTime)
	case !va.Status.Attached:
		a.queue.AddAfter(va.Name, attachTime)
	}
}

func (a *csiAttacher) work(ctx context.Context) {
	for {
		name, done := a.queue.Get()
		if done {
			return
		}
		err := a.sync(ctx, name)
		switch {
		case err == nil || apierrors.IsNotFound(err):
			a.queue.Forget(name)
		case ctx.Err() == nil:
			klog.FromContext(ctx).Error(err, "fake CSI attacher", "volumeAttachment", name)
			a.queue.AddRateLimited(name)
		}
		a.queue.Done(name)
	}
}

func (a *csiAttacher) sync(ctx context.Context, name string) error {
	va, err := a.lister.Get(name)
	if err != nil {
		return err
	}
	if va.DeletionTimestamp != nil {
		others := slices.DeleteFunc(slices.Clone(va.Finalizers), func(f string) bool { return f == attachedFinalizer })
		return a.setFinalizers(ctx, va, others)
	}
	if va.Status.Attached {
		return nil
	}
	if !slices.Contains(va.Finalizers, attachedFinalizer) {
		if err := a.setFinalizers(ctx, va, append(slices.Clone(va.Finalizers), attachedFinalizer)); err != nil {
			return err
		}
	}
	_, err = a.client.StorageV1().VolumeAttachments().Patch(ctx, name, types.MergePatchType,
		[]byte(`{"status":{"attached":true}}`), metav1.PatchOptions{}, "status")
	return err
}

// setFinalizers replaces the finalizers of this version of the object. A conflict is an error, and retried.
func (a *csiAttacher) setFinalizers(ctx context.Context, va *storagev1.VolumeAttachment, finalizers []string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": va.ResourceVersion,
		"finalizers":      finalizers,
	}})
	if err != nil {
		return err
	}
	_, err = a.client.StorageV1().VolumeAttachments().Patch(ctx, va.Name, types.MergePatchType, patch,
		metav1.PatchOptions{})
	return err
}
