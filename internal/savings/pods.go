package savings

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/component-helpers/resource"

	"github.com/castai/kops-spot/internal/spot"
)

// A pod is a pod that runs and that neither its DaemonSet nor its kubelet creates again on every node.
type pod struct {
	*corev1.Pod
	name  string // namespace/name
	class *class
	node  *node
	// onDemand and fixed are why it must stay on an on-demand machine, and on its node. Empty: it may move.
	onDemand, fixed string
	resident        bool // a static pod: it is part of its node
	ordinal         int  // among the pods of its controller
}

// Annotations, or labels, with which owners of pods ask not to disrupt them.
var doNotDisrupt = map[string]string{
	spot.AnnotationDrain:                             string(spot.DrainNever),
	"cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
	"karpenter.sh/do-not-disrupt":                    "true",
	"autoscaling.cast.ai/removal-disabled":           "true",
}

// Reasons why pods stay on demand or on their node.
const (
	reasonAnnotated   = "an annotation or a label asks not to disrupt them"
	reasonBudget      = "their budget never allows an eviction of the only replica"
	reasonLocal       = "their data is on the node: a local volume or a writable hostPath"
	reasonBare        = "no controller would recreate them"
	reasonExclude     = "their node affinity excludes Spot"
	reasonSelector    = "they run only where a label or a volume is that not all nodes of the group have"
	reasonVolume      = "their volume is not bound, unknown, or shared by pods that must run on one node"
	reasonUnsupported = "the estimate does not know one of their constraints: scheduler, resource claim, scheduling " +
		"group, or node policy of a topology spread"
	reasonAcross  = "their pod affinity is to pods of another instance group"
	reasonBeside  = "other pods that stay must run beside them"
	reasonNoRoom  = "no machine of their instance group would take them"
	reasonNothing = "they request no CPU or no memory, so nobody knows how many fit on a machine: they stay on their nodes"
	reasonNode    = "their node stays as it is"
	reasonOrders  = "the headroom may not suffice: in some simulated orders of creation, they found no machine"

	reasonPending     = "pending, terminating or finished pods are left out"
	reasonPlaceholder = "pods with a negative priority are left out: they only hold room for others"
	reasonUnpriced    = "nodes without a price, or without the label of their type or zone, are left out, with their pods"
)

// requests returns what the scheduler reserves for a pod. CPU is in millicores.
func requests(p *corev1.Pod) map[corev1.ResourceName]int64 {
	out := map[corev1.ResourceName]int64{corev1.ResourcePods: 1}
	for name, q := range resource.PodRequests(p, resource.PodResourcesOptions{UseStatusResources: true}) {
		if name == corev1.ResourceCPU {
			out[name] = q.MilliValue()
		} else {
			out[name] = q.Value()
		}
	}
	return out
}

func isRunning(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// inspector knows what decides whether a pod may move.
type inspector struct {
	budgets  map[string][]budget // by namespace
	replicas map[types.UID]int   // pods by controller
	claims   map[string]*corev1.PersistentVolumeClaim
	users    map[string]int // pods by claim
	volumes  map[string]*corev1.PersistentVolume
}

type budget struct {
	selector labels.Selector
	never    bool // it does not allow an eviction, even if all of its pods are healthy
}

func newInspector(c Cluster) (*inspector, error) {
	in := &inspector{budgets: map[string][]budget{}, replicas: map[types.UID]int{}, users: map[string]int{},
		claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}}
	for i := range c.Claims {
		in.claims[c.Claims[i].Namespace+"/"+c.Claims[i].Name] = &c.Claims[i]
	}
	for i := range c.Volumes {
		in.volumes[c.Volumes[i].Name] = &c.Volumes[i]
	}
	pods := map[string][]*corev1.Pod{} // by namespace
	for i := range c.Pods {
		p := &c.Pods[i]
		if !isRunning(p) {
			continue
		}
		pods[p.Namespace] = append(pods[p.Namespace], p)
		if owner := metav1.GetControllerOfNoCopy(p); owner != nil {
			in.replicas[owner.UID]++
		}
		for _, name := range claimNames(p) {
			in.users[name]++
		}
	}
	for _, b := range c.Budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			return nil, invalid("PodDisruptionBudget "+b.Namespace+"/"+b.Name, err)
		}
		expected := 0
		for _, p := range pods[b.Namespace] {
			if selector.Matches(labels.Set(p.Labels)) {
				expected++
			}
		}
		in.budgets[b.Namespace] = append(in.budgets[b.Namespace], budget{selector, neverAllows(b.Spec, expected)})
	}
	return in, nil
}

// neverAllows reports whether a budget does not allow a single eviction among its pods. Percentages are rounded up, as
// by the disruption controller.
func neverAllows(b policyv1.PodDisruptionBudgetSpec, expected int) bool {
	if b.MaxUnavailable != nil {
		n, err := intstr.GetScaledValueFromIntOrPercent(b.MaxUnavailable, expected, true)
		return err != nil || n <= 0
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(cmp.Or(b.MinAvailable, &intstr.IntOrString{IntVal: 1}), expected, true)
	return err != nil || n >= expected
}

// claimNames returns the namespace/name of the claims that a pod mounts.
func claimNames(p *corev1.Pod) (names []string) {
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			names = append(names, p.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, p.Namespace+"/"+p.Name+"-"+v.Name)
		}
	}
	return names
}

// onDemand returns why a pod must not run on Spot.
func (in *inspector) onDemand(p *corev1.Pod) string {
	for key, value := range doNotDisrupt {
		if p.Annotations[key] == value || p.Labels[key] == value {
			return reasonAnnotated
		}
	}
	owner := metav1.GetControllerOfNoCopy(p)
	switch {
	case in.hasLocalData(p):
		return reasonLocal
	case owner == nil:
		return reasonBare
	case in.replicas[owner.UID] == 1 && slices.ContainsFunc(in.budgets[p.Namespace], func(b budget) bool {
		return b.never && b.selector.Matches(labels.Set(p.Labels))
	}):
		return reasonBudget
	}
	return ""
}

// hasLocalData reports whether a pod would lose data with its node. An emptyDir counts as scratch space: an annotation
// can say otherwise.
func (in *inspector) hasLocalData(p *corev1.Pod) bool {
	for _, name := range claimNames(p) {
		if v := in.volume(name); v != nil && (v.Spec.Local != nil || v.Spec.HostPath != nil) {
			return true
		}
	}
	containers := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		if v.HostPath == nil {
			return false
		}
		if t := v.HostPath.Type; t != nil && slices.Contains([]corev1.HostPathType{corev1.HostPathSocket,
			corev1.HostPathCharDev, corev1.HostPathBlockDev}, *t) {
			return false
		}
		return slices.ContainsFunc(containers, func(c corev1.Container) bool {
			return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.Name == v.Name && !m.ReadOnly
			})
		})
	})
}

// volume returns the volume that a claim is bound to, or nil.
func (in *inspector) volume(claim string) *corev1.PersistentVolume {
	if c := in.claims[claim]; c != nil {
		return in.volumes[c.Spec.VolumeName]
	}
	return nil
}

// fixed returns why a pod must stay on its node, as far as the pod alone says so. What must not be interrupted must not
// move either. Constraints that the estimates do not know also keep a pod there.
func (in *inspector) fixed(p *corev1.Pod) string {
	if why := in.onDemand(p); why != "" {
		return why
	}
	if r := requests(p); r[corev1.ResourceCPU] == 0 || r[corev1.ResourceMemory] == 0 {
		return reasonNothing
	}
	s := p.Spec
	if len(s.ResourceClaims) > 0 || s.SchedulingGroup != nil ||
		s.SchedulerName != "" && s.SchedulerName != corev1.DefaultSchedulerName ||
		slices.ContainsFunc(s.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool {
			return c.NodeAffinityPolicy != nil && *c.NodeAffinityPolicy != corev1.NodeInclusionPolicyHonor ||
				c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy != corev1.NodeInclusionPolicyIgnore
		}) {
		return reasonUnsupported
	}
	if owner := metav1.GetControllerOfNoCopy(p); owner != nil && strings.HasSuffix(owner.Kind, "DaemonSet") {
		return reasonUnsupported // of another API: only its controller knows where it runs
	}
	for _, v := range s.Volumes {
		if v.AWSElasticBlockStore != nil || v.GCEPersistentDisk != nil || v.AzureDisk != nil || v.ISCSI != nil ||
			v.FC != nil || v.RBD != nil || v.Cinder != nil {
			return reasonVolume
		}
	}
	for _, name := range claimNames(p) {
		v := in.volume(name)
		if v == nil || in.users[name] > 1 && !slices.Contains(v.Spec.AccessModes, corev1.ReadWriteMany) &&
			!slices.Contains(v.Spec.AccessModes, corev1.ReadOnlyMany) {
			return reasonVolume
		}
	}
	if namesNodes(s) {
		return reasonSelector
	}
	return ""
}

// namesNodes reports whether a pod's node selector or node affinity is about single nodes.
func namesNodes(s corev1.PodSpec) bool {
	if _, ok := s.NodeSelector[corev1.LabelHostname]; ok {
		return true
	}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil {
		return false
	}
	text, err := json.Marshal(s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
	return err != nil || strings.Contains(string(text), `"`+corev1.LabelHostname+`"`) ||
		strings.Contains(string(text), `"matchFields"`)
}
