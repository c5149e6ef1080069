package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
)

type toleration = map[string]any

// routerWith returns kube-router's DaemonSet with tolerations.
func routerWith(tolerations ...toleration) object {
	spec := map[string]any{"hostNetwork": true}
	if len(tolerations) > 0 {
		var all []any
		for _, t := range tolerations {
			all = append(all, t)
		}
		spec["tolerations"] = all
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "DaemonSet",
		"metadata": map[string]any{"namespace": "kube-system", "name": "kube-router"},
		"spec":     map[string]any{"template": map[string]any{"spec": spec}}}}
}

var (
	noSchedule = toleration{"operator": "Exists", "effect": "NoSchedule"}
	noExecute  = toleration{"operator": "Exists", "effect": "NoExecute"}
	critical   = toleration{"operator": "Exists", "key": "CriticalAddonsOnly"}
	master     = toleration{"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}
	notReady   = toleration{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}
)

// TestRouterTolerations: what is missing is added after the others, which stay as they are; a second fix adds nothing.
func TestRouterTolerations(t *testing.T) {
	unknown := toleration{"key": "theirs", "operator": "Lt", "value": "950", "effect": "NoExecute", "tolerationSeconds": int64(9),
		"field": "of a later version"}
	forAWhile := toleration{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": int64(300)}
	equal := toleration{"operator": "Equal", "effect": "NoSchedule", "key": "theirs"}
	for name, c := range map[string]struct {
		have, added []toleration
		effects     string // in the finding
	}{
		"kOps 1.17.2":                    {[]toleration{critical, master, notReady}, []toleration{noSchedule, noExecute}, "NoSchedule or NoExecute"},
		"kOps 1.16.0, only NoSchedule":   {[]toleration{critical, noSchedule}, []toleration{noExecute}, "NoExecute"},
		"only NoExecute":                 {[]toleration{noExecute, critical}, []toleration{noSchedule}, "NoSchedule"},
		"kOps 1.18":                      {[]toleration{{"operator": "Exists"}}, nil, ""},
		"the guide's":                    {[]toleration{noSchedule, noExecute, critical}, nil, ""},
		"fixed without CriticalAddons":   {[]toleration{noSchedule, noExecute}, nil, ""},
		"none":                           {nil, []toleration{noSchedule, noExecute, critical}, "NoSchedule or NoExecute"},
		"others stay":                    {[]toleration{unknown, critical, equal}, []toleration{noSchedule, noExecute}, "NoSchedule or NoExecute"},
		"one value is not all":           {[]toleration{{"key": "CriticalAddonsOnly", "value": "yes"}}, []toleration{noSchedule, noExecute, critical}, "NoSchedule or NoExecute"},
		"for a while is not enough":      {[]toleration{noSchedule, critical, forAWhile}, []toleration{noExecute}, "NoExecute"},
		"one taint is not all, for both": {[]toleration{critical, {"operator": "Exists", "key": "a"}, {"operator": "Exists", "key": "b", "effect": "NoExecute"}}, []toleration{noSchedule, noExecute}, "NoSchedule or NoExecute"},
	} {
		t.Run(name, func(t *testing.T) {
			o := routerWith(c.have...)
			f := routerFinding(o)
			if f.Name != "kube-router" || (f.Level == change.OK) != (c.effects == "") || f.Level == change.Fail ||
				f.Level == change.Warn && (!strings.Contains(f.Detail, "with the effect "+c.effects+":") || f.Advice != "kops-spot fix kube-router") {
				t.Errorf("%+v", f)
			}
			tolerate(o)
			want := routerWith(append(c.have, c.added...)...)
			if !reflect.DeepEqual(o, want) {
				t.Errorf("got %v\nwant %v", o, want)
			}
			if f := routerFinding(o); f.Level != change.OK {
				t.Errorf("fixed: %+v", f)
			}
			if tolerate(o); !reflect.DeepEqual(o, want) {
				t.Errorf("fixed twice: %v", o)
			}
			if p := identitymap.PlanEdit(o, tolerate, ""); len(p.Changes) != 1 || p.Changes[0].Verb != change.Keep {
				t.Errorf("planned again: %v", p.Changes)
			}
		})
	}
}

// TestWhyRouter: the plan says what restarts, and who may undo the change.
func TestWhyRouter(t *testing.T) {
	const byKubectl = "kubectl.kubernetes.io/last-applied-configuration"
	for name, c := range map[string]struct {
		annotations map[string]string
		addon       bool
		strategy    string
		want, not   string
	}{
		"nobody":                   {nil, false, "", "rolling update", "undo"},
		"kOps 1.17":                {map[string]string{byKubectl: "{}"}, true, "", "; kOps undoes the change if kops update cluster", "kubectl apply"},
		"kOps, without a sign":     {nil, true, "", "; kOps undoes the change if", "source"},
		"kubectl apply":            {map[string]string{byKubectl: "{}"}, false, "", "; kubectl apply applies it and may undo the change: change its source too", "kOps"},
		"Argo CD, instead of kOps": {map[string]string{"argocd.argoproj.io/tracking-id": "x", byKubectl: "{}"}, true, "", "; Argo CD applies it and may undo the change", "kOps"},
		"Helm":                     {map[string]string{"meta.helm.sh/release-name": "x"}, false, "", "; Helm applies it and may undo the change", "kOps"},
		"OnDelete":                 {nil, false, "OnDelete", "the others stay, since the update strategy is OnDelete", "restart"},
	} {
		t.Run(name, func(t *testing.T) {
			o, system := routerWith(critical), &unstructured.Unstructured{Object: map[string]any{}}
			o.SetAnnotations(c.annotations)
			_ = unstructured.SetNestedField(o.Object, c.strategy, "spec", "updateStrategy", "type")
			if c.addon {
				system.SetAnnotations(map[string]string{"addons.k8s.io/networking.kuberouter": `{"version":"0.4.0-kops.3"}`})
			}
			if got := whyRouter(o, system); !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
				t.Errorf("%q", got)
			}
			tolerate(o)
			if got := whyRouter(o, system); got != "its pods tolerate custom taints" {
				t.Errorf("fixed: %q", got)
			}
		})
	}
}

// TestDiagnosePodsOfRouter: the advice names the namespace, and a pod that is not ready its reason.
func TestDiagnosePodsOfRouter(t *testing.T) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "kube-router-a"}, Spec: corev1.PodSpec{NodeName: "node-a"}, Status: corev1.PodStatus{
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady",
			Message: "containers with unready status: [kube-router]"}}}}
	want := status{"pod kube-router-a on node node-a: ContainersNotReady: containers with unready status: [kube-router]",
		"kubectl --namespace=kube-system describe pods", false}
	if got := diagnosePods("kube-system", "kube-router", []corev1.Pod{pod}, nil); got != want {
		t.Errorf("got %+v", got)
	}
	pod.Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "kube-router",
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}}
	if got := diagnosePods("kube-system", "kube-router", []corev1.Pod{pod}, nil); !got.final ||
		!strings.HasPrefix(got.advice, "kubectl --namespace=kube-system logs kube-router-a --container=kube-router") {
		t.Errorf("got %+v", got)
	}
}

// serving returns a client of an API server with kube-router, unless that is nil, and its pods.
func serving(t *testing.T, daemonSet object, pods ...corev1.Pod) dynamic.Interface {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		is := map[string]any{"kube-router": daemonSet, "pods": map[string]any{"apiVersion": "v1", "kind": "PodList", "items": pods},
			"events": map[string]any{"apiVersion": "v1", "kind": "EventList", "items": []any{}}}[path.Base(r.URL.Path)]
		w.Header().Set("Content-Type", "application/json")
		if is == object(nil) {
			w.WriteHeader(http.StatusNotFound)
			is = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound}
		}
		_ = json.NewEncoder(w).Encode(is)
	}))
	t.Cleanup(server.Close)
	client, err := identitymap.NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestRolledOut: a rollout is complete when all pods are updated and available. Old pods do not matter.
func TestRolledOut(t *testing.T) {
	crashing := func(name string, tolerations ...corev1.Toleration) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Tolerations: tolerations},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
				{Name: "kube-router", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}}}
	}
	every := corev1.Toleration{Operator: corev1.TolerationOpExists}
	for name, c := range map[string]struct {
		tolerations        []toleration
		strategy           string
		updated, available int64 // of 2
		pods               []corev1.Pod
		done               bool
		want               string // empty for no finding
	}{
		"complete":           {[]toleration{noSchedule, noExecute}, "", 2, 2, nil, true, "ok its pods tolerate custom taints; all 2 pods are updated and available"},
		"not updated":        {[]toleration{noSchedule, noExecute}, "", 1, 2, nil, false, "fail of 2 pods, 1 are updated and 2 available: the pods are not ready yet"},
		"not available":      {[]toleration{noSchedule, noExecute}, "", 2, 1, nil, false, "fail of 2 pods, 2 are updated and 1 available: the pods are not ready yet"},
		"a crash":            {[]toleration{noSchedule, noExecute}, "", 2, 1, []corev1.Pod{crashing("new", every)}, true, "container kube-router of pod new: CrashLoopBackOff"},
		"a crash of the old": {[]toleration{noSchedule, noExecute}, "", 1, 1, []corev1.Pod{crashing("old")}, false, "the pods are not ready yet"},
		"OnDelete":           {[]toleration{noSchedule, noExecute}, "OnDelete", 0, 2, nil, true, "ok its pods tolerate custom taints"},
		"undone":             {[]toleration{critical}, "", 2, 2, nil, true, "fail somebody has undone the change: its pods do not tolerate"},
		"not installed":      {nil, "", 0, 0, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var o object
			if c.tolerations != nil {
				o = routerWith(c.tolerations...)
				spec := o.Object["spec"].(map[string]any)
				spec["updateStrategy"], spec["selector"] = map[string]any{"type": c.strategy},
					map[string]any{"matchLabels": map[string]any{"k8s-app": "kube-router"}}
				o.Object["status"] = map[string]any{"desiredNumberScheduled": int64(2), "updatedNumberScheduled": c.updated, "numberAvailable": c.available}
			}
			findings, done, err := rolledOut(t.Context(), serving(t, o, c.pods...))
			if err != nil || done != c.done || (len(findings) == 0) != (c.want == "") || len(findings) > 0 &&
				!strings.Contains(fmt.Sprint(findings[0].Level, " ", findings[0].Detail), c.want) {
				t.Errorf("%+v, %v, %v", findings, done, err)
			}
		})
	}
}

// TestWaitRouterInterrupted: the error says that the rollout continues.
func TestWaitRouterInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt"))
	if _, err := WaitRouter(ctx, serving(t, routerWith())); err == nil ||
		!strings.HasPrefix(err.Error(), "waiting for the rollout: interrupt: it continues in the cluster; run this again") {
		t.Error(err)
	}
}
