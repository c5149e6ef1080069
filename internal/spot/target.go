package spot

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Tags, labels, taints and annotations that kOps and others set, as far as a decision depends on them.
const (
	TagCluster       = "KubernetesCluster"              // kOps: on the instances and groups of a cluster
	TagGroup         = "aws:autoscaling:groupName"      // AWS: the Auto Scaling group of a member
	TagDetached      = "kops.k8s.io/detached-from-asg"  // kOps: marks a detached instance
	TagInstanceGroup = "kops.k8s.io/instancegroup"      // kOps: on instances and groups, often a label of nodes
	TagInterruptedAt = "cast:interrupted-at"            // kops-spot: set before a detach
	tagRolePrefix    = "k8s.io/role/"                   // kOps: on instances
	labelRolePrefix  = "node-role.kubernetes.io/"       // kOps: on nodes
	KarpenterKey     = "karpenter.sh/nodepool"          // Karpenter: label of its nodes, tag of its instances
	taintCADeleting  = "ToBeDeletedByClusterAutoscaler" // cluster-autoscaler is removing the node
	taintKarpenter   = "karpenter.sh/disrupted"         // Karpenter is removing the node

	labelType = "node.kubernetes.io/instance-type"
	labelZone = "topology.kubernetes.io/zone"

	LabelAutoscalerID  = "provisioner.cast.ai/node-id"              // CAST AI: its ID of a node that it created
	annotationProvider = "provisioner.cast.ai/override-provider-id" // CAST AI: replaces the node's provider ID
)

// Target is what is known about the interrupted instance. If a field is nil, the error beside it says why.
type Target struct {
	Node       *Node
	Instance   *Instance
	Membership *Membership
	Hook       *Hook // LifecycleTerminate: the lifecycle hook

	NodeErr       error
	InstanceErr   error
	MembershipErr error
}

// InstanceInfo returns what is known of the instance. The tags name its group where the membership was not read.
func (t Target) InstanceInfo() (info InstanceInfo) {
	if t.Membership != nil {
		info.Group = t.Membership.Group
	}
	if i := t.Instance; i != nil {
		info = InstanceInfo{Group: cmp.Or(info.Group, i.Tags[TagGroup], i.Tags[TagDetached]), Type: i.Type, Zone: i.Zone,
			Lifecycle: "on-demand"}
		if i.Spot {
			info.Lifecycle = "spot"
		}
	}
	if t.Node != nil {
		info.Type, info.Zone = cmp.Or(info.Type, t.Node.Labels[labelType]), cmp.Or(info.Zone, t.Node.Labels[labelZone])
	}
	return info
}

// Node is a Kubernetes node.
type Node struct {
	Name            string
	UID             string
	Version         string // resourceVersion
	ProviderID      string // aws:///<zone>/<instance ID>
	InternalIP      string
	Labels          map[string]string
	Annotations     map[string]string
	Taints          []Taint
	Unschedulable   bool
	NotReady        bool     // its kubelet has stopped reporting
	CordonedBy      string   // field manager that set unschedulable; empty if unknown
	NodeClaim       string   // Karpenter NodeClaim that owns the node; may be empty
	AttachedVolumes []string // volumes that the attach-detach controller has attached
}

// Taint is a taint of a node. A node's taints are replaced as a whole, so all fields are kept.
type Taint struct {
	Key, Value, Effect string
	TimeAdded          time.Time
}

// IsInstance reports whether the node runs on the instance, according to its provider ID, which ends with the instance
// ID.
func (n Node) IsInstance(id string) bool {
	return n.ProviderID != "" && n.ProviderID[strings.LastIndexByte(n.ProviderID, '/')+1:] == id
}

func (n Node) hasTaint(key string) bool {
	return slices.ContainsFunc(n.Taints, func(t Taint) bool { return t.Key == key })
}

// clone returns a copy that shares no map or slice with n.
func (n Node) clone() Node {
	n.Labels, n.Annotations, n.Taints = maps.Clone(n.Labels), maps.Clone(n.Annotations), slices.Clone(n.Taints)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	return n
}

// Instance is an EC2 instance.
type Instance struct {
	ID             string
	State          string // pending, running, stopping, stopped, shutting-down, terminated
	PrivateDNSName string // empty once the instance is terminated
	PrivateIP      string
	Type           string // such as m5.large
	Zone           string // Availability Zone
	Spot           bool
	Hibernates     bool // can hibernate: "stopped" may mean hibernated, with its pods in memory
	Tags           map[string]string
}

// NodeNames returns the possible names of the instance's node, most likely first: the instance ID (kOps 1.29 and later,
// and earlier with an external cloud controller), EC2's private DNS name, and a name derived from the private IP
// address and the Region (kOps 1.37 with useIPBasedNodeNames).
func (i Instance) NodeNames(region string) []string {
	names := []string{i.ID}
	if i.PrivateDNSName != "" {
		names = append(names, i.PrivateDNSName)
	}
	if i.PrivateIP != "" {
		domain := region + ".compute.internal"
		if region == "us-east-1" {
			domain = "ec2.internal"
		}
		if name := "ip-" + strings.ReplaceAll(i.PrivateIP, ".", "-") + "." + domain; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Membership is an instance's Auto Scaling group.
type Membership struct {
	Group          string
	LifecycleState string // of the instance: InService, Standby, Pending…, Terminating…, Detaching…
	GroupTags      map[string]string
	Suspended      []string // suspended processes of the group
	TerminateHooks []string // lifecycle hooks for EC2_INSTANCE_TERMINATING
	HooksErr       error    // why TerminateHooks is unknown
}

// IsJoining reports whether the instance is on its way into its group, or into Standby.
func (m Membership) IsJoining() bool {
	return strings.HasPrefix(m.LifecycleState, "Pending") || m.LifecycleState == "EnteringStandby"
}

// Group is an Auto Scaling group.
type Group struct {
	Name    string
	Tags    map[string]string
	Desired int
	Present int // members that are InService or Pending
}

// CriticalPriority is the priority of system-cluster-critical, the lowest of pods that are critical to a kubelet.
const CriticalPriority = 2_000_000_000

// Pod is a pod on the interrupted node.
type Pod struct {
	Namespace, Name, UID string
	Version              string // resourceVersion
	GracePeriod          time.Duration
	Terminating          bool      // it has a deletionTimestamp
	DeletionTimestamp    time.Time // when the kubelet kills its containers
	Created              time.Time
	Finished             bool  // phase Succeeded or Failed
	Mirror               bool  // mirror of a static pod, which only its kubelet can stop
	Owner                Owner // its controller; may be empty
	ToleratesCordon      bool  // it can be scheduled on a cordoned node
	Volumes              bool  // it has persistent volumes
	EmptyDir             bool  // it has an emptyDir on the node's disk
	Critical             bool  // CriticalPriority or higher
	Finalizers           []string
	DisruptedBy          string            // reason of its condition DisruptionTarget
	Annotations          map[string]string // kops-spot's only
}

// ID returns namespace/name.
func (p Pod) ID() string { return p.Namespace + "/" + p.Name }

// Owner is the controller of a pod.
type Owner struct{ Kind, Name, UID string }
