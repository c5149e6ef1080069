package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/castai/kops-spot/internal/spot"
	"github.com/castai/kops-spot/test/demo/story"
	"github.com/castai/kops-spot/test/testenv"
)

const (
	store  = "shop"        // the namespace of the workloads
	system = "kube-system" // the namespace of the DaemonSets
)

// app is a workload of the demo.
type app struct{ story.App }

// The DaemonSets.
var (
	cilium  = app{story.App{Name: "cilium", Grace: 30}}
	ebsNode = app{story.App{Name: "ebs-csi-node", Grace: 30}}
)

func (a app) labels() map[string]string { return map[string]string{"app": a.Name} }

func (a app) selector() *metav1.LabelSelector { return &metav1.LabelSelector{MatchLabels: a.labels()} }

func (a app) template() corev1.PodTemplateSpec {
	t := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: a.labels(), Annotations: map[string]string{}}}
	t.Spec.Containers = []corev1.Container{{Name: "main", Image: "example/" + a.Name}}
	t.Spec.TerminationGracePeriodSeconds = &a.Grace
	if a.Ready > 0 {
		t.Annotations[testenv.ReadyAfterAnnotation] = a.Ready.String()
	}
	if a.Exit > 0 {
		t.Annotations[testenv.ExitAfterAnnotation] = a.Exit.String()
	}
	return t
}

// pinned restricts the pods to one instance group.
func pinned(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	t.Spec.NodeSelector = map[string]string{"kops.k8s.io/instancegroup": story.PinnedGroup}
	return t
}

// evenly spreads the pods over all schedulable nodes.
func (a app) evenly(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	honor := corev1.NodeInclusionPolicyHonor
	t.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname,
		WhenUnsatisfiable: corev1.DoNotSchedule, NodeTaintsPolicy: &honor, LabelSelector: a.selector()}}
	return t
}

// apart allows one pod per node, so that an evicted pod waits for a new node.
func (a app) apart(t corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	t.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: a.selector()}}}}
	return t
}

// shop holds the workloads of the cluster.
type shop struct {
	nodes int
}

func (shop) daemons() []app { return []app{cilium, ebsNode} }

// summary lists the workloads on one line.
func (s shop) summary() string {
	var names []string
	for _, a := range story.Apps {
		names = append(names, fmt.Sprintf("%s %d", a.Name, a.Replicas))
	}
	for _, d := range s.daemons() {
		names = append(names, fmt.Sprintf("%s %d", d.Name, s.nodes))
	}
	return strings.Join(names, ", ")
}

// fill creates the workloads and waits until every pod is Ready.
func (w *world) fill(ctx context.Context, kind spot.Kind) error {
	if err := w.cp.CreateNamespace(ctx, store); err != nil {
		return err
	}
	if err := w.createDatabase(ctx, kind); err != nil {
		return err
	}
	payments := app{story.Payments}
	if err := w.createDeployment(ctx, payments, payments.evenly(pinned(payments.template()))); err != nil {
		return err
	}
	one := intstr.FromInt32(1)
	_, err := w.client.PolicyV1().PodDisruptionBudgets(store).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: payments.Name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: payments.selector()},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating PodDisruptionBudget %s: %w", payments.Name, err)
	}
	for _, plain := range []story.App{story.Web, story.API, story.Worker} {
		a := app{plain}
		if err := w.createDeployment(ctx, a, a.evenly(a.template())); err != nil {
			return err
		}
	}
	for _, d := range w.shop.daemons() {
		_, err := w.client.AppsV1().DaemonSets(system).Create(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: d.Name},
			Spec: appsv1.DaemonSetSpec{Selector: d.selector(), Template: d.template()}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating DaemonSet %s: %w", d.Name, err)
		}
	}
	if err := w.awaitReady(ctx, nil, time.Minute); err != nil {
		return err
	}
	return w.awaitBudget(ctx, payments.Name)
}

// awaitBudget waits until a budget counts its pods. Until then, the API server refuses every eviction.
func (w *world) awaitBudget(ctx context.Context, name string) error {
	for {
		b, err := w.client.PolicyV1().PodDisruptionBudgets(store).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading PodDisruptionBudget %s: %w", name, err)
		}
		if b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed > 0 {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *world) createDeployment(ctx context.Context, a app, t corev1.PodTemplateSpec) error {
	n := int32(a.Replicas)
	_, err := w.client.AppsV1().Deployments(store).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: a.Name},
		Spec: appsv1.DeploymentSpec{Replicas: &n, Selector: a.selector(), Template: t}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating Deployment %s: %w", a.Name, err)
	}
	return nil
}

// createDatabase creates a StatefulSet with one volume per pod.
func (w *world) createDatabase(ctx context.Context, kind spot.Kind) error {
	db := app{story.OrdersDB}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Gi")}
	once := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	for i := range db.Replicas {
		name := fmt.Sprintf("%s-%d", db.Name, i)
		_, err := w.client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: once,
				PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com", VolumeHandle: name}}},
		}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating PersistentVolume %s: %w", name, err)
		}
	}
	t := pinned(db.template())
	t.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	if kind == spot.SpotTerminate {
		t = db.apart(t)
	} else {
		t = db.evenly(t) // a stopped instance is not replaced, so one node must hold both pods
	}
	n := int32(db.Replicas)
	_, err := w.client.AppsV1().StatefulSets(store).Create(ctx, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: db.Name},
		Spec: appsv1.StatefulSetSpec{Replicas: &n, ServiceName: db.Name, Selector: db.selector(), Template: t,
			PodManagementPolicy: appsv1.ParallelPodManagement,
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"},
				Spec: corev1.PersistentVolumeClaimSpec{AccessModes: once, StorageClassName: new(""),
					Resources: corev1.VolumeResourceRequirements{Requests: size}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("creating StatefulSet %s: %w", db.Name, err)
	}
	return nil
}

// kubeProxy returns the mirror pod of a node's static pod.
func kubeProxy(n *corev1.Node) *corev1.Pod {
	t := app{story.App{Name: "kube-proxy", Grace: 30}}.template()
	t.Annotations[corev1.MirrorPodAnnotationKey] = "static"
	t.Name = "kube-proxy-" + n.Name
	t.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID, Controller: new(true)}}
	t.Spec.NodeName = n.Name
	t.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	return &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
}
