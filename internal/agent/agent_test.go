package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
)

var prod = Agent{Cluster: "prod.example.com", Region: "eu-west-1", Store: "store/folder", API: DefaultAPI, Token: "secret-token"}

// TestObjects lists the objects in the order of their creation.
func TestObjects(t *testing.T) {
	var got []string
	for _, o := range prod.objects() {
		got = append(got, strings.TrimSuffix(o.GetKind()+" "+o.GetNamespace(), " ")+" "+o.GetName())
		if o.GetLabels()["app.kubernetes.io/managed-by"] != "kops-spot" {
			t.Errorf("%s has no label of its owner", o.GetName())
		}
	}
	want := []string{"Namespace castai-agent", "ServiceAccount castai-agent castai-agent", "ResourceQuota castai-agent castai-agent-critical-pods",
		"Secret castai-agent castai-agent", "ConfigMap castai-agent castai-agent-autoscaler", "ClusterRole castai-agent", "ClusterRoleBinding castai-agent",
		"Role castai-agent castai-agent", "Role kube-system castai-agent", "RoleBinding castai-agent castai-agent", "RoleBinding kube-system castai-agent",
		"PodDisruptionBudget castai-agent castai-agent", "Deployment castai-agent castai-agent", "Deployment castai-agent castai-agent-cpvpa"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestPermissions: the agent reads the cluster without Secrets, and writes a few kinds in its own namespace.
func TestPermissions(t *testing.T) {
	writes := map[string]string{}
	for _, o := range prod.objects() {
		if o.GetKind() != "Role" && o.GetKind() != "ClusterRole" {
			continue
		}
		rules, _, _ := unstructured.NestedSlice(o.Object, "rules")
		for _, r := range rules {
			rule := r.(map[string]any)
			for _, resource := range words(rule["resources"]) {
				groups := words(rule["apiGroups"])
				if resource == "secrets" || slices.Contains(groups, "*") ||
					resource == "*" && slices.ContainsFunc(groups, func(g string) bool { return !strings.HasSuffix(g, ".cast.ai") }) {
					t.Errorf("%s %s reads %s of %q", o.GetKind(), o.GetName(), resource, groups)
				}
				for _, verb := range words(rule["verbs"]) {
					if !slices.Contains([]string{"get", "list", "watch"}, verb) {
						where := o.GetKind() + " in " + o.GetNamespace()
						writes[where] += strings.Join(append([]string{verb, resource}, words(rule["resourceNames"])...), " ") + "\n"
					}
				}
			}
		}
	}
	want := map[string]string{"Role in castai-agent": "create leases\nupdate leases\ncreate configmaps\nupdate configmaps\npatch configmaps\npatch deployments castai-agent\n"}
	if !reflect.DeepEqual(writes, want) {
		t.Errorf("got %q, want %q", writes, want)
	}
}

func words(v any) (all []string) {
	list, _ := v.([]any)
	for _, w := range list {
		all = append(all, fmt.Sprint(w))
	}
	return all
}

// TestValues: both containers get the cluster's values, and only the Secret has the token.
func TestValues(t *testing.T) {
	i := slices.IndexFunc(prod.objects(), func(o object) bool { return o.GetKind() == "Deployment" && o.GetName() == name })
	containers, _, _ := unstructured.NestedSlice(prod.objects()[i].Object, "spec", "template", "spec", "containers")
	for _, c := range containers {
		container := c.(map[string]any)
		values := map[string]any{}
		for _, e := range container["env"].([]any) {
			e := e.(map[string]any)
			values[e["name"].(string)] = e["value"]
		}
		for name, want := range map[string]string{"API_URL": "https://api.cast.ai", "KOPS_CSP": "aws", "KOPS_REGION": "eu-west-1",
			"KOPS_CLUSTER_NAME": "prod.example.com", "KOPS_STATE_STORE": "store/folder"} {
			if values[name] != want {
				t.Errorf("%s: %s is %v, want %s", container["name"], name, values[name], want)
			}
		}
	}
	text, err := prod.Export()
	if err != nil || bytes.Contains(text, []byte("secret-token")) || bytes.Contains(text, []byte("kind: Secret")) {
		t.Errorf("the export has the token: %v\n%s", err, text)
	}
	without := prod
	without.Token = ""
	var exported []object
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), len(text)); ; {
		o := &unstructured.Unstructured{}
		if err := decoder.Decode(o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exported = append(exported, o)
	}
	if got, want := toJSON(t, exported), toJSON(t, without.objects()); got != want {
		t.Errorf("the export has other objects:\n%s", text)
	}
}

func toJSON(t *testing.T, objects []object) (all string) {
	for _, o := range objects {
		text, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
	}
	return all
}

// TestDiagnose: the first cause that helps, and whether waiting does not.
func TestDiagnose(t *testing.T) {
	pod := func(status corev1.PodStatus) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "castai-agent-1-a"}, Status: status}
	}
	waits := func(reason, message string, last *corev1.ContainerStateTerminated) corev1.Pod {
		return pod(corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}, LastTerminationState: corev1.ContainerState{Terminated: last}}}})
	}
	warning := func(of, message string, second int64) corev1.Event {
		return corev1.Event{Type: "Warning", Reason: "Unhealthy", Message: message, LastTimestamp: metav1.Unix(second, 0),
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: of}}
	}
	for name, c := range map[string]struct {
		status appsv1.DeploymentStatus
		pods   []corev1.Pod
		events []corev1.Event
		want   status
	}{
		"ready": {status: appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2}},
		"ready before the change": {status: appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2},
			want: status{"the pods are not ready yet", "kubectl --namespace=castai-agent describe pods", false}},
		"one is not available": {status: appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 2, UpdatedReplicas: 2, AvailableReplicas: 1},
			want: status{"the pods are not ready yet", "kubectl --namespace=castai-agent describe pods", false}},
		"a quota": {status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue,
			Reason: "FailedCreate", Message: "exceeded quota: q"}}}, want: status{"FailedCreate: exceeded quota: q",
			"change what refuses the pods: a quota, a policy or a webhook", true}},
		"an image": {pods: []corev1.Pod{pod(corev1.PodStatus{}), waits("ImagePullBackOff", "Back-off pulling image", nil)},
			want: status{"container agent of pod castai-agent-1-a: ImagePullBackOff: Back-off pulling image",
				"check that the nodes reach the registry of the image", true}},
		"still pulling": {pods: []corev1.Pod{waits("ContainerCreating", "", nil)}, want: status{"the pods are not ready yet", "kubectl --namespace=castai-agent describe pods", false}},
		"a crash": {pods: []corev1.Pod{waits("CrashLoopBackOff", "back-off 10s", &corev1.ContainerStateTerminated{ExitCode: 3})},
			want: status{"container agent of pod castai-agent-1-a: CrashLoopBackOff after exit code 3: back-off 10s",
				"kubectl --namespace=castai-agent logs castai-agent-1-a --container=agent --previous", true}},
		"no node": {pods: []corev1.Pod{pod(corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes"}}})},
			want: status{"pod castai-agent-1-a: Unschedulable: 0/3 nodes", "add nodes, or free some of their capacity", false}},
		"the latest warning": {pods: []corev1.Pod{pod(corev1.PodStatus{})}, events: []corev1.Event{warning("castai-agent-1-a", "new", 2), warning("castai-agent-1-a", "old", 1), warning("castai-agent-cpvpa-1-a", "another's", 3)},
			want: status{"Pod castai-agent-1-a: Unhealthy: new", "kubectl --namespace=castai-agent describe pods", false}},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := int32(2)
			d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: Namespace, Generation: 2},
				Spec: appsv1.DeploymentSpec{Replicas: &replicas}, Status: c.status}
			d.Name = "castai-agent"
			if got := diagnose(d, c.pods, c.events); got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestPoll: a failed request is repeated; at the limit, the last findings or else the last error are the result.
func TestPoll(t *testing.T) {
	denied := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", nil)
	notYet := change.Findings{{Level: change.Fail, Name: "not yet"}}
	for name, c := range map[string]struct {
		errs []error // of each request; the last one repeats
		want error
		took time.Duration
	}{
		"a timeout":        {[]error{context.DeadlineExceeded, nil}, nil, 10 * time.Second},
		"never an answer":  {[]error{io.EOF}, io.EOF, 10 * time.Second},
		"an error at last": {[]error{nil, io.EOF}, nil, 10 * time.Second},
		"denied":           {[]error{denied}, denied, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, n := time.Now(), 0
				found, err := poll(t.Context(), nil, 10*time.Second, func(context.Context, dynamic.Interface) (change.Findings, bool, error) {
					err := c.errs[min(n, len(c.errs)-1)]
					if n++; err != nil {
						return nil, false, err
					}
					return notYet, false, nil
				})
				if !errors.Is(err, c.want) || (len(found) > 0) != (c.want == nil) || time.Since(began) != c.took {
					t.Errorf("%v, %v after %s", found, err, time.Since(began))
				}
			})
		})
	}
}
