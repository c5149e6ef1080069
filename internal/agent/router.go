package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/castai/kops-spot/internal/change"
	"github.com/castai/kops-spot/internal/identitymap"
)

const (
	router      = "kube-router" // the DaemonSet in kube-system
	routerAddon = "addons.k8s.io/networking.kuberouter"
)

// routerTolerations are what CAST AI's guide adds to kube-router: https://github.com/kubernetes/kops/issues/9530.
var routerTolerations = []corev1.Toleration{
	{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Operator: corev1.TolerationOpExists, Key: "CriticalAddonsOnly"},
}

// missingTolerations returns what a pod lacks to run on all tainted nodes; nil if it does.
func missingTolerations(have []corev1.Toleration) []corev1.Toleration {
	lacks := slices.DeleteFunc(slices.Clone(routerTolerations), func(want corev1.Toleration) bool {
		return slices.ContainsFunc(have, func(t corev1.Toleration) bool {
			return t.Operator == corev1.TolerationOpExists && (t.Key == "" || t.Key == want.Key) &&
				(t.Effect == "" || t.Effect == want.Effect) && t.TolerationSeconds == nil
		})
	})
	if slices.ContainsFunc(lacks, func(t corev1.Toleration) bool { return t.Key == "" }) {
		return lacks
	}
	return nil // toleration of NoSchedule and NoExecute includes that of CriticalAddonsOnly
}

// tolerate adds the missing tolerations to a DaemonSet.
func tolerate(o object) {
	path := []string{"spec", "template", "spec", "tolerations"}
	all, _, _ := unstructured.NestedSlice(o.Object, path...)
	for _, t := range missing(o) {
		added, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(&t)
		all = append(all, added)
	}
	_ = unstructured.SetNestedSlice(o.Object, all, path...)
}

// missing returns the tolerations that a DaemonSet's pods lack.
func missing(o object) []corev1.Toleration {
	return missingTolerations(daemonSet(o).Spec.Template.Spec.Tolerations)
}

// daemonSet converts an object that the API server has validated.
func daemonSet(o object) (ds appsv1.DaemonSet) {
	_ = runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &ds)
	return ds
}

func getRouter(ctx context.Context, cluster dynamic.Interface) (object, error) {
	return get(ctx, cluster, "apps", "daemonsets", metav1.NamespaceSystem, router)
}

// CheckRouter reports whether kube-router runs on all tainted nodes; without a name if it is not installed.
func CheckRouter(ctx context.Context, cluster dynamic.Interface) (change.Finding, error) {
	o, err := getRouter(ctx, cluster)
	if o == nil {
		return change.Finding{}, err
	}
	return routerFinding(o), nil
}

func routerFinding(o object) change.Finding {
	var effects []string
	for _, t := range missing(o) {
		if t.Key == "" {
			effects = append(effects, string(t.Effect))
		}
	}
	if len(effects) == 0 {
		return change.Finding{Level: change.OK, Name: router, Detail: "its pods tolerate custom taints"}
	}
	return change.Finding{Level: change.Warn, Name: router, Detail: "its pods do not tolerate custom taints with the effect " +
		strings.Join(effects, " or ") + ": nodes with such taints, such as Spot nodes of CAST AI, get no network and cannot join",
		Advice: "kops-spot fix " + router}
}

// PlanRouter returns how to add the missing tolerations to kube-router.
func PlanRouter(ctx context.Context, cluster dynamic.Interface) (identitymap.Plan, error) {
	o, err := getRouter(ctx, cluster)
	if err != nil {
		return identitymap.Plan{}, err
	}
	if o == nil {
		return identitymap.PlanObjects(ctx, cluster, nil, nil, change.Change{Verb: change.Leave, Kind: "DaemonSet",
			Name: metav1.NamespaceSystem + "/" + router, Why: "it does not exist: the cluster does not use " + router})
	}
	system, err := get(ctx, cluster, "", "namespaces", "", metav1.NamespaceSystem)
	if err != nil {
		return identitymap.Plan{}, err
	}
	return identitymap.PlanEdit(o, tolerate, whyRouter(o, system)), nil
}

// whyRouter says what the change does, and who may undo it, and when. kOps 1.16 and 1.17 apply an addon like kubectl.
func whyRouter(o, system object) string {
	if missing(o) == nil {
		return routerFinding(o).Detail
	}
	why := "so that its pods run on nodes with custom taints; they restart in a rolling update, and while one restarts, " +
		"other nodes may lose their routes to its node"
	if onDelete(o) {
		why = "so that new pods run on nodes with custom taints; the others stay, since the update strategy is OnDelete"
	}
	manager := identitymap.ManagerOf(o)
	_, addon := system.GetAnnotations()[routerAddon]
	switch {
	case manager == "kOps" || addon && (manager == "" || manager == "kubectl apply"):
		why += "; kOps undoes the change if kops update cluster brings another version of the addon without the " +
			"tolerations (kOps before 1.18): run kops-spot check after an upgrade of kOps"
	default:
		why += identitymap.Undo(o)
	}
	return why
}

func onDelete(o object) bool {
	return daemonSet(o).Spec.UpdateStrategy.Type == appsv1.OnDeleteDaemonSetStrategyType
}

// WaitRouter waits until kube-router's pods have the tolerations, or says why they do not. Without kube-router, it
// returns nothing.
func WaitRouter(ctx context.Context, cluster dynamic.Interface) (change.Findings, error) {
	limit := readyLimit
	if o, _ := getRouter(ctx, cluster); o != nil { // poll reports the error
		limit += time.Duration(daemonSet(o).Status.DesiredNumberScheduled) * time.Minute
	}
	findings, err := poll(ctx, cluster, limit, rolledOut)
	if err != nil && ctx.Err() != nil {
		return findings, fmt.Errorf("waiting for the rollout: %w: it continues in the cluster; run this again to follow it",
			context.Cause(ctx))
	}
	return findings, err
}

// rolledOut returns the state of kube-router's rollout, and whether waiting does not change it.
func rolledOut(ctx context.Context, cluster dynamic.Interface) (change.Findings, bool, error) {
	o, err := getRouter(ctx, cluster)
	if o == nil {
		return nil, true, err
	}
	f, ds := routerFinding(o), daemonSet(o)
	pending := identitymap.RolloutStatus(o)
	switch {
	case f.Level != change.OK:
		f.Level, f.Detail = change.Fail, "somebody has undone the change: "+f.Detail
		f.Advice = "kubectl --namespace=kube-system get daemonset kube-router --output=yaml --show-managed-fields shows who"
		return change.Findings{f}, true, nil
	case onDelete(o):
		return change.Findings{f}, true, nil
	case pending == "":
		f.Detail += fmt.Sprintf("; all %d pods are updated and available", ds.Status.DesiredNumberScheduled)
		return change.Findings{f}, true, nil
	}
	pods, events, err := podsOf(ctx, cluster, o, ds.Spec.Selector)
	if err != nil {
		return nil, false, err
	}
	// The rollout replaces old pods, whatever their state.
	pods = slices.DeleteFunc(pods, func(p corev1.Pod) bool { return missingTolerations(p.Spec.Tolerations) != nil })
	s := diagnosePods(o.GetNamespace(), o.GetName(), pods, events)
	f.Level, f.Detail, f.Advice = change.Fail, pending+": "+s.problem, s.advice
	return change.Findings{f}, s.final, nil
}
