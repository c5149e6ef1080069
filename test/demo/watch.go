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

// podWatch watches and prints all pods, independently of the function.
type podWatch struct {
	out      *story.Screen
	informer cache.SharedInformer

	mu        sync.Mutex
	victim    string               // the node; empty before the event
	shown     map[types.UID]string // last printed state of each pod
	before    map[types.UID]bool   // pods that existed at the event
	remaining map[types.UID]bool   // pods of the victim that have to move
}

func watchPods(ctx context.Context, client kubernetes.Interface, out *story.Screen) *podWatch {
	source := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", "", fields.Everything())
	w := &podWatch{out: out, informer: cache.NewSharedInformer(source, &corev1.Pod{}, 0), shown: map[types.UID]string{},
		before: map[types.UID]bool{}, remaining: map[types.UID]bool{}}
	_, _ = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails only after the informer has stopped
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

// begin starts to print what happens to the pods of a node.
func (w *podWatch) begin(victim string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.victim = victim
	for _, p := range w.all() {
		w.before[p.UID] = true
	}
	for _, p := range w.toMove(victim) {
		w.remaining[p.UID] = true
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
		delete(w.remaining, p.UID)
		w.show(p, story.Faint, "terminated", fmt.Sprintf("%d remaining", len(w.remaining)))
	case gone || w.before[p.UID]:
	case podReady(p):
		w.show(p, story.Green, "Ready", "on "+story.Short(p.Spec.NodeName))
	case unschedulable(p):
		w.show(p, story.Yellow, "Pending", "no suitable node yet")
	}
}

// show prints each new state of a pod once.
func (w *podWatch) show(p *corev1.Pod, color, state, detail string) {
	if w.shown[p.UID] == state {
		return
	}
	w.shown[p.UID] = state
	w.out.Live("pod", "%-15s  %s  %s", shortPod(p.Name, p.Labels), w.out.Paint(color, fmt.Sprintf("%-10s", state)), detail)
}

// shortPod returns the pod's name without the hash of its ReplicaSet.
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

// on returns the pods of a node.
func (w *podWatch) on(node string) (pods []*corev1.Pod) {
	for _, p := range w.all() {
		if p.Spec.NodeName == node {
			pods = append(pods, p)
		}
	}
	return pods
}

// toMove returns the pods of a node that a drain has to move.
func (w *podWatch) toMove(node string) (pods []*corev1.Pod) {
	for _, p := range w.on(node) {
		if !stays(p) {
			pods = append(pods, p)
		}
	}
	return pods
}

// terminated counts the pods that were terminated on the victim.
func (w *podWatch) terminated() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, state := range w.shown {
		if state == "terminated" {
			n++
		}
	}
	return n
}

// ready counts the pods of an app that are Ready and not terminating, on all nodes but one.
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
