package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	clientset "k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// kubelet imitates the kubelet of every node. It has a machine for each node with power, and a goroutine for each pod
// of a machine. Informers only signal changes; each goroutine reads the current state.
type kubelet struct {
	client  clientset.Interface
	log     *kubeletLog
	grace   time.Duration // the node lifecycle controller's limit for heartbeats
	slots   chan struct{} // one for each request in flight
	pods    cache.Indexer
	nodes   corelisters.NodeLister
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister

	mu       sync.Mutex
	machines map[string]*machine // by node name
}

// podsByNode is the index of pods by the node they are bound to.
const podsByNode = "node"

// startKubelet starts the fake kubelet and returns when its informers are synced.
func startKubelet(ctx context.Context, cfg *restclient.Config, grace time.Duration, log *kubeletLog) error {
	client, err := clientset.NewForConfig(protobuf(cfg))
	if err != nil {
		return fmt.Errorf("starting the fake kubelet: %w", err)
	}
	shared := informers.NewSharedInformerFactory(client, 0)
	core := shared.Core().V1()
	pods, nodes := core.Pods().Informer(), core.Nodes().Informer()
	if err := pods.AddIndexers(cache.Indexers{podsByNode: func(o any) ([]string, error) {
		return []string{o.(*corev1.Pod).Spec.NodeName}, nil
	}}); err != nil {
		return fmt.Errorf("starting the fake kubelet: %w", err)
	}
	k := &kubelet{
		client:   client,
		log:      log,
		grace:    grace,
		slots:    make(chan struct{}, 64),
		pods:     pods.GetIndexer(),
		nodes:    core.Nodes().Lister(),
		claims:   core.PersistentVolumeClaims().Lister(),
		volumes:  core.PersistentVolumes().Lister(),
		machines: map[string]*machine{},
	}
	if _, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.nodeSeen(ctx, o.(*corev1.Node)) },
		UpdateFunc: func(_, o any) { k.nodeSeen(ctx, o.(*corev1.Node)) },
	}); err != nil {
		return fmt.Errorf("starting the fake kubelet: %w", err)
	}
	if _, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.podSeen(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { k.podSeen(o.(*corev1.Pod)) },
		DeleteFunc: k.podGone,
	}); err != nil {
		return fmt.Errorf("starting the fake kubelet: %w", err)
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	go k.heartbeats(ctx)
	return ctx.Err()
}

// nodeSeen starts or stops the node's machine. A machine outlives its Node object, as a real one does.
func (k *kubelet) nodeSeen(ctx context.Context, node *corev1.Node) {
	power := node.Annotations[protocol.PowerAnnotation]
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.machines[node.Name]
	switch {
	case power == "" && m == nil:
		m = newMachine(ctx, k, node.Name)
		k.machines[node.Name] = m
		go m.boot(node)
	case power == protocol.Off && m != nil:
		k.turnOff(m)
	case m != nil:
		if ordinary, critical, ok := protocol.ParseShutdown(power); ok && m.down.CompareAndSwap(false, true) {
			go m.shutDown(ordinary, critical)
		}
	}
}

// turnOff cuts the machine's power, once. The caller holds k.mu.
func (k *kubelet) turnOff(m *machine) {
	if k.machines[m.node] != m {
		return
	}
	m.cutPower()
	delete(k.machines, m.node)
	if err := k.log.write(protocol.KubeletRecord{Node: m.node, Event: protocol.PowerCut}); err != nil {
		klog.FromContext(m.ctx).Error(err, "fake kubelet cannot write its record")
	}
}

func (k *kubelet) machine(node string) *machine {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.machines[node]
}

func (k *kubelet) podSeen(pod *corev1.Pod) {
	if m := k.machine(pod.Spec.NodeName); m != nil {
		m.podSeen(pod)
	}
}

func (k *kubelet) podGone(o any) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return
	}
	if m := k.machine(pod.Spec.NodeName); m != nil {
		m.podGone(pod)
	}
}

// pod returns the current pod, or nil if it is gone or replaced by another of the same name.
func (k *kubelet) pod(like *corev1.Pod) *corev1.Pod {
	o, ok, err := k.pods.GetByKey(like.Namespace + "/" + like.Name)
	if err != nil || !ok {
		return nil
	}
	pod := o.(*corev1.Pod)
	if pod.UID != like.UID {
		return nil
	}
	return pod
}

// heartbeats renews every machine's lease four times in a grace period, at least every ten seconds.
func (k *kubelet) heartbeats(ctx context.Context) {
	tick := time.NewTicker(min(k.grace/4, 10*time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		k.mu.Lock()
		machines := make([]*machine, 0, len(k.machines))
		for _, m := range k.machines {
			machines = append(machines, m)
		}
		k.mu.Unlock()
		var wg sync.WaitGroup
		for _, m := range machines {
			wg.Go(m.heartbeat)
		}
		wg.Wait()
	}
}

// call sends a request to the API server, with at most 64 in flight for all machines, and retries it while a retry can
// help. It returns nil, ctx's error or the permanent error.
func (k *kubelet) call(ctx context.Context, what string, request func() error) error {
	for {
		select {
		case k.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := request()
		<-k.slots
		switch {
		case err == nil, apierrors.IsNotFound(err), apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err):
			klog.FromContext(ctx).Error(err, "fake kubelet", "request", what)
			return err
		}
		klog.FromContext(ctx).Error(err, "fake kubelet, trying again", "request", what)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// kubeletLog is the fake kubelet's log, with one line of JSON for each event. Lines are written atomically, so a test
// can read the file at any time.
type kubeletLog struct {
	mu   sync.Mutex
	file *os.File
}

func newKubeletLog(name string) (*kubeletLog, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the kubelet's record: %w", err)
	}
	return &kubeletLog{file: file}, nil
}

// add records an event of a pod. Each pod's goroutine calls it, so the lines of one pod are in order.
func (l *kubeletLog) add(pod *corev1.Pod, event protocol.KubeletEvent, grace int64) error {
	return l.write(protocol.KubeletRecord{
		Node:      pod.Spec.NodeName,
		Namespace: pod.Namespace,
		Pod:       pod.Name,
		UID:       string(pod.UID),
		Event:     event,
		Grace:     grace,
	})
}

// write adds the record with the current time.
func (l *kubeletLog) write(record protocol.KubeletRecord) error {
	record.Time = time.Now()
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.file.Write(append(line, '\n'))
	return err
}

func (l *kubeletLog) close() { l.file.Close() }
