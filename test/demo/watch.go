package main

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/castai/kops-spot/test/demo/story"
)

// podWatch sees all pods of the cluster with its own eyes: what it shows does not come from the function.
type podWatch struct {
	out      *story.Screen
	informer cache.SharedInformer

	mu     sync.Mutex
	victim string               // the node; empty before the event
	told   map[types.UID]string // what was last shown of a pod
	before map[types.UID]bool   // pods that were there at the event
	toGo   map[types.UID]bool   // those that have to leave the node
}

func watchPods(ctx context.Context, client kubernetes.Interface, out *story.Screen) *podWatch {
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "", fields.Everything())
	w := &podWatch{out: out, informer: cache.NewSharedInformer(source, &corev1.Pod{}, 0), told: map[types.UID]string{},
		before: map[types.UID]bool{}, toGo: map[types.UID]bool{}}
	_, _ = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails only once it is stopped
		AddFunc:    func(o any) { w.see(o.(*corev1.Pod), false) },
		UpdateFunc: func(_, o any) { w.see(o.(*corev1.Pod), false) },
		DeleteFunc: func(o any) {
			if p, ok := o.(*corev1.Pod); ok {
				w.see(p, true)
			}
		},
	})
	go w.informer.Run(ctx.Done())
	return w
}

// begin shows from now on what becomes of the pods of a node.
func (w *podWatch) begin(victim string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.victim = victim
	for _, p := range w.all() {
		w.before[p.UID] = true
	}
	for _, p := range w.toMove(victim) {
		w.toGo[p.UID] = true
	}
}

func (w *podWatch) see(p *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.victim == "" || stays(p) {
		return
	}
	switch {
	case gone && p.Spec.NodeName == w.victim:
		delete(w.toGo, p.UID)
		w.tell(p, story.Faint, "left", fmt.Sprintf("%d to go", len(w.toGo)))
	case gone || w.before[p.UID]:
	case podReady(p):
		w.tell(p, story.Green, "Ready", "on "+story.Short(p.Spec.NodeName))
	case unschedulable(p):
		w.tell(p, story.Yellow, "waits", "for a node that will have it")
	}
}

// tell shows something about a pod once.
func (w *podWatch) tell(p *corev1.Pod, color, what, more string) {
	if w.told[p.UID] == what {
		return
	}
	w.told[p.UID] = what
	w.out.Live("pod", "%-15s  %s  %s", shortPod(p.Name, p.Labels), w.out.Paint(color, fmt.Sprintf("%-5s", what)), more)
}

// shortPod is a pod's name without its ReplicaSet's hash.
func shortPod(name string, labels map[string]string) string {
	hash := labels["pod-template-hash"]
	if hash == "" {
		return name
	}
	return labels["app"] + name[len(labels["app"])+1+len(hash):]
}

func (w *podWatch) all() (pods []*corev1.Pod) {
	for _, o := range w.informer.GetStore().List() {
		pods = append(pods, o.(*corev1.Pod))
	}
	return pods
}

// on are the pods of a node.
func (w *podWatch) on(node string) (pods []*corev1.Pod) {
	for _, p := range w.all() {
		if p.Spec.NodeName == node {
			pods = append(pods, p)
		}
	}
	return pods
}

// toMove are the pods of a node that a drain has to move.
func (w *podWatch) toMove(node string) (pods []*corev1.Pod) {
	for _, p := range w.on(node) {
		if !stays(p) {
			pods = append(pods, p)
		}
	}
	return pods
}

// left counts the pods that have left the victim.
func (w *podWatch) left() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, what := range w.told {
		if what == "left" {
			n++
		}
	}
	return n
}

// ready counts the pods of an app that are Ready and stay so, on all nodes but one.
func (w *podWatch) ready(a app, except string) (n int) {
	for _, p := range w.all() {
		if p.Labels["app"] == a.Name && p.Spec.NodeName != except && p.DeletionTimestamp == nil && podReady(p) {
			n++
		}
	}
	return n
}

func podReady(p *corev1.Pod) bool { return has(p, corev1.PodReady, corev1.ConditionTrue) }

func unschedulable(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && has(p, corev1.PodScheduled, corev1.ConditionFalse)
}

func has(p *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == kind && c.Status == status {
			return true
		}
	}
	return false
}
