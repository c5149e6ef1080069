package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/kube"
)

const (
	// readyLimit allows for new nodes, pulling the images, and the agent's first list of the cluster.
	readyLimit = 5 * time.Minute
	readyPoll  = time.Second

	removalLimit = 2 * time.Minute
)

// logs is the command that shows the agent's log.
const logs = "kubectl --namespace=" + Namespace + " logs deployment/" + name + " --container=agent"

// Wait waits until the agent is ready, or until waiting longer does not help, and says why it is not.
func Wait(ctx context.Context, cluster dynamic.Interface) (findings change.Findings, err error) {
	if findings, err = poll(ctx, cluster, readyLimit, check); err == nil && !findings.Failed() {
		findings = append(findings, change.Finding{Level: change.OK, Name: "registration",
			Detail: "the agent reports a refused token only in its log", Advice: logs})
	}
	return findings, err
}

// poll checks until waiting longer does not help. At the limit, the last findings are the result. It repeats failed
// requests: the changes are made, and the API server may be busy with them.
func poll(ctx context.Context, cluster dynamic.Interface, limit time.Duration,
	check func(context.Context, dynamic.Interface) (change.Findings, bool, error)) (findings change.Findings, err error) {
	var failed error
	err = wait.PollUntilContextTimeout(ctx, readyPoll, limit, true, func(ctx context.Context) (bool, error) {
		now, done, err := check(ctx, cluster)
		switch {
		case apierrors.IsForbidden(err): // a repetition does not change it
			return false, err
		case err != nil:
			failed = err
			return false, nil
		}
		findings = now
		return done, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		if err = failed; len(findings) > 0 {
			err = nil
		}
	}
	return findings, err
}

// Warning returns a warning if the agent is not running; without a name if it is.
func Warning(ctx context.Context, cluster dynamic.Interface) (change.Finding, error) {
	findings, _, err := check(ctx, cluster)
	for _, f := range findings {
		if f.Level == change.Fail {
			f.Level = change.Warn
			return f, err
		}
	}
	return change.Finding{}, err
}

// check returns the state of the agent's Deployments, and whether waiting does not change it.
func check(ctx context.Context, cluster dynamic.Interface) (findings change.Findings, done bool, err error) {
	agent, err := get(ctx, cluster, "apps", "deployments", Namespace, name)
	if agent == nil && err == nil { // listing all Deployments takes longer
		agent, err = find(ctx, cluster)
	}
	if err != nil {
		return nil, false, err
	}
	if agent == nil {
		return change.Findings{{Level: change.Fail, Name: "agent", Detail: "CAST AI's agent is not installed",
			Advice: "kops-spot connect installs it"}}, true, nil
	}
	deployments := []object{agent}
	autoscaler, err := get(ctx, cluster, "apps", "deployments", Namespace, name+"-cpvpa")
	if err != nil {
		return nil, false, err
	}
	if autoscaler != nil {
		deployments = append(deployments, autoscaler)
	}
	ready, final := true, false
	for _, o := range deployments {
		var d appsv1.Deployment
		_ = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d) // the API server has validated it
		pods, events, err := podsOf(ctx, cluster, o, d.Spec.Selector)
		if err != nil {
			return nil, false, err
		}
		s := diagnose(d, pods, events)
		f := change.Finding{Level: change.OK, Name: "agent", Detail: fmt.Sprintf("%s: %d of %d pods are available",
			fullName(o), d.Status.AvailableReplicas, *d.Spec.Replicas)}
		if o.GetName() != agent.GetName() {
			f.Name = "autoscaler"
		}
		if s.problem != "" {
			f.Level, f.Detail, f.Advice = change.Fail, f.Detail+": "+s.problem, s.advice
			if ready { // the agent's state decides before the autoscaler's
				final = s.final
			}
			ready = false
		}
		findings = append(findings, f)
	}
	return findings, ready || final, nil
}

// podsOf returns the pods of an object, and the Events of its namespace.
func podsOf(ctx context.Context, cluster dynamic.Interface, o object, selector *metav1.LabelSelector) (
	pods []corev1.Pod, events []corev1.Event, err error) {
	pods, err = list[corev1.Pod](ctx, cluster, "pods", o.GetNamespace(), metav1.FormatLabelSelector(selector))
	if err == nil {
		events, err = list[corev1.Event](ctx, cluster, "events", o.GetNamespace(), "")
	}
	return pods, events, err
}

// status says why pods are not available. If it is final, waiting does not help.
type status struct {
	problem, advice string
	final           bool
}

// stuck are the reasons for which a container waits until somebody changes something, with the command or the advice.
var stuck = map[string]string{
	"ImagePullBackOff":           "check that the nodes reach the registry of the image",
	"ErrImageNeverPull":          "check that the nodes reach the registry of the image",
	"InvalidImageName":           "check who has changed the Deployment's image",
	"CreateContainerConfigError": "check that the Secret and the ConfigMap exist",
	"CreateContainerError":       "kubectl --namespace=NAMESPACE describe pod POD",
	"RunContainerError":          "kubectl --namespace=NAMESPACE describe pod POD",
	"CrashLoopBackOff":           "kubectl --namespace=NAMESPACE logs POD --container=CONTAINER --previous",
}

// diagnose finds the cause in the conditions of the Deployment, then in its pods.
func diagnose(d appsv1.Deployment, pods []corev1.Pod, events []corev1.Event) status {
	want, is := *d.Spec.Replicas, d.Status
	if is.ObservedGeneration >= d.Generation && is.UpdatedReplicas >= want && is.AvailableReplicas >= want &&
		is.Replicas == want {
		return status{}
	}
	for _, c := range is.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return status{c.Reason + ": " + c.Message, "change what refuses the pods: a quota, a policy or a webhook", true}
		}
	}
	return diagnosePods(d.Namespace, d.Name, pods, events)
}

// diagnosePods finds the cause in the pods, then in the latest warning about them or their owner.
func diagnosePods(namespace, owner string, pods []corev1.Pod, events []corev1.Event) (s status) {
	for _, pod := range pods {
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			w := c.State.Waiting
			if w == nil || stuck[w.Reason] == "" {
				continue
			}
			exit := ""
			if last := c.LastTerminationState.Terminated; last != nil {
				exit = fmt.Sprintf(" after exit code %d", last.ExitCode)
			}
			return status{fmt.Sprintf("container %s of pod %s: %s%s: %s", c.Name, pod.Name, w.Reason, exit, w.Message),
				strings.NewReplacer("NAMESPACE", namespace, "POD", pod.Name, "CONTAINER", c.Name).Replace(stuck[w.Reason]), true}
		}
	}
	notReady := "the pods are not ready yet"
	for _, pod := range pods {
		for _, c := range pod.Status.Conditions {
			switch {
			case c.Status != corev1.ConditionFalse:
			case c.Type == corev1.PodScheduled:
				return status{"pod " + pod.Name + ": " + c.Reason + ": " + c.Message,
					"add nodes, or free some of their capacity", false}
			case c.Type == corev1.PodReady:
				notReady = "pod " + pod.Name + " on node " + pod.Spec.NodeName + ": " + c.Reason + ": " + c.Message
			}
		}
	}
	s = status{notReady, "kubectl --namespace=" + namespace + " describe pods", false}
	var latest time.Time
	for _, e := range events {
		at := cmp.Or(e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time)
		of := e.InvolvedObject
		ours := of.Name == owner || slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Name == of.Name })
		if ours && e.Type == corev1.EventTypeWarning && !at.Before(latest) {
			latest, s.problem = at, of.Kind+" "+of.Name+": "+e.Reason+": "+e.Message
		}
	}
	return s
}

// list returns the objects of a core kind in a namespace.
func list[T any](ctx context.Context, cluster dynamic.Interface, resource, namespace, selector string,
) (all []T, err error) {
	kind := schema.GroupVersionResource{Version: "v1", Resource: resource}
	found, err := cluster.Resource(kind).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing %s in %s: %w", resource, namespace, kube.Advise(err))
	}
	for _, o := range found.Items {
		var one T
		_ = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &one) // the API server has validated it
		all = append(all, one)
	}
	return all, nil
}

// WaitRemoved waits until nothing is left to remove: Kubernetes empties a namespace before it deletes it.
func WaitRemoved(ctx context.Context, cluster dynamic.Interface, login *rest.Config) (change.Findings, error) {
	return poll(ctx, cluster, removalLimit, func(ctx context.Context, cluster dynamic.Interface) (change.Findings, bool, error) {
		p, err := PlanRemoval(ctx, cluster, login)
		if err != nil || p.Changes.Empty() {
			return nil, true, err
		}
		i := slices.IndexFunc(p.Changes, change.Change.Changes)
		return change.Findings{{Level: change.Fail, Name: "removal",
			Detail: p.Changes[i].Kind + " " + p.Changes[i].Name + " still exists",
			Advice: "kubectl get namespace " + Namespace + " --output=yaml shows what Kubernetes waits for"}}, false, nil
	})
}
