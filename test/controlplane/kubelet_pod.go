package controlplane

import (
	"encoding/json"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/castai/kops-spot/test/controlplane/protocol"
)

// podRun is one pod on one machine, from the start of its containers to the end. Mirror pods run like any other, so
// their evictions are recorded.
type podRun struct {
	*machine
	first   *corev1.Pod   // as first seen; its name, UID and node never change
	changed chan struct{} // at most one signal: read the pod again
	ended   chan struct{} // closed when the containers have exited and the volumes are unmounted

	volumes  []corev1.UniqueVolumeName // in use
	grace    int64                     // seconds, from the first deletion request or the shutdown
	shutdown atomic.Pointer[int64]     // seconds that the machine's shutdown allows; nil: it does not stop the pod
}

func (r *podRun) nudge() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// now returns the current pod, or nil if it is gone.
func (r *podRun) now() *corev1.Pod { return r.pod(r.first) }

// wanted reports whether the pod must run: it exists, is not terminating, has not finished and is not shut down.
func (r *podRun) wanted() bool {
	pod := r.now()
	return pod != nil && pod.DeletionTimestamp == nil && !finished(pod) && r.shutdown.Load() == nil
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func (r *podRun) record(event protocol.KubeletEvent) {
	if err := r.log.add(r.first, event, r.grace); err != nil {
		klog.FromContext(r.ctx).Error(err, "fake kubelet cannot write its record")
	}
}

// run executes the pod's lifecycle. When power is cut, it returns and leaves everything as it is.
func (r *podRun) run() {
	defer close(r.ended)
	if r.down.Load() && r.wanted() {
		_ = r.patchStatus(rejected()) // patchStatus has logged it
		return
	}
	started, ok := r.start()
	if !ok {
		return
	}
	for r.wanted() {
		if !r.sleep(time.Hour, r.changed) {
			return
		}
	}
	pod := r.now()
	if started {
		switch {
		case pod == nil: // force-deleted: the kubelet kills its containers
			r.record(protocol.SigKill)
		case !finished(pod):
			killed, ok := r.stop(pod)
			if !ok {
				return
			}
			status := terminated(pod, killed)
			if r.shutdown.Load() != nil {
				shutDown(status)
			}
			if err := r.patchStatus(status); err != nil && r.ctx.Err() != nil {
				return
			}
		}
	} else if pod != nil && r.shutdown.Load() != nil && !finished(pod) {
		status := podStatus(pod, false, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}})
		shutDown(status)
		_ = r.patchStatus(status) // patchStatus has logged it
	}
	if len(r.volumes) > 0 {
		r.reportVolumes(r.volumes, -1)
	}
	if pod != nil && pod.DeletionTimestamp != nil {
		r.remove()
	}
}

// start starts the pod when its volumes are attached and makes it Ready. started is false if the pod was no longer
// wanted before that; ok is false if power was cut.
func (r *podRun) start() (started, ok bool) {
	const look = 50 * time.Millisecond
	for {
		if !r.wanted() {
			return false, true
		}
		if volumes, bound := r.claimed(r.first); bound {
			r.volumes = volumes
			break
		}
		if !r.sleep(look, r.changed) {
			return false, false
		}
	}
	if len(r.volumes) > 0 {
		r.reportVolumes(r.volumes, 1)
		for !r.attached(r.volumes) {
			if !r.wanted() {
				return false, true
			}
			if !r.sleep(look, r.changed) {
				return false, false
			}
		}
	}
	if reason := r.waitingReason(); reason != "" {
		_ = r.patchStatus(waiting(r.first, reason)) // patchStatus has logged it
		return true, r.ctx.Err() == nil
	}
	r.record(protocol.Started)
	ready := time.Now().Add(duration(r.first, protocol.ReadyAfterAnnotation, protocol.DefaultReadyAfter))
	for wait := time.Until(ready); wait > 0; wait = time.Until(ready) {
		if !r.wanted() {
			return true, true
		}
		if !r.sleep(wait, r.changed) {
			return true, false
		}
	}
	if r.wanted() && r.patchStatus(running(r.first)) == nil {
		r.record(protocol.BecameReady)
	}
	return true, r.ctx.Err() == nil
}

// minimumGrace is what a kubelet allows every container, however short its pod's grace period is.
const minimumGrace = 2 * time.Second

// stop sends SIGTERM and waits until the containers exit or their time is up. killed reports which; ok is false if
// power was cut.
//
// A later deletion request, or the machine's shutdown, can only shorten the grace period. The kubelet then restarts the
// stop with the shorter time, so the pod ends earlier than the first request promised.
func (r *podRun) stop(pod *corev1.Pod) (killed, ok bool) {
	r.grace = r.allowed(pod)
	r.record(protocol.SigTerm)
	term := time.Now()
	exit := term.Add(duration(pod, protocol.ExitAfterAnnotation, protocol.DefaultExitAfter))
	kill := term.Add(graceTime(r.grace))
	for {
		if pod = r.now(); pod == nil {
			r.grace = 0
			r.record(protocol.SigKill)
			return true, true
		}
		if shorter := r.allowed(pod); shorter < r.grace {
			r.grace = shorter
			r.record(protocol.GraceShortened)
			kill = time.Now().Add(graceTime(shorter))
		}
		now := time.Now()
		switch {
		case !now.Before(kill) && kill.Before(exit):
			r.record(protocol.SigKill)
			return true, true
		case !now.Before(exit):
			r.record(protocol.Exited)
			return false, true
		}
		next := exit
		if kill.Before(exit) {
			next = kill
		}
		if !r.sleep(time.Until(next), r.changed) {
			return false, false
		}
	}
}

// allowed returns the seconds that the pod has: the shorter of its deletion's and the shutdown's.
func (r *podRun) allowed(pod *corev1.Pod) int64 {
	seconds := pod.DeletionGracePeriodSeconds
	if limit := r.shutdown.Load(); limit != nil && (seconds == nil || *limit < *seconds) {
		seconds = limit
	}
	if seconds == nil {
		return 0
	}
	return *seconds
}

func graceTime(seconds int64) time.Duration {
	return max(time.Duration(seconds)*time.Second, minimumGrace)
}

func duration(pod *corev1.Pod, annotation string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(pod.Annotations[annotation]); err == nil {
		return d
	}
	return otherwise
}

// remove deletes the finished pod from the API server if it is still the same pod.
func (r *podRun) remove() {
	var grace int64
	err := r.call(r.ctx, "delete pod", func() error {
		return r.client.CoreV1().Pods(r.first.Namespace).Delete(r.ctx, r.first.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &grace,
			Preconditions:      &metav1.Preconditions{UID: &r.first.UID},
		})
	})
	if err == nil {
		r.record(protocol.Removed)
	}
}

// patchStatus merges the parts into the pod's status if it is still the same pod.
func (r *podRun) patchStatus(status map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": r.first.UID}, "status": status})
	if err != nil {
		return err
	}
	return r.call(r.ctx, "patch pod status", func() error {
		_, err := r.client.CoreV1().Pods(r.first.Namespace).Patch(r.ctx, r.first.Name, types.StrategicMergePatchType,
			patch,
			metav1.PatchOptions{}, "status")
		return err
	})
}

// waiting is the status of a pod whose containers do not start.
func waiting(pod *corev1.Pod, reason string) map[string]any {
	message := "back-off 10s restarting failed container"
	if reason != "CrashLoopBackOff" {
		message = "Back-off pulling image " + pod.Spec.Containers[0].Image
	}
	status := podStatus(pod, false, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}})
	for i, c := range status["containerStatuses"].([]any) {
		if c, is := c.(corev1.ContainerStatus); is && reason == "CrashLoopBackOff" {
			c.RestartCount = 1
			c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: "Error", ExitCode: 1}
			status["containerStatuses"].([]any)[i] = c
		}
	}
	status["phase"] = corev1.PodPending
	return status
}

// running is the status of a pod with running and Ready containers.
func running(pod *corev1.Pod) map[string]any {
	now := metav1.Now()
	status := podStatus(pod, true, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}})
	status["phase"] = corev1.PodRunning
	status["startTime"] = now
	return status
}

// terminated is the status of a pod with exited containers.
func terminated(pod *corev1.Pod, killed bool) map[string]any {
	end := &corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: metav1.Now()}
	phase := corev1.PodSucceeded
	if killed {
		end.Reason, end.ExitCode, end.Signal = "Error", 137, 9
		phase = corev1.PodFailed
	}
	status := podStatus(pod, false, corev1.ContainerState{Terminated: end})
	status["phase"] = phase
	return status
}

// shutDown changes the status to that of a pod that the machine's shutdown has stopped.
func shutDown(status map[string]any) {
	const message = "Pod was terminated in response to imminent node shutdown."
	status["phase"], status["reason"], status["message"] = corev1.PodFailed, "Terminated", message
	status["conditions"] = append(status["conditions"].([]corev1.PodCondition), corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet,
		Message: message, LastTransitionTime: metav1.Now()})
}

// rejected is the status of a pod that was bound to the node while it shuts down.
func rejected() map[string]any {
	return map[string]any{"phase": corev1.PodFailed, "reason": "NodeShutdown",
		"message": "Pod was rejected as the node is shutting down."}
}

// podStatus returns conditions and containers that are all up or all down. Containers replace the previous ones:
// merged, a container would be running and terminated at once.
func podStatus(pod *corev1.Pod, up bool, state corev1.ContainerState) map[string]any {
	now := metav1.Now()
	ready := corev1.ConditionFalse
	if up {
		ready = corev1.ConditionTrue
	}
	containers := []any{map[string]string{"$patch": "replace"}}
	for _, c := range pod.Spec.Containers {
		containers = append(containers, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: up, Started: &up, State: state,
		})
	}
	return map[string]any{
		"containerStatuses": containers,
		"conditions": []corev1.PodCondition{
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.ContainersReady, Status: ready, LastTransitionTime: now},
			{Type: corev1.PodReady, Status: ready, LastTransitionTime: now},
		},
	}
}
