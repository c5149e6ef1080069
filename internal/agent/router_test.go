package agent

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	unknown := toleration{"key": "theirs", "operator": "Lt", "value": "950", "effect": "NoExecute", "tolerationSeconds": int64(9), "field": "of a later version"}
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
		"kOps 1.17":                {map[string]string{byKubectl: "{}"}, true, "", "; kOps undoes the change when kops update cluster", "kubectl apply"},
		"kOps, without a sign":     {nil, true, "", "; kOps undoes the change when", "source"},
		"kubectl apply":            {map[string]string{byKubectl: "{}"}, false, "", "; kubectl apply applies it and may undo the change: change its source too", "kOps"},
		"Argo CD, instead of kOps": {map[string]string{"argocd.argoproj.io/tracking-id": "x", byKubectl: "{}"}, true, "", "; Argo CD applies it and may undo the change", "kOps"},
		"Helm":                     {map[string]string{"meta.helm.sh/release-name": "x"}, false, "", "; Helm applies it and may undo the change", "kOps"},
		"OnDelete":                 {nil, false, "OnDelete", "running ones stay, as its update strategy is OnDelete", "restart"},
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
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", Message: "containers with unready status: [kube-router]"}}}}
	want := status{"pod kube-router-a on node node-a: ContainersNotReady: containers with unready status: [kube-router]", "kubectl --namespace=kube-system describe pods", false}
	if got := diagnosePods("kube-system", "kube-router", []corev1.Pod{pod}, nil); got != want {
		t.Errorf("got %+v", got)
	}
	pod.Status = corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: "kube-router", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}}
	if got := diagnosePods("kube-system", "kube-router", []corev1.Pod{pod}, nil); !got.final || !strings.HasPrefix(got.advice, "kubectl --namespace=kube-system logs kube-router-a --container=kube-router") {
		t.Errorf("got %+v", got)
	}
}
